import ArgumentParser
import LoadGenerator
import Testing

@testable import kv

@Suite struct BenchTests {
    @Test(arguments: [
        ("bench --json out.json", "bench --json-file out.json"),
        ("bench --workload c --json=out.json --html x", "bench --workload c --json-file=out.json --html x"),
        ("--router a:1 bench run --json out.json", "--router a:1 bench run --json-file out.json"),
        ("--json bench --json out.json", "--json bench --json-file out.json"),
        ("bench failover s --json out.json", "bench failover s --json-file out.json"),
        ("bench compare a b --json", "bench compare a b --json"),
        ("put bench v --json", "put bench v --json"), ("--router bench get k --json", "--router bench get k --json"),
        ("get k --json", "get k --json"), ("", ""),
    ])
    func jsonIsAFileOfABenchmark(given: String, expected: String) {
        let words = { (text: String) in text.split(separator: " ").map(String.init) }
        #expect(BenchArguments.rewritten(words(given)) == words(expected))
    }

    @Test(arguments: [
        ("--workload q", "no workload \"q\""), ("--records 0", "number of records"),
        ("--value-size 9-1", "size of values"),
        ("--connections 0", "--connections goes from 1"),
        ("--threads 64 --connections 8", "--threads goes from 1 to 8"),
        ("--pipeline 1000", "--pipeline goes from 1 to 128"), ("--rate 0", "--rate goes from"),
        ("--duration 5s --operations 3", "exclude each other"), ("--duration 0s", "measures nothing"),
        ("--verify --value-size 10", "at least 24 bytes"), ("--verify --records 32", "one writer at a time"),
        ("--via proxy --read-from any", "--via direct"),
        ("--key-prefix a%b", "prefix of keys"), ("--warm-up soon", "no duration"), ("--via boat", "boat"),
    ])
    func wrongOptions(given: String, message: String) {
        let words = given.split(separator: " ").map(String.init)
        #expect {
            _ = try BenchRunCommand.parse(words)
        } throws: { error in
            let failure = KV.failure(for: error)
            return failure.status == .usage && (failure.message?.contains(message) ?? false)
                && failure.message?.contains("\n") == false
        }
    }

    @Test func defaults() throws {
        let settings = try BenchRunCommand.parse([]).loadSettings(seed: 1, seeds: [])
        #expect(settings.workload.name == "c" && settings.connections == 32 && settings.rate == nil)
        #expect(settings.duration == 10_000_000_000 && settings.warmUp == 2_000_000_000)
        let counted = try BenchRunCommand.parse(["--operations", "5"]).loadSettings(seed: 1, seeds: [])
        #expect(counted.duration == nil && counted.operations == 5 && counted.warmUp == 0)
    }
}
