import Synchronization

/// Puts the threads' seconds together.
final class Timeline: Sendable {
    /// One thread's part of a second.
    struct Piece {
        /// Seconds from the end of the warm-up to its end.
        var end: Double
        var span: Double
        var operations: [OperationKind: OperationResult]
    }

    private struct State {
        var intervals: [IntervalResult] = []
        /// Pieces that not all threads have ended yet, by their number: few, as the threads go by the same clock.
        var open: [Int: (threads: Int, sum: Piece)] = [:]
    }

    private let threads: Int
    private let state = Mutex(State())

    init(threads: Int) { self.threads = threads }

    /// The seconds that all threads have ended.
    var intervals: [IntervalResult] { state.withLock { $0.intervals } }

    /// A thread's piece of number `index`.
    func add(_ piece: Piece, index: Int) {
        state.withLock { state in
            guard var open = state.open.removeValue(forKey: index) else {
                if threads == 1 {
                    state.intervals.append(IntervalResult(piece))
                } else {
                    state.open[index] = (1, piece)
                }
                return
            }
            open.threads += 1
            open.sum.end = max(open.sum.end, piece.end)
            open.sum.span = max(open.sum.span, piece.span)
            open.sum.operations.merge(piece.operations) { sum, new in
                var sum = sum
                sum.add(new)
                return sum
            }
            if open.threads == threads {
                state.intervals.append(IntervalResult(open.sum))
            } else {
                state.open[index] = open
            }
        }
    }

    /// All there is, when the threads have ended: also what some of them did not live to see.
    func finish() -> [IntervalResult] {
        state.withLock { state in
            state.intervals += state.open.values.map { IntervalResult($0.sum) }
            state.open = [:]
            state.intervals.sort { $0.end < $1.end }
            return state.intervals
        }
    }
}

extension IntervalResult {
    fileprivate init(_ piece: Timeline.Piece) {
        self.init(end: piece.end, span: piece.span, operations: piece.operations.mapValues { Summary($0) })
    }
}
