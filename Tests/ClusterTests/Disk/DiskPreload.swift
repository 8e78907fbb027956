import FoundationEssentials
import Glibc
import Testing

/// What `Tests/Faults/faults.c` does to a storage node: it makes file calls fail, and notes what changes the disk.
///
/// One of these is for the runs of one data directory. Rules may change while a node runs.
struct DiskPreload: Sendable {
    /// The data directory.
    let disk: String
    let rulesPath: String
    let firedPath: String
    /// nil where nothing is noted.
    let tracePath: String?

    /// - Parameter name: of files beside the data directory.
    init(disk: String, name: String, traces: Bool) throws {
        self.disk = disk
        rulesPath = "\(disk).\(name).rules"
        firedPath = "\(disk).\(name).fired"
        tracePath = traces ? "\(disk).\(name).trace" : nil
        if FileManager.default.fileExists(atPath: firedPath) { try FileManager.default.removeItem(atPath: firedPath) }
        try setRules([])
    }

    /// Of a process that is to be watched.
    func environment() async throws -> [String: String] {
        var variables = [
            "LD_PRELOAD": try await DiskPreload.library.value, "KV_DISK": disk, "KV_RULES": rulesPath,
            "KV_FIRED": firedPath,
        ]
        if let tracePath { variables["KV_TRACE"] = tracePath }
        return variables
    }

    // MARK: Faults

    enum Effect: String, Sendable, CaseIterable {
        case ioError = "EIO"
        case full = "ENOSPC"
        case quota = "EDQUOT"
        /// Half of what was asked for is read or written.
        case short = "SHORT"
        /// Nothing; the call is only counted.
        case note = "NOTE"
    }

    struct Rule: Sendable, CustomStringConvertible {
        var calls = DiskPreload.everyCall
        /// Part of it; nil for any.
        var path: String?
        /// Of the matching calls, from 1; without an end where it goes on for good.
        var from = 1
        var to: Int?
        var effect: Effect

        /// A line of the file.
        fileprivate var line: String {
            "\(calls.joined(separator: ",")) \(path ?? "*") \(from) \(to ?? 0) \(effect.rawValue)"
        }

        var description: String {
            let calls = calls == DiskPreload.everyCall ? "every call" : self.calls.joined(separator: ",")
            return "\(calls) \(path ?? "*") \(from)...\(to.map(String.init) ?? "") \(effect.rawValue)"
        }
    }

    static let reads = ["open", "read", "pread"]
    static let changes = [
        "create", "write", "pwrite", "ftruncate", "fallocate", "fsync", "fdatasync", "rename", "link", "unlink",
        "mkdir", "rmdir",
    ]
    static let everyCall = reads + changes

    /// Replaces the rules; a running node counts from the start.
    func setRules(_ rules: [Rule]) throws {
        try writeFile(rulesPath, rules.map { "\($0.line)\n" }.joined())
    }

    /// The calls that a rule has met: name, path, effect.
    var fired: [(call: String, path: String)] {
        text(ofFile: firedPath).split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            return words.count == 3 ? (String(words[0]), String(words[1])) : nil
        }
    }

    // MARK: Trace

    /// What has happened by now, as a place in the trace.
    var now: Int {
        var status = stat()
        guard let tracePath, stat(tracePath, &status) == 0 else { return 0 }
        return Int(status.st_size)
    }

    // MARK: The library

    /// Built when first asked for, beside the test executable. A C compiler comes with Swift's packages.
    private static let library = Task { () throws -> String in
        let source = "\(repository)/Tests/Faults/faults.c"
        let library = "\(Program.besideTests)/libdistribkv-faults.so"
        let attempt = "\(library).\(getpid())"
        try await withDirectory { directory in
            let compiler = try await ChildProcess.start(
                "cc",
                ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result", "-shared", "-fPIC"]
                    + ["-o", attempt, source, "-ldl", "-lpthread"], directory: directory)
            let status = try await compiler.waitForExit()
            try #require(status == .exited(0), "\(source) cannot be built: \(compiler.log)")
        }
        // Another test process may load it at this moment.
        try #require(rename(attempt, library) == 0)
        return library
    }

    static let repository = #filePath.split(separator: "/").dropLast(4).reduce("") { $0 + "/" + $1 }
}
