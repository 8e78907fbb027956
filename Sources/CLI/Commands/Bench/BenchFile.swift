import FoundationEssentials

/// Files that a benchmark writes.
enum BenchFile {
    /// Replaces the file at `path`.
    static func write(_ bytes: [UInt8], to path: String) throws {
        do {
            try Data(bytes).write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw CommandFailure(status: .usage, message: "cannot write \(path): \(error)")
        }
    }
}
