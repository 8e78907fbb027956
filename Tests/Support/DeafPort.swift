public import Core
import Glibc

/// A loopback port that refuses connections for as long as this lives: bound, so that nobody else gets it, but not
/// listening.
public final class DeafPort: Sendable {
    public let address: NodeAddress
    private let descriptor: CInt

    public init() throws {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 ? getsockname(descriptor, $0, &length) : -1
            }
        }
        self.address = NodeAddress(host: "127.0.0.1", port: Int(UInt16(bigEndian: address.sin_port)))
        guard result == 0 else {
            close(descriptor)
            throw KVError(.internalError, "cannot bind a loopback port")
        }
    }

    deinit { close(descriptor) }
}
