import Foundation
import Testing

@testable import fuzz

/// A bounded run of every target, each in a process of its own, so that a trap names its input and ends nothing else.
///
/// The same inputs in every run, so that one that fails is the fault of what was changed. `DISTRIBKV_FUZZ_INPUTS` sets how
/// many each target gets, `DISTRIBKV_FUZZ_SEED` where they start (`random` for others); both are printed.
@Suite(.serialized) struct FuzzTests {
    private static func number(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
    }

    /// About as long for each: a second or two in a debug build.
    private static let inputs: [String: UInt64] = [
        "http": 4_000, "toml": 1_500, "documents": 1_500, "topologies": 1_000,
    ]
    private static let inputsDefault: UInt64 = 8_000

    @Test(arguments: FuzzTargets.all.map(\.name)) func target(name: String) async throws {
        let inputs = FuzzTests.number("DISTRIBKV_FUZZ_INPUTS") ?? FuzzTests.inputs[name] ?? FuzzTests.inputsDefault
        let isRandom = ProcessInfo.processInfo.environment["DISTRIBKV_FUZZ_SEED"] == "random"
        let seed = isRandom ? UInt64.random(in: 0...1 << 40) : FuzzTests.number("DISTRIBKV_FUZZ_SEED") ?? 1_000_000
        let (status, output) = try FuzzTests.fuzz([name, "--inputs", "\(inputs)", "--seed", "\(seed)"])
        print(output, terminator: "")
        #expect(status == 0, "\(output)")
        #expect(output.contains("fuzz \(name): \(inputs) inputs"), "\(output)")
    }

    @Test func theSameSeedMakesTheSameInputs() {
        for (name, target) in FuzzTargets.all {
            let (one, other) = (Mutator(target), Mutator(target))
            let inputs = (0..<200).map { one.input($0) }
            #expect(inputs == (0..<200).map { other.input($0) }, "\(name)")
            #expect(Set(inputs).count > 100, "\(name)")
            #expect(inputs.allSatisfy { $0.count <= Mutator.inputBytesMax }, "\(name)")
        }
    }

    @Test func seedsAreCleanAndHexComesBack() throws {
        for (name, target) in FuzzTargets.all {
            for seed in target.seeds {
                #expect(throws: Never.self, "\(name): \(Runner.hex(seed))") { try target.run(seed) }
                #expect(FuzzCommand.bytes(hex: Runner.hex(seed)) == seed)
            }
        }
        #expect(FuzzCommand.bytes(hex: "0") == nil && FuzzCommand.bytes(hex: "0g") == nil)
    }

    /// What finds nothing could be blind: planted defects of each kind are found, and what is printed shows them again.
    @Test(arguments: ["trap", "property", "hang", "memory"]) func plantedDefectsAreFound(kind: String) throws {
        let (status, output) = try FuzzTests.fuzz([
            "planted-" + kind, "--inputs", "20000", "--seed", "1", "--input-seconds", "1",
        ])
        #expect(status != 0, "\(output)")
        #expect(output.contains("DEFECT"), "\(output)")
        guard kind != "memory", let hex = output.split(separator: "--replay ").last?.prefix(while: \.isHexDigit) else {
            return
        }
        let again = try FuzzTests.fuzz(["planted-" + kind, "--replay", String(hex), "--input-seconds", "1"])
        #expect(again.status != 0 && again.output.contains("DEFECT"), "\(again.output)")
    }

    /// The program is beside the tests.
    private static func fuzz(_ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        let folder = URL(filePath: ProcessInfo.processInfo.arguments[0]).resolvingSymlinksInPath()
            .deletingLastPathComponent()
        process.executableURL = folder.appending(path: "fuzz")
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 }
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}
