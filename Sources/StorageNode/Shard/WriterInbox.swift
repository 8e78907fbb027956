import Core
import Synchronization

/// What waits for the writer, bounded by bytes and operations. Filled from any thread, emptied by the writer.
final class WriterInbox: Sendable {
    enum Item: Sendable {
        case write(Submission)
        case apply(ApplyRequest)
    }

    /// What an item counts against the bounds.
    struct Load {
        var bytes = 0
        var operations = 0

        /// What it counts against the budget of all shards.
        var cost: Int { bytes + operations * InboxBudget.operationBytes }
    }

    private struct State {
        var account = InboxAccount()
        var items: [Item] = []
        /// Waiting and being written: freed when the writer comes back for more.
        var load = Load()
        var taken = Load()
        var refusal: KVError?
        /// The refusal is for good.
        var isClosed = false
    }

    private let state = Mutex(State())
    private let shard: String
    private let bytesMax: Int
    private let operationsMax: Int
    private let budget: InboxBudget

    /// - Parameter budget: of what waits in all shards.
    init(
        shard: String, bytesMax: Int, operationsMax: Int,
        budget: InboxBudget = InboxBudget(bytesMax: ShardBudgets.writesBytesMax)
    ) {
        self.shard = shard
        self.bytesMax = bytesMax
        self.operationsMax = operationsMax
        self.budget = budget
        budget.join()
    }

    deinit { budget.leave(state.withLock { $0.account }) }

    /// Adds an item; true where the inbox was empty, so that the writer has to be woken.
    ///
    /// - Parameter evenIfStopped: also after a failed write, but not once closed.
    ///
    /// Throws `KVError(.overloaded)` where it is full (a single item is taken whatever its size) or where the process has no
    /// room beyond the shard's share, or the refusal.
    func add(_ item: Item, _ load: Load, evenIfStopped: Bool = false) throws(KVError) -> Bool {
        let result: Result<Bool, KVError> = state.withLock { state in
            if let refusal = state.refusal, state.isClosed || !evenIfStopped { return .failure(refusal) }
            guard
                state.load.operations == 0
                    || (state.load.bytes + load.bytes <= bytesMax
                        && state.load.operations + load.operations <= operationsMax)
            else {
                return .failure(
                    KVError(
                        .overloaded, "\(shard) has \(state.load.operations) writes waiting; try again in a moment"))
            }
            guard state.account.add(load.cost, share: budget.shareBytes, lend: budget.lend) else {
                return .failure(
                    KVError(
                        .overloaded,
                        "too many writes wait on this node for \(shard) to take more; try again in a moment"))
            }
            budget.changed(by: load.cost)
            state.load.bytes += load.bytes
            state.load.operations += load.operations
            state.items.append(item)
            return .success(state.items.count == 1)
        }
        return try result.get()
    }

    /// Everything that waits, in order; what was taken before counts as done.
    func take() -> [Item] {
        state.withLock { state in
            settle(&state)
            state.taken = state.load
            var items: [Item] = []
            swap(&items, &state.items)
            return items
        }
    }

    /// What was taken is done; what waits goes on waiting.
    func settle() { state.withLock { settle(&$0) } }

    private func settle(_ state: inout State) {
        let cost = state.taken.cost
        guard cost > 0 else { return }
        state.load.bytes -= state.taken.bytes
        state.load.operations -= state.taken.operations
        state.taken = Load()
        let returned = state.account.release(cost, share: budget.shareBytes)
        if returned > 0 { budget.takeBack(returned) }
        budget.changed(by: -cost)
    }

    /// Refuses everything from now on; what is inside is still the writer's to answer. The first reason stays.
    func refuse(_ reason: KVError) {
        state.withLock { state in
            if state.refusal == nil { state.refusal = reason }
        }
    }

    /// Refuses everything for good; what is inside is still the writer's to answer.
    func close(_ reason: KVError) {
        state.withLock { state in
            if state.refusal == nil { state.refusal = reason }
            state.isClosed = true
        }
    }

    var refusal: KVError? { state.withLock { $0.refusal } }
}
