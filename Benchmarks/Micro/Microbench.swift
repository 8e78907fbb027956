import Foundation

/// Runs one benchmark a number of times and prints nothing: for valgrind, which counts what it does.
/// `.ci/instructions` runs each twice and takes the difference, so that the start of the program falls out.
@main
enum Microbench {
    static let usage = """
        Usage: microbench --list
               microbench NAME COUNT
               microbench --time [NAME]

        --list prints the names, each with how often it is to be run for a count of instructions.
        --time runs each for about a second and prints nanoseconds for one iteration, the least of five.
        """

    static func main() throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        switch arguments.first {
        case "--list" where arguments.count == 1:
            for benchmark in Benchmark.all { print("\(benchmark.name) \(benchmark.iterations)") }
        case "--time" where arguments.count <= 2:
            for benchmark in try selected(arguments.dropFirst().first) { try time(benchmark) }
        case .some(let name) where arguments.count == 2:
            guard let count = Int(arguments[1]), count > 0 else { fail("\"\(arguments[1])\" is no count") }
            let benchmark = try selected(name)[0]
            try repeating(benchmark.prepare(), count)
        default: fail(usage)
        }
    }

    private static func selected(_ name: String?) throws -> [Benchmark] {
        guard let name else { return Benchmark.all }
        let found = Benchmark.all.filter { $0.name == name }
        guard !found.isEmpty else { fail("there is no benchmark \"\(name)\": see microbench --list") }
        return found
    }

    @inline(never)
    private static func repeating(_ body: (Int) throws -> Void, _ count: Int) throws {
        for number in 0..<count { try body(number) }
    }

    private static let roundSeconds = 0.2
    private static let rounds = 5

    private static func time(_ benchmark: Benchmark) throws {
        let body = try benchmark.prepare()
        let clock = ContinuousClock()
        var count = benchmark.iterations
        var best = Double.infinity
        for _ in 0...rounds {
            let spent = try clock.measure { try repeating(body, count) } / .seconds(1)
            best = min(best, spent / Double(count) * 1e9)
            count = max(1, Int(roundSeconds / (spent / Double(count))))
        }
        print("\(benchmark.name): \(String(format: "%.1f", best)) ns")
    }

    private static func fail(_ message: String) -> Never {
        FileHandle.standardError.write(Data("microbench: \(message)\n".utf8))
        exit(2)
    }
}
