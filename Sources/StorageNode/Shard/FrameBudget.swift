import Synchronization

/// Which ring gives frames up where all of a process hold more than they may. Decides, does nothing.
enum FrameShares {
    /// What is given up at once, as a part of the budget, so that not every batch makes somebody look.
    private static let slackParts = 64

    /// The ring that exceeds its fair share most, and how many bytes it gives up; nil where there is room.
    ///
    /// It keeps its fair share where that suffices.
    static func giver<ID>(_ holdings: [(id: ID, bytes: Int)], bytesMax: Int) -> (id: ID, bytes: Int)? {
        let excess = holdings.reduce(0) { $0 + $1.bytes } - bytesMax
        guard excess > 0, let largest = holdings.max(by: { $0.bytes < $1.bytes }) else { return nil }
        let beyondShare = largest.bytes - bytesMax / holdings.count
        return (largest.id, min(largest.bytes, beyondShare, excess + bytesMax / slackParts))
    }
}

/// Keeps the frames that all shards of a process have in memory within one budget.
///
/// A shard counts its batches with one addition. Whoever exceeds the budget has the shard that holds most give its oldest
/// frames up, and holds no lock of its own meanwhile.
final class FrameBudget: Sendable {
    private struct Member {
        weak var log: CommitLog?
    }

    let bytesMax: Int
    private let used = Atomic<Int>(0)
    private let members = Mutex<[ObjectIdentifier: Member]>([:])

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    var usedBytes: Int { used.load(ordering: .relaxed) }

    func add(_ log: CommitLog) { members.withLock { $0[ObjectIdentifier(log)] = Member(log: log) } }

    /// A log that ends, with what it holds.
    func remove(_ log: ObjectIdentifier, bytes: Int) {
        members.withLock { $0[log] = nil }
        used.subtract(bytes, ordering: .relaxed)
    }

    /// To be called with no lock held.
    func changed(by bytes: Int) {
        if used.add(bytes, ordering: .relaxed).newValue > bytesMax { relieve() }
    }

    private func relieve() {
        let logs = members.withLock { $0.values.compactMap(\.log) }
        // Another thread may relieve at the same time. Each round makes the largest smaller.
        for _ in logs {
            let holdings = logs.map { (id: $0, bytes: $0.frameBytes.load(ordering: .relaxed)) }
            guard let (log, bytes) = FrameShares.giver(holdings, bytesMax: bytesMax) else { return }
            used.subtract(log.giveUpFrames(bytes), ordering: .relaxed)
        }
    }
}
