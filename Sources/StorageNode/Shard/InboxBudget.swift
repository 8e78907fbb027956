import Synchronization

/// What waits for the writers of all shards of a process.
///
/// One half is shared out evenly: what a shard has within its share is never refused, however much the others have. The
/// other half is lent to whoever needs more.
final class InboxBudget: Sendable {
    /// What a write takes beside its key and value.
    static let operationBytes = 256

    let bytesMax: Int
    private let members = Atomic<Int>(0)
    private let used = Atomic<Int>(0)
    private let lent = Atomic<Int>(0)

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    var usedBytes: Int { used.load(ordering: .relaxed) }

    /// Of each shard.
    var shareBytes: Int { bytesMax / 2 / max(1, members.load(ordering: .relaxed)) }

    func join() { members.add(1, ordering: .relaxed) }

    func leave(_ account: InboxAccount) {
        members.subtract(1, ordering: .relaxed)
        used.subtract(account.held, ordering: .relaxed)
        lent.subtract(account.borrowed, ordering: .relaxed)
    }

    func changed(by bytes: Int) { used.add(bytes, ordering: .relaxed) }

    /// False, and nothing done, where so much is not left to lend.
    func lend(_ bytes: Int) -> Bool {
        guard lent.add(bytes, ordering: .relaxed).newValue > bytesMax - bytesMax / 2 else { return true }
        lent.subtract(bytes, ordering: .relaxed)
        return false
    }

    func takeBack(_ bytes: Int) { lent.subtract(bytes, ordering: .relaxed) }
}

/// What one shard has of an ``InboxBudget``. Pure.
///
/// Invariant: what is held beyond the share is borrowed, unless the share has become smaller since.
struct InboxAccount {
    private(set) var held = 0
    private(set) var borrowed = 0

    /// Takes so much more; false, and nothing done, where it is beyond the share and is not lent.
    mutating func add(_ bytes: Int, share: Int, lend: (Int) -> Bool) -> Bool {
        let missing = held + bytes - share - borrowed
        if missing > 0 {
            guard lend(missing) else { return false }
            borrowed += missing
        }
        held += bytes
        return true
    }

    /// Gives so much back.
    /// - Returns: what of it was borrowed.
    mutating func release(_ bytes: Int, share: Int) -> Int {
        held -= bytes
        let returned = borrowed - min(borrowed, max(0, held - share))
        borrowed -= returned
        return returned
    }
}
