import Synchronization

/// Lets one through at a time; the others wait in line.
package final class Turnstile: Sendable {
    private struct State {
        var isTaken = false
        var nextID: UInt64 = 0
        var waiters: [(id: UInt64, continuation: CheckedContinuation<Void, any Error>)] = []
    }

    private let state = Mutex(State())

    package init() {}

    package var isTaken: Bool { state.withLock { $0.isTaken } }
    package var waiting: Int { state.withLock { $0.waiters.count } }

    /// Waits for its turn, which lasts as long as the last reference to what is returned.
    /// Throws `CancellationError`, nothing else.
    package func pass() async throws -> Turn {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let isFree = state.withLock { state in
                    guard state.isTaken else {
                        state.isTaken = true
                        return true
                    }
                    state.waiters.append((id, continuation))
                    return false
                }
                if isFree {
                    continuation.resume()
                } else if Task.isCancelled {
                    // The handler may have run before there was anything in line.
                    leave(id)
                }
            }
        } onCancel: {
            leave(id)
        }
        return Turn(of: self)
    }

    fileprivate func endTurn() {
        let next = state.withLock { state in
            guard state.waiters.isEmpty else { return Optional(state.waiters.removeFirst().continuation) }
            state.isTaken = false
            return nil
        }
        next?.resume()
    }

    private func leave(_ id: UInt64) {
        let continuation = state.withLock { state in
            state.waiters.firstIndex { $0.id == id }.map { state.waiters.remove(at: $0).continuation }
        }
        continuation?.resume(throwing: CancellationError())
    }
}

/// The right to be the one; ends when the last reference goes.
package final class Turn: Sendable {
    private let turnstile: Turnstile

    fileprivate init(of turnstile: Turnstile) { self.turnstile = turnstile }

    deinit { turnstile.endTurn() }
}
