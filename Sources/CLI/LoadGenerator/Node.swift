import Core
import Glibc

/// A server that requests go to.
final class Node {
    let address: NodeAddress
    private let socketAddress: SocketAddress
    /// What every request has behind its target, up to the end of the `host` field.
    let tail: [UInt8]
    /// `host:port`
    let authority: [UInt8]

    /// Looks the host up. Of several addresses it takes the first that can be connected to, which takes up to half a second
    /// for each one that does not answer.
    ///
    /// Throws `KVError(.unavailable)` where the host has no address.
    init(_ address: NodeAddress) throws(KVError) {
        self.address = address
        authority = Array(address.description.utf8)
        tail = Array(" HTTP/1.1\r\nhost: \(address)\r\n".utf8)
        let all = try SocketAddress.all(of: address)
        // `localhost` is ::1 as well, where a server may not listen.
        socketAddress = all.count == 1 ? all[0] : all.first(where: \.answers) ?? all[0]
    }

    /// A socket that connects; nil where there is none to be had or the connection failed at once.
    func connect() -> CInt? {
        guard let descriptor = socketAddress.connect() else { return nil }
        var isOn: CInt = 1
        setsockopt(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &isOn, socklen_t(MemoryLayout<CInt>.size))
        return descriptor
    }
}

/// An address of a host, as the kernel takes it.
private struct SocketAddress {
    private var storage = sockaddr_storage()
    private var length: socklen_t

    /// Milliseconds that one of several has to answer in.
    private static let patience: CInt = 500

    private init?(_ info: addrinfo) {
        guard let source = info.ai_addr, Int(info.ai_addrlen) <= MemoryLayout<sockaddr_storage>.size else { return nil }
        memcpy(&storage, source, Int(info.ai_addrlen))
        length = info.ai_addrlen
    }

    /// At least one, in the resolver's order.
    static func all(of address: NodeAddress) throws(KVError) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(address.host, String(address.port), &hints, &found)
        defer { if found != nil { freeaddrinfo(found) } }
        var addresses: [SocketAddress] = []
        var next = status == 0 ? found : nil
        while let info = next?.pointee {
            if let address = SocketAddress(info) { addresses.append(address) }
            next = info.ai_next
        }
        guard !addresses.isEmpty else {
            throw KVError(.unavailable, "\(address) has no address: \(String(cString: gai_strerror(status)))")
        }
        return addresses
    }

    /// A socket that connects, without blocking; nil where that failed at once.
    func connect() -> CInt? {
        let type = CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(CInt(storage.ss_family), type, 0)
        guard descriptor >= 0 else { return nil }
        let status = withUnsafePointer(to: storage) { storage in
            storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(descriptor, $0, length) }
        }
        guard status == 0 || errno == EINPROGRESS else {
            Glibc.close(descriptor)
            return nil
        }
        return descriptor
    }

    /// Whether somebody listens there.
    var answers: Bool {
        guard let descriptor = connect() else { return false }
        defer { Glibc.close(descriptor) }
        var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        guard poll(&waiting, 1, Self.patience) == 1 else { return false }
        var status: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &status, &length) == 0 && status == 0
    }
}
