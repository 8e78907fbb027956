import Foundation
import TestSupport

/// What a run of the built `kv` came to.
struct ProgramRun {
    var status: Int32
    var output: Data
    var errors: String

    var text: String { String(decoding: output, as: UTF8.self) }
    /// Lines on standard error.
    var errorLines: [String] { errors.split(separator: "\n").map(String.init) }

    /// The `kv` that was built beside the tests.
    static func kvPath() throws -> String {
        let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("kv").path
    }

    static func kv(_ arguments: [String], input: Data = Data()) async throws -> ProgramRun {
        try await run(try kvPath(), arguments, input: input)
    }

    /// Runs a program and waits for its end.
    static func run(_ path: String, _ arguments: [String], input: Data = Data()) async throws -> ProgramRun {
        let directory = try TemporaryDirectory()
        func file(_ name: String, _ content: Data = Data()) throws -> FileHandle {
            let url = URL(fileURLWithPath: "\(directory.path)/\(name)")
            try content.write(to: url)
            return try FileHandle(forUpdating: url)
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("DISTRIBKV_") }
        process.standardInput = try file("in", input)
        process.standardOutput = try file("out")
        process.standardError = try file("err")
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            process.terminationHandler = { _ in continuation.resume() }
            do { try process.run() } catch { continuation.resume(throwing: error) }
        }
        func content(_ name: String) throws -> Data {
            try Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/\(name)"))
        }
        let errors = String(decoding: try content("err"), as: UTF8.self)
        return ProgramRun(status: process.terminationStatus, output: try content("out"), errors: errors)
    }
}
