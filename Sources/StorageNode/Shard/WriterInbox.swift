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
    }

    private struct State {
        var items: [Item] = []
        /// Waiting and being written: freed when the writer comes back for more.
        var load = Load()
        var taken = Load()
        var refusal: KVError?
        /// The refusal is for good.
        var isClosed = false

        mutating func settle() {
            load.bytes -= taken.bytes
            load.operations -= taken.operations
            taken = Load()
        }
    }

    private let state = Mutex(State())
    private let shard: String
    private let bytesMax: Int
    private let operationsMax: Int

    init(shard: String, bytesMax: Int, operationsMax: Int) {
        self.shard = shard
        self.bytesMax = bytesMax
        self.operationsMax = operationsMax
    }

    /// Adds an item; true where the inbox was empty, so that the writer has to be woken.
    ///
    /// - Parameter evenIfStopped: also after a failed write, but not once closed.
    ///
    /// Throws `KVError(.overloaded)` where it is full (a single item is taken whatever its size), or the refusal.
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
            state.settle()
            state.taken = state.load
            var items: [Item] = []
            swap(&items, &state.items)
            return items
        }
    }

    /// What was taken is done; what waits goes on waiting.
    func settle() { state.withLock { $0.settle() } }

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
