import Core
import Glibc

/// Addresses that only this test uses.
///
/// All of 127.0.0.0/8 is loopback on Linux, and connections made by programs leave from 127.0.0.1: on another address
/// of that network nothing takes a port of a node that is down for the moment.
enum Loopback {
    struct NoPort: Error {}

    static func randomHost() -> String {
        "127.\(Int.random(in: 1...254)).\(Int.random(in: 0...254)).\(Int.random(in: 1...254))"
    }

    /// A port that is free now; the kernel gives out the others before it gives this one again.
    static func freePort(on host: String) throws -> Int {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { throw NoPort() }
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw NoPort() }
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(socket, $0, length) == 0 && getsockname(socket, $0, &length) == 0
            }
        }
        guard bound else { throw NoPort() }
        return Int(UInt16(bigEndian: address.sin_port))
    }

    static func freeAddresses(_ count: Int) throws -> [NodeAddress] {
        let host = randomHost()
        var addresses: Set<NodeAddress> = []
        while addresses.count < count { addresses.insert(NodeAddress(host: host, port: try freePort(on: host))) }
        return addresses.sorted()
    }
}
