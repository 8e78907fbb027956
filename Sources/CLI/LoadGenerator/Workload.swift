/// What one operation of a workload does.
public enum OperationKind: Int, CaseIterable, Sendable {
    case read, update, insert, scan, readModifyWrite

    /// As reports have it.
    public var name: String {
        switch self {
        case .read: "read"
        case .update: "update"
        case .insert: "insert"
        case .scan: "scan"
        case .readModifyWrite: "read_modify_write"
        }
    }
}

/// How keys are chosen among those that exist.
public enum KeyDistribution: String, CaseIterable, Sendable {
    /// Each as often as any other.
    case uniform
    /// A few hot keys, spread over the key space: ``ScrambledZipfian``.
    case zipfian
    /// As zipfian, the newest keys being the hot ones.
    case latest
}

/// A mix of operations, and how their keys are chosen.
///
/// The letters are the core workloads of YCSB: Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010.
public struct Workload: Sendable, Equatable {
    public let name: String
    /// In hundredths; they add up to 100.
    public let percent: [OperationKind: Int]
    public let keys: KeyDistribution
    public let summary: String

    public init(_ name: String, _ percent: [OperationKind: Int], keys: KeyDistribution, summary: String) {
        precondition(percent.values.reduce(0, +) == 100)
        self.name = name
        self.percent = percent
        self.keys = keys
        self.summary = summary
    }

    public static let all = [
        Workload("a", [.read: 50, .update: 50], keys: .zipfian, summary: "50 % reads, 50 % updates"),
        Workload("b", [.read: 95, .update: 5], keys: .zipfian, summary: "95 % reads, 5 % updates"),
        Workload("c", [.read: 100], keys: .zipfian, summary: "reads"),
        Workload("d", [.read: 95, .insert: 5], keys: .latest, summary: "95 % reads of the latest, 5 % inserts"),
        Workload("e", [.scan: 95, .insert: 5], keys: .zipfian, summary: "95 % scans of 1 to 100 records, 5 % inserts"),
        Workload(
            "f", [.read: 50, .readModifyWrite: 50], keys: .zipfian, summary: "50 % reads, 50 % read-modify-writes"),
        Workload("get", [.read: 100], keys: .uniform, summary: "reads"),
        Workload("put", [.update: 100], keys: .uniform, summary: "updates"),
        Workload("mixed", [.read: 50, .update: 50], keys: .uniform, summary: "50 % reads, 50 % updates"),
    ]

    public static func named(_ name: String) -> Workload? { all.first { $0.name == name } }
}

/// Draws the kinds of a workload in their shares.
struct OperationMix {
    /// Upper ends of the kinds' shares of 2⁶⁴ − 1, ascending.
    private let shares: [(end: UInt64, kind: OperationKind)]

    init(_ workload: Workload) {
        var sum = 0
        shares = OperationKind.allCases.compactMap { kind in
            guard let percent = workload.percent[kind], percent > 0 else { return nil }
            sum += percent
            return (UInt64.max / 100 * UInt64(sum), kind)
        }
    }

    func draw(_ random: inout SplitMix64) -> OperationKind {
        guard shares.count > 1 else { return shares[0].kind }
        let number = random.next()
        for share in shares where number < share.end { return share.kind }
        return shares[shares.count - 1].kind
    }
}
