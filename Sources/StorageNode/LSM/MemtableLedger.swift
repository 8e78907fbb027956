/// Which memtables to write out so that all databases of a process stay within one budget, and which writes wait until
/// that has made room. Decides, does nothing.
///
/// Invariants: memtables that are being written out are not chosen again; what cannot be written out is not waited for;
/// writes that wait are let go in their order.
struct MemtableLedger {
    typealias ID = UInt64

    /// What RocksDB says of one database.
    struct Holding: Equatable {
        /// In the memtable that takes writes.
        var active = 0
        /// In all that are in memory.
        var total = 0
        /// Whether some of them are being written out, or wait to be.
        var isFlushing = false
        /// Writing out has failed: RocksDB does no more of it.
        var isStuck = false
    }

    /// A write that waits for room.
    private struct Waiter {
        var ticket: UInt64
        var bytes: Int
    }

    /// What all memtables may hold; the share that those that take writes may have of it before the largest is written out;
    /// and what makes a write wait.
    let bytesMax: Int
    var activeBytesMax: Int { bytesMax / 2 }
    var hardBytesMax: Int { bytesMax + bytesMax / 8 }
    /// A smaller memtable is not worth a table.
    let worthBytesMin: Int

    private(set) var holdings: [ID: Holding] = [:]
    /// Of large writes that were let through and are not in a memtable yet.
    private(set) var reserved = 0
    private var waiters: [Waiter] = []
    private var nextTicket: UInt64 = 0
    /// Rises with every memtable that was written out, and every write that was let through.
    private(set) var progress: UInt64 = 0

    init(bytesMax: Int, worthBytesMin: Int) {
        self.bytesMax = bytesMax
        self.worthBytesMin = worthBytesMin
    }

    /// As measured.
    var total: Int { holdings.values.reduce(0) { $0 + $1.total } }
    /// Of that, what no writing out frees.
    private var stuck: Int { holdings.values.reduce(0) { $0 + ($1.isStuck ? $1.total : 0) } }
    var isAwaited: Bool { !waiters.isEmpty }

    /// Takes note of what the databases hold; those that are not named are closed.
    mutating func measured(_ now: [ID: Holding]) {
        for (id, before) in holdings where before.isFlushing {
            if now[id].map({ !$0.isFlushing || $0.total < before.total }) ?? true { progress += 1 }
        }
        holdings = now
    }

    /// The databases to write the active memtable of out now, the largest first.
    func victims() -> [ID] {
        let candidates = holdings.filter {
            !$0.value.isFlushing && !$0.value.isStuck && $0.value.active >= worthBytesMin
        }
        .sorted { ($0.value.active, $0.key) > ($1.value.active, $1.key) }
        var active = holdings.values.reduce(0) { $0 + ($1.isStuck ? 0 : $1.active) }
        // What is left when everything under way is written out.
        var left = holdings.values.reduce(0) { $0 + ($1.isStuck ? 0 : $1.isFlushing ? $1.active : $1.total) }
        let wanted = reserved + (waiters.first?.bytes ?? 0)
        var victims: [ID] = []
        for (id, holding) in candidates {
            guard active > activeBytesMax || (isAwaited && left + wanted > hardBytesMax) else { break }
            active -= holding.active
            left -= holding.total
            victims.append(id)
        }
        return victims
    }

    // MARK: Writes that wait

    /// Enters a write that is not to begin yet.
    mutating func wait(bytes: Int) -> UInt64 {
        nextTicket += 1
        waiters.append(Waiter(ticket: nextTicket, bytes: bytes))
        return nextTicket
    }

    /// Whether a write may begin, which then holds its room until ``done(bytes:)``. The first in line may, where there is
    /// room for it or nothing makes any.
    /// - Parameter used: what is in memtables, as far as is known by now, with what is held.
    mutating func mayBegin(_ ticket: UInt64, used: Int) -> Bool {
        guard let first = waiters.first, first.ticket == ticket else { return false }
        guard hasRoom(for: first.bytes, used: used) || !mayMakeRoom else { return false }
        waiters.removeFirst()
        reserved += first.bytes
        progress += 1
        return true
    }

    /// Lets a write begin that has waited long enough.
    mutating func giveUp(_ ticket: UInt64) {
        guard let index = waiters.firstIndex(where: { $0.ticket == ticket }) else { return }
        reserved += waiters.remove(at: index).bytes
    }

    /// Takes room for a write where nobody waits before it; false where there is none.
    mutating func begin(bytes: Int, used: Int) -> Bool {
        guard waiters.isEmpty, hasRoom(for: bytes, used: used) else { return false }
        reserved += bytes
        return true
    }

    /// A write that held room is in a memtable, or failed.
    mutating func done(bytes: Int) { reserved -= bytes }

    private func hasRoom(for bytes: Int, used: Int) -> Bool { used - stuck + bytes <= hardBytesMax }

    /// Whether waiting may help: something is being written out, is about to be, or is about to come.
    private var mayMakeRoom: Bool {
        reserved > 0 || holdings.values.contains { !$0.isStuck && ($0.isFlushing || $0.active >= worthBytesMin) }
    }
}
