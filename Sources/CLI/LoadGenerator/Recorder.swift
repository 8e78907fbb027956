/// What one thread measures: whole, and by the second.
struct Recorder {
    /// Nanoseconds of a piece of the timeline.
    static let intervalLength: UInt64 = 1_000_000_000

    private let shared: Shared
    /// When the warm-up ends.
    let start: UInt64
    private var total: [OperationResult]
    private var interval: [OperationResult]
    private var intervalIndex = 0
    private(set) var intervalEnd: UInt64
    var requests = 0
    var redirects = 0
    var verification = Verification()

    init(start: UInt64, shared: Shared) {
        self.start = start
        self.shared = shared
        total = OperationKind.allCases.map { _ in OperationResult() }
        interval = total
        intervalEnd = start + Self.intervalLength
    }

    mutating func answered(_ kind: OperationKind, nanoseconds: UInt64) { interval[kind.rawValue].record(nanoseconds) }

    mutating func failed(_ kind: OperationKind, _ failure: Failure) { interval[kind.rawValue].record(failure) }

    /// Ends the pieces of the timeline that lie before `now`.
    mutating func advance(to now: UInt64) {
        while now >= intervalEnd {
            endInterval(span: 1)
            intervalEnd += Self.intervalLength
        }
    }

    /// Ends the last piece, at `now`, and says what there was.
    mutating func finish(at now: UInt64) -> [OperationKind: OperationResult] {
        advance(to: now)
        let begun = intervalEnd - Self.intervalLength
        let span = now > begun ? Double(now - begun) / 1e9 : 0
        // A piece of some milliseconds says nothing: what there is goes into the whole only, unless it is all there is.
        if span >= 0.1 || intervalIndex == 0 { endInterval(span: span) } else { addUp() }
        var found: [OperationKind: OperationResult] = [:]
        for kind in OperationKind.allCases where !total[kind.rawValue].isEmpty { found[kind] = total[kind.rawValue] }
        return found
    }

    private mutating func endInterval(span: Double) {
        let end = Double(intervalIndex) * Double(Self.intervalLength) / 1e9 + span
        var piece = Timeline.Piece(end: end, span: span, operations: [:])
        for kind in OperationKind.allCases where !interval[kind.rawValue].isEmpty {
            piece.operations[kind] = interval[kind.rawValue]
        }
        shared.timeline.add(piece, index: intervalIndex)
        piece.operations = [:]
        addUp()
        intervalIndex += 1
    }

    private mutating func addUp() {
        for kind in OperationKind.allCases where !interval[kind.rawValue].isEmpty {
            total[kind.rawValue].add(interval[kind.rawValue])
            interval[kind.rawValue].reset()
        }
    }
}
