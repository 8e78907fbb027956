import ArgumentParser
import Glibc

@main
struct FuzzCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fuzz",
        abstract: "Reads made-up inputs with the project's readers and checks what has to hold of each.",
        discussion: "Targets: \(FuzzTargets.all.map(\.name).joined(separator: ", ")).")

    @Argument(help: "What to fuzz; all of them where none is named.")
    var targets: [String] = []

    @Option(help: "How many inputs each target gets.")
    var inputs: UInt64 = 100_000

    @Option(help: "Stops after so many seconds for each target.")
    var seconds: Double?

    @Option(help: "Of the processor's time; an input that takes longer is taken for an endless loop.")
    var inputSeconds = 20

    @Option(help: "The number of the first input, as a run prints it.")
    var seed = UInt64.random(in: 0...1 << 40)

    @Option(help: "One input, in hex, in place of made-up ones.")
    var replay: String?

    @Option(help: "Writes the seeds and words of the target here, as a corpus for a coverage-guided fuzzer.")
    var corpus: String?

    #if COVERAGE_GUIDED
        @Option(help: "Arguments of libFuzzer, separated by spaces; Tests/Fuzz/run gives them.")
        var libfuzzer: String?
    #endif

    mutating func validate() throws {
        for name in targets where FuzzTargets.named(name) == nil {
            throw ValidationError("There is no target \"\(name)\": see --help.")
        }
        guard replay == nil && corpus == nil || targets.count == 1 else { throw ValidationError("Name one target.") }
    }

    mutating func run() throws {
        let chosen =
            targets.isEmpty
            ? FuzzTargets.all : (FuzzTargets.all + PlantedTargets.all).filter { targets.contains($0.name) }
        var clean = true
        for (name, target) in chosen {
            let runner = Runner(name: name, target: target, inputSecondsMax: inputSeconds)
            if let replay {
                guard let input = FuzzCommand.bytes(hex: replay) else {
                    throw ValidationError("--replay takes hex digits.")
                }
                CurrentInput.install(name)
                let defect = runner.check(input)
                Runner.say(defect.map { "fuzz \(name): DEFECT: \($0)" } ?? "fuzz \(name): nothing is wrong with it")
                clean = defect == nil
            } else if let corpus {
                try Corpus.write(target, to: corpus)
            } else {
                #if COVERAGE_GUIDED
                    if let libfuzzer {
                        CoverageGuided.run(target, arguments: libfuzzer.split(separator: " ").map(String.init))
                    }
                #endif
                clean = runner.run(from: seed, inputs: inputs, seconds: seconds) && clean
            }
        }
        if !clean { throw ExitCode(1) }
    }

    static func bytes(hex: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        var rest = Substring(hex)
        while !rest.isEmpty {
            guard rest.count > 1, let byte = UInt8(rest.prefix(2), radix: 16) else { return nil }
            bytes.append(byte)
            rest = rest.dropFirst(2)
        }
        return bytes
    }
}
