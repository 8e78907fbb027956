import Core
import FoundationEssentials
import Glibc

/// Which process a loopback connection comes from: all of them leave from 127.0.0.1, so only the kernel knows.
enum PeerLookup {
    /// - Parameter processes: to look among, by name.
    /// - Returns: the name; nil where none of them has the connection's other end.
    static func name(from source: NodeAddress, to destination: NodeAddress, among processes: [String: pid_t]) -> String?
    {
        guard let inode = inode(from: source, to: destination) else { return nil }
        let wanted = "socket:[\(inode)]"
        return processes.first { descriptors(of: $0.value).contains(wanted) }?.key
    }

    /// Of the socket at the source's end, from the kernel's table of TCP sockets.
    private static func inode(from source: NodeAddress, to destination: NodeAddress) -> Substring? {
        guard let local = hex(source), let remote = hex(destination) else { return nil }
        for line in kernelText("/proc/net/tcp").split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            if fields.count > 9, fields[1] == local, fields[2] == remote { return fields[9] }
        }
        return nil
    }

    private static func descriptors(of pid: pid_t) -> [String] {
        let folder = "/proc/\(pid)/fd"
        // A process that ends meanwhile has none.
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: folder) else { return [] }
        return names.compactMap { name in
            withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer in
                guard let base = buffer.baseAddress else { return nil }
                let count = readlink("\(folder)/\(name)", base, buffer.count)
                return count > 0
                    ? String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
            }
        }
    }

    /// As the kernel prints it: the address as a number of this machine's byte order, and the port.
    private static func hex(_ address: NodeAddress) -> String? {
        var number = in_addr()
        guard inet_pton(AF_INET, address.host, &number) == 1 else { return nil }
        return padded(String(number.s_addr, radix: 16, uppercase: true), 8) + ":"
            + padded(String(address.port, radix: 16, uppercase: true), 4)
    }

    private static func padded(_ digits: String, _ count: Int) -> String {
        String(repeating: "0", count: max(0, count - digits.count)) + digits
    }
}

/// A file of /proc, whose size the kernel gives as zero.
func kernelText(_ path: String) -> String {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return "" }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = read(descriptor, &piece, piece.count)
        guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
        bytes += piece[..<count]
    }
}
