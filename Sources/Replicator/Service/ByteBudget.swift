import Synchronization

/// A number of bytes that many share; who finds too little left waits in line.
///
/// Nobody who holds bytes may need more of them to give them back: the line is first come, first served.
final class ByteBudget: Sendable {
    private struct State {
        var free: Int
        var nextID: UInt64 = 0
        var waiters: [Waiter] = []
    }

    private struct Waiter {
        let id: UInt64
        let bytes: Int
        let continuation: CheckedContinuation<Void, any Error>
    }

    let capacity: Int
    private let state: Mutex<State>

    init(capacity: Int) {
        self.capacity = capacity
        self.state = Mutex(State(free: capacity))
    }

    var free: Int { state.withLock { $0.free } }
    var waiting: Int { state.withLock { $0.waiters.count } }

    /// Waits for `bytes` and takes them, or for the whole budget where `bytes` is more.
    /// Throws `CancellationError`, nothing else.
    func take(_ bytes: Int) async throws -> ByteLease {
        let bytes = min(bytes, capacity)
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let isThere = state.withLock { state in
                    if state.waiters.isEmpty, state.free >= bytes {
                        state.free -= bytes
                        return true
                    }
                    state.waiters.append(Waiter(id: id, bytes: bytes, continuation: continuation))
                    return false
                }
                if isThere {
                    continuation.resume()
                } else if Task.isCancelled {
                    cancel(id)
                }
            }
        } onCancel: {
            cancel(id)
        }
        return ByteLease(bytes: bytes, budget: self)
    }

    fileprivate func give(_ bytes: Int) {
        let served = state.withLock { state in
            state.free += bytes
            return ByteBudget.serve(&state)
        }
        for waiter in served { waiter.continuation.resume() }
    }

    private func cancel(_ id: UInt64) {
        let (cancelled, served) = state.withLock { state -> (Waiter?, [Waiter]) in
            guard let index = state.waiters.firstIndex(where: { $0.id == id }) else { return (nil, []) }
            // Who stood behind one that wanted much may be served now.
            return (state.waiters.remove(at: index), ByteBudget.serve(&state))
        }
        cancelled?.continuation.resume(throwing: CancellationError())
        for waiter in served { waiter.continuation.resume() }
    }

    private static func serve(_ state: inout State) -> [Waiter] {
        var served: [Waiter] = []
        while let first = state.waiters.first, first.bytes <= state.free {
            state.free -= first.bytes
            served.append(state.waiters.removeFirst())
        }
        return served
    }
}

/// Bytes taken from a budget; gives them back when the last reference goes.
final class ByteLease: Sendable {
    private let bytes: Int
    private let budget: ByteBudget

    init(bytes: Int, budget: ByteBudget) {
        self.bytes = bytes
        self.budget = budget
    }

    deinit { budget.give(bytes) }
}
