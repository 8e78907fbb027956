import NIOCore

/// The answers a connection owes, in the order in which its requests arrived.
///
/// Invariants: the first slot has sequence `firstSequence`, each next one the following; a slot leaves only from
/// the front, so an answer that is ahead of its turn waits in its slot.
struct AnswerQueue {
    struct Slot {
        let isHead: Bool
        /// Nothing was done for the request that a refusal now would hide.
        let isRead: Bool
        let keepAlive: Bool
        /// HTTP/1.0 peers close unless they are told.
        let saysKeepAlive: Bool
        /// Of the loop's budget for request bodies, given back with the answer.
        let reservedBytes: Int
        /// Of the loop's budget for answers; of one that waits for its turn.
        var reservedAnswerBytes = 0
        var answer: Answer?
    }

    /// `head` lacks the `connection` field and the blank line: what they say is known only when its turn comes.
    struct Answer {
        let head: ByteBuffer
        let body: ByteBuffer
    }

    private var slots = CircularBuffer<Slot>(initialCapacity: 4)
    private var firstSequence: UInt64 = 0

    var isEmpty: Bool { slots.isEmpty }
    var count: Int { slots.count }
    var first: Slot? { slots.first }

    /// - Returns: the sequence of the new slot.
    mutating func append(_ slot: Slot) -> UInt64 {
        slots.append(slot)
        return firstSequence + UInt64(slots.count - 1)
    }

    mutating func removeFirst() -> Slot {
        firstSequence += 1
        return slots.removeFirst()
    }

    /// How many answers must go before the one of `sequence`; nil where that is given already.
    func turn(of sequence: UInt64) -> Int? {
        guard sequence >= firstSequence else { return nil }
        let offset = Int(sequence - firstSequence)
        guard offset < slots.count, self[offset].answer == nil else { return nil }
        return offset
    }

    subscript(offset: Int) -> Slot {
        get { slots[slots.index(slots.startIndex, offsetBy: offset)] }
        set { slots[slots.index(slots.startIndex, offsetBy: offset)] = newValue }
    }

    /// Bytes of request bodies reserved by what is still unanswered.
    var reservedBytes: Int { slots.reduce(0) { $0 + $1.reservedBytes } }

    /// Bytes of answers reserved by those that wait for their turn.
    var reservedAnswerBytes: Int { slots.reduce(0) { $0 + $1.reservedAnswerBytes } }
}
