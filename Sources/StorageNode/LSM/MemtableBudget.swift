import CRocksDB
import Dispatch
import Synchronization

/// Keeps the memtables of all databases of a process within one budget: ``MemtableLedger`` decides, this measures, has
/// memtables written out and makes writes wait.
///
/// A write costs one addition as long as there is room. RocksDB is asked what its memtables hold once in so many bytes,
/// on a queue of the budget's own, where writing out is begun as well: no writer is held up by another's disk, and who
/// waits for room holds no lock.
public final class MemtableBudget: Sendable {
    /// A write waits for room no longer than this, and no longer than ``stalledMillisecondsMax`` while none is made: then it
    /// goes on, and what happens is RocksDB's to say.
    static let waitMillisecondsMax = 30_000
    static let stalledMillisecondsMax = 3_000
    /// From one look at the memtables to the next, while somebody waits.
    private static let lookMilliseconds = 1
    /// Looks while as much is written as the budget holds. What is larger than what is written between two of them holds
    /// its room while it is written.
    private static let looksPerBudget = 16

    private struct State {
        var ledger: MemtableLedger
        var members: [MemtableLedger.ID: MemtableMember] = [:]
        var nextID: MemtableLedger.ID = 0
    }

    private let state: Mutex<State>
    /// What was measured and what was let through since.
    private let used = Atomic<Int>(0)
    private let isLookDue = Atomic<Bool>(false)
    private let queue = DispatchQueue(label: "memtables")
    private let largeBytesMin: Int
    public let bytesMax: Int

    init(bytesMax: Int, worthBytesMin: Int) {
        self.bytesMax = bytesMax
        largeBytesMin = max(1, bytesMax / MemtableBudget.looksPerBudget)
        state = Mutex(State(ledger: MemtableLedger(bytesMax: bytesMax, worthBytesMin: worthBytesMin)))
    }

    /// An estimate of what all memtables hold.
    public var usedBytes: Int { max(0, used.load(ordering: .relaxed)) }

    /// Above ``bytesMax``: what makes writes wait.
    public var hardBytesMax: Int { state.withLock { $0.ledger.hardBytesMax } }

    /// Counts a database in, until the member is closed.
    func add(_ handle: ForeignHandle) -> MemtableMember {
        let member = MemtableMember(handle)
        state.withLock { state in
            state.nextID += 1
            state.members[state.nextID] = member
        }
        return member
    }

    // MARK: Writing

    /// Makes room for a write of so many bytes; blocks while there is none. Followed by ``wrote(_:)`` with what it returns.
    /// - Parameter isClosing: ends the wait.
    /// - Returns: the room that is held for the write; 0 for a small one.
    func admit(_ bytes: Int, isClosing: () -> Bool) -> Int {
        guard bytes < largeBytesMin else { return admitLarge(bytes, isClosing) }
        let now = used.add(bytes, ordering: .relaxed).newValue
        let isLookDue = now / largeBytesMin != (now - bytes) / largeBytesMin
        if isLookDue { look() }
        // It is counted already, and holds nothing.
        if now > bytesMax, !begin(0) { wait(0, isClosing) }
        return 0
    }

    /// The write is in a memtable, or failed.
    /// - Parameter held: what ``admit(_:isClosing:)`` returned.
    func wrote(_ held: Int) {
        guard held > 0 else { return }
        state.withLock { $0.ledger.done(bytes: held) }
        look()
    }

    private func admitLarge(_ bytes: Int, _ isClosing: () -> Bool) -> Int {
        if !begin(bytes) { wait(bytes, isClosing) }
        return bytes
    }

    private func begin(_ bytes: Int) -> Bool {
        state.withLock { state in
            let begins = state.ledger.begin(bytes: bytes, used: used.load(ordering: .relaxed))
            if begins { used.add(bytes, ordering: .relaxed) }
            return begins
        }
    }

    private func wait(_ bytes: Int, _ isClosing: () -> Bool) {
        let ticket = state.withLock { $0.ledger.wait(bytes: bytes) }
        var waited = 0
        var stalled = 0
        var progress: UInt64 = 0
        while true {
            let isPatient =
                waited < MemtableBudget.waitMillisecondsMax && stalled < MemtableBudget.stalledMillisecondsMax
                && !isClosing()
            let (begins, now) = state.withLock { state in
                var begins = state.ledger.mayBegin(ticket, used: used.load(ordering: .relaxed))
                if !begins, !isPatient {
                    state.ledger.giveUp(ticket)
                    begins = true
                }
                if begins { used.add(bytes, ordering: .relaxed) }
                return (begins, state.ledger.progress)
            }
            if begins { return }
            look()
            Blocking.sleep(milliseconds: MemtableBudget.lookMilliseconds)
            waited += MemtableBudget.lookMilliseconds
            stalled = now == progress ? stalled + MemtableBudget.lookMilliseconds : 0
            progress = now
        }
    }

    // MARK: Looking

    /// Has the memtables measured soon, and some of them written out where they hold too much. Returns at once.
    public func look() {
        guard !isLookDue.exchange(true, ordering: .acquiringAndReleasing) else { return }
        queue.async { [self] in
            isLookDue.store(false, ordering: .releasing)
            lookNow()
        }
    }

    /// On the queue only: two at once would correct the estimate twice.
    private func lookNow() {
        // What is held may be in a memtable by the time that is measured, and is counted twice then, until the next look.
        let (members, before, reserved) = state.withLock { state in
            (state.members, used.load(ordering: .relaxed), state.ledger.reserved)
        }
        let holdings = members.compactMapValues(\.holding)
        let (total, victims) = state.withLock { state in
            for id in members.keys where holdings[id] == nil { state.members[id] = nil }
            state.ledger.measured(holdings)
            return (state.ledger.total, state.ledger.victims())
        }
        used.add(total + reserved - before, ordering: .relaxed)
        for id in victims { members[id]?.beginFlush() }
    }
}

/// One database, as its budget sees it.
///
/// Invariant: the handle is used under the lock only, and is there until ``close()`` returns.
final class MemtableMember: Sendable {
    private let handle: Mutex<ForeignHandle?>

    init(_ handle: ForeignHandle) { self.handle = Mutex(handle) }

    /// Before the database is closed.
    func close() { handle.withLock { $0 = nil } }

    /// Nil once closed.
    var holding: MemtableLedger.Holding? {
        handle.withLock { handle in
            guard let handle else { return nil }
            func property(_ name: String) -> Int {
                var value: UInt64 = 0
                return rocksdb_property_int(handle.pointer, name, &value) == 0 ? Int(clamping: value) : 0
            }
            return MemtableLedger.Holding(
                active: property("rocksdb.cur-size-active-mem-table"),
                total: property("rocksdb.size-all-mem-tables"),
                isFlushing: property("rocksdb.num-immutable-mem-table") > 0,
                isStuck: property("rocksdb.background-errors") > 0)
        }
    }

    /// Has the active memtable written out as a table, in the background. A failure shows in ``holding``, and in the next
    /// write to the database.
    func beginFlush() {
        handle.withLock { handle in
            guard let handle else { return }
            let options = rocksdb_flushoptions_create()
            defer { rocksdb_flushoptions_destroy(options) }
            rocksdb_flushoptions_set_wait(options, 0)
            var failure: UnsafeMutablePointer<CChar>?
            rocksdb_flush(handle.pointer, options, &failure)
            _ = RocksDBStatus(taking: failure)
        }
    }
}
