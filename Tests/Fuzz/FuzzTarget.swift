/// Something that reads bytes it cannot trust, and what has to hold of it whatever they are.
protocol FuzzTarget: Sendable {
    /// Inputs that are as they should be, to begin with.
    var seeds: [[UInt8]] { get }
    /// What means something to the reader: names, separators, limits.
    var words: [String] { get }

    /// Reads `input` and checks what came of it. A trap, an endless loop and memory that is kept are found besides.
    /// - Throws: ``FuzzDefect`` where a property does not hold.
    func run(_ input: [UInt8]) throws
}

/// A property that does not hold.
struct FuzzDefect: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func expect(_ condition: Bool, _ what: @autoclosure () -> String) throws(FuzzDefect) {
    guard condition else { throw FuzzDefect(what()) }
}

/// A refusal has to say what is wrong, in one line that can be shown.
func expectClear(_ message: String) throws(FuzzDefect) {
    try expect(message.utf8.count >= 10, "a refusal that says nothing: \"\(message)\"")
    try expect(message.utf8.count <= 4_000, "a refusal of \(message.utf8.count) bytes: \(message.prefix(200))…")
    try expect(
        !message.utf8.contains { $0 == 10 || $0 == 13 || $0 == 0 },
        "a refusal of several lines: \(message.debugDescription)")
}

enum FuzzTargets {
    static let all: [(name: String, target: any FuzzTarget)] = [
        ("http", HTTPTarget()), ("keys", KeyTargets()), ("queries", QueryTarget()), ("percent", PercentTarget()),
        ("records", RecordTarget()), ("batches", BatchTarget()), ("toml", TOMLTarget()), ("frames", FrameTarget()),
        ("write-batches", WriteBatchTarget()), ("values", ValueTarget()), ("documents", DocumentTarget()),
        ("topologies", TopologyTarget()), ("conditions", ConditionTarget()), ("logs", LogFileTarget()),
        ("marks", MarkTarget()),
    ]

    static func named(_ name: String) -> (any FuzzTarget)? {
        (all + PlantedTargets.all).first { $0.name == name }?.target
    }
}
