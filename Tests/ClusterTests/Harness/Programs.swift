import FoundationEssentials
import Glibc

/// The built programs: those in the folder that `DISTRIBKV_PROGRAMS` names, else those beside the test executable.
/// `compose/test` has the tests run the release programs, as `compose/up` builds them.
enum Program: String, CaseIterable {
    case storageNode = "storage-node"
    case router, replicator, kv

    private static let folder = ProcessInfo.processInfo.environment["DISTRIBKV_PROGRAMS"] ?? besideTests

    static let besideTests: String = {
        let path = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            let count = buffer.baseAddress.map { readlink("/proc/self/exe", $0, buffer.count) } ?? 0
            return String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }()

    var path: String { "\(Program.folder)/\(rawValue)" }
}

/// A new directory, removed afterwards unless `DISTRIBKV_TEST_KEEP` is set.
func withDirectory<Result>(
    isolation: isolated (any Actor)? = #isolation, _ body: (String) async throws -> Result
) async throws -> Result {
    let directory = FileManager.default.temporaryDirectory.path + "/distribkv-cluster-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer {
        if ProcessInfo.processInfo.environment["DISTRIBKV_TEST_KEEP"] == nil {
            do { try FileManager.default.removeItem(atPath: directory) } catch { print("left behind: \(directory)") }
        }
    }
    return try await body(directory)
}
