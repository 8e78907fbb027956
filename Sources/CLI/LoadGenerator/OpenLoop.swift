/// When the operations of an open loop are due: at a fixed rate, whatever became of those before.
struct Schedule {
    /// Nanoseconds of the monotonic clock.
    private let start: UInt64
    /// Nanoseconds from one operation to the next.
    private let interval: Double
    /// Operations that have been taken.
    private var taken: UInt64 = 0

    /// - Parameters:
    ///   - rate: operations per second, above 0.
    ///   - offset: how far into the first interval the first operation is due, 0 to 1: threads take turns.
    init(rate: Double, start: UInt64, offset: Double = 0) {
        precondition(rate > 0)
        interval = 1e9 / rate
        self.start = start + UInt64(interval * offset)
    }

    /// When the next operation is due.
    var next: UInt64 { start + UInt64(Double(taken) * interval) }

    mutating func take() { taken += 1 }
}

/// Decides when the operations of an open loop begin, and by which client.
///
/// Latencies count from when an operation was due: where it had to wait because all clients were busy, it has waited, so a
/// stall of the server shows in all operations that were due in it (no coordinated omission: Tene, "How NOT to Measure
/// Latency", 2013). What is due and has not begun is held nowhere, since it follows from the moment and from how many have
/// begun; one that has waited for ``patience`` never begins, and is told of as unsent. Pure: the moment is given.
struct OpenLoop {
    enum Step: Equatable {
        case begin(client: Int, due: UInt64)
        /// It has waited for too long.
        case unsent(due: UInt64)
        /// Nothing to begin before this moment, unless a client gets room; nil where only that helps.
        case wait(until: UInt64?)
    }

    private var schedule: Schedule
    /// Nanoseconds: the backlog's limit.
    private let patience: UInt64
    private var idle: IdleClients

    /// - Parameter slots: operations that all clients can have under way together.
    init(_ schedule: Schedule, slots: Int, patience: UInt64) {
        self.schedule = schedule
        self.patience = patience
        idle = IdleClients(capacity: slots)
    }

    /// The client has room for one more operation.
    mutating func free(_ client: Int) { idle.append(client) }

    mutating func next(at now: UInt64) -> Step {
        let due = schedule.next
        guard due <= now else { return .wait(until: idle.isEmpty ? nil : due) }
        if now - due > patience {
            schedule.take()
            return .unsent(due: due)
        }
        guard let client = idle.removeFirst() else { return .wait(until: nil) }
        schedule.take()
        return .begin(client: client, due: due)
    }

    /// When ``next(at:)`` has something again; nil where a client has to get room first.
    var nextDue: UInt64? { idle.isEmpty ? nil : schedule.next }

    /// The next of those that were due before the end of the run and had not begun: they never do.
    mutating func unsent(before end: UInt64) -> UInt64? {
        let due = schedule.next
        guard due < end else { return nil }
        schedule.take()
        return due
    }
}

/// A queue of clients that have room for an operation, in the order in which they got it.
struct IdleClients {
    private var slots: [Int32]
    private var head = 0
    private var count = 0

    init(capacity: Int) { slots = Array(repeating: 0, count: max(1, capacity)) }

    var isEmpty: Bool { count == 0 }

    mutating func append(_ client: Int) {
        precondition(count < slots.count)
        slots[(head + count) % slots.count] = Int32(client)
        count += 1
    }

    mutating func removeFirst() -> Int? {
        guard count > 0 else { return nil }
        defer {
            head = (head + 1) % slots.count
            count -= 1
        }
        return Int(slots[head])
    }
}
