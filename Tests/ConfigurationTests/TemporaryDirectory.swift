import FoundationEssentials

/// A new directory for `body`, removed afterwards.
func withTemporaryDirectory(_ body: (String) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.path + "/distribkv-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer {
        do { try FileManager.default.removeItem(atPath: directory) } catch { print("left behind: \(directory)") }
    }
    try body(directory)
}
