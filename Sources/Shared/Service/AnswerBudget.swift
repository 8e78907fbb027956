import Synchronization
public import Wire

/// Bytes of values that the answers of all batches of a process hold at a time.
public final class AnswerBudget: Sendable {
    private let bytesMax: Int
    private let taken = Atomic<Int>(0)

    public init(bytesMax: Int) { self.bytesMax = bytesMax }

    fileprivate func take(_ bytes: Int) -> Bool {
        guard taken.add(bytes, ordering: .relaxed).newValue <= bytesMax else {
            taken.subtract(bytes, ordering: .relaxed)
            return false
        }
        return true
    }

    fileprivate func give(_ bytes: Int) { taken.subtract(bytes, ordering: .relaxed) }

    /// Taken now.
    public var bytes: Int { taken.load(ordering: .relaxed) }
}

/// What one batch's answer takes of the budget: given back when the account is let go.
public final class AnswerAccount: Sendable {
    private let budget: AnswerBudget
    private let bytesMax: Int
    private let taken = Atomic<Int>(0)

    /// - Parameter bytesMax: of this batch.
    public init(_ budget: AnswerBudget, bytesMax: Int) {
        self.budget = budget
        self.bytesMax = bytesMax
    }

    deinit { budget.give(taken.load(ordering: .relaxed)) }

    /// Makes room for a value.
    /// - Returns: why there is none; nil where there is.
    public func take(_ bytes: Int) -> Problem? {
        guard taken.load(ordering: .relaxed) + bytes <= bytesMax else {
            return Problem(
                .answerTooLarge,
                "The values of this batch are larger than \(bytesMax) bytes together: read this one in another.")
        }
        guard budget.take(bytes) else {
            return Problem(.overloaded, "The answers of batches hold too much memory: read this one later.")
        }
        taken.add(bytes, ordering: .relaxed)
        return nil
    }
}
