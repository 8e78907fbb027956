/// One piece of the path of a request, to be run again and again.
struct Benchmark: Sendable {
    /// What reports and thresholds call it.
    let name: String
    /// How often it is run for a count of instructions: often enough that what only the first runs do is lost in it.
    let iterations: Int
    /// Prepares what it needs and returns what is measured. That gets the number of the iteration, to vary by.
    let prepare: @Sendable () throws -> (Int) throws -> Void

    init(_ name: String, iterations: Int = 2_000, prepare: @escaping @Sendable () throws -> (Int) throws -> Void) {
        self.name = name
        self.iterations = iterations
        self.prepare = prepare
    }

    static let all = keyBenchmarks + serverBenchmarks + storageBenchmarks + replicationBenchmarks + batchBenchmarks
}

/// Keeps the compiler from seeing that a result is not needed.
@inline(never)
func keep<Value>(_ value: borrowing Value) {}
