/// Microseconds since the schedule began.
typealias Instant = Int64

/// What is going to happen, by time and, at one time, in the order in which it was asked for.
struct EventQueue {
    private struct Entry {
        let time: Instant
        let order: UInt64
        let run: () -> Void

        func isBefore(_ other: Entry) -> Bool { (time, order) < (other.time, other.order) }
    }

    /// A binary heap.
    private var entries: [Entry] = []
    private var lastOrder: UInt64 = 0

    var nextTime: Instant? { entries.first?.time }

    mutating func add(at time: Instant, _ run: @escaping () -> Void) {
        lastOrder += 1
        entries.append(Entry(time: time, order: lastOrder, run: run))
        var child = entries.count - 1
        while child > 0, entries[child].isBefore(entries[(child - 1) / 2]) {
            entries.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func removeFirst() -> (() -> Void)? {
        guard let first = entries.first, let last = entries.popLast() else { return nil }
        guard !entries.isEmpty else { return first.run }
        entries[0] = last
        var parent = 0
        while true {
            let left = 2 * parent + 1
            guard left < entries.count else { return first.run }
            let right = left + 1
            let child = right < entries.count && entries[right].isBefore(entries[left]) ? right : left
            guard entries[child].isBefore(entries[parent]) else { return first.run }
            entries.swapAt(parent, child)
            parent = child
        }
    }
}
