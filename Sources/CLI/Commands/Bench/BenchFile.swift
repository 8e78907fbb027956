import ImportPipeline
import NIOCore

/// Files that a benchmark writes.
enum BenchFile {
    /// Refuses what cannot be written, before anything is measured for it; nil is no file.
    ///
    /// Throws `KVError(.invalidArgument)`.
    static func check(_ path: String?) throws {
        if let path { try ExportFile(path: path).discard() }
    }

    /// Replaces the file at `path` when all is written; `-` is standard output.
    ///
    /// Throws `KVError` where it cannot be written.
    static func write(_ bytes: [UInt8], to path: String) async throws {
        let file = try ExportFile(path: path)
        do {
            try await file.write(ByteBuffer(bytes: bytes))
            try await file.finish()
        } catch {
            file.discard()
            throw error
        }
    }
}
