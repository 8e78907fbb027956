import FoundationEssentials

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What a disk can do to a file.
public enum Damage {
    public struct NoFile: Error {
        let path: String
    }

    /// Flips one bit in place: whoever has the file open, or another link to it, sees it.
    /// - Parameter place: of the byte, by the length of the file.
    public static func flipBit(ofFile path: String, at place: (Int) -> Int = { $0 / 2 }) throws {
        let file = open(path, O_RDWR)
        guard file >= 0 else { throw NoFile(path: path) }
        defer { close(file) }
        let offset = off_t(place(Int(lseek(file, 0, SEEK_END))))
        var byte: UInt8 = 0
        guard pread(file, &byte, 1, offset) == 1 else { throw NoFile(path: path) }
        byte ^= 4
        guard pwrite(file, &byte, 1, offset) == 1 else { throw NoFile(path: path) }
    }

    /// The paths of the tables in a database's folder, the largest first.
    public static func tables(in folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".sst") }
            .map { path in
                let size = try FileManager.default.attributesOfItem(atPath: "\(folder)/\(path)")[.size] as? UInt64
                return ("\(folder)/\(path)", size ?? 0)
            }
            .sorted { ($1.1, $0.0) < ($0.1, $1.0) }.map(\.0)
    }
}
