import Synchronization

/// Lets so many through at a time, one where nothing else is said; the others wait in line.
package final class Turnstile: Sendable {
    private struct State {
        var taken = 0
        var nextID: UInt64 = 0
        var waiters: [(id: UInt64, continuation: CheckedContinuation<Void, any Error>)] = []
    }

    private let places: Int
    private let state = Mutex(State())

    package init(places: Int = 1) { self.places = places }

    /// Whether the next one has to wait.
    package var isTaken: Bool { state.withLock { $0.taken >= places } }
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
                    guard state.taken >= places else {
                        state.taken += 1
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
            state.taken -= 1
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

/// The right to be one of those let through; ends when the last reference goes.
package final class Turn: Sendable {
    private let turnstile: Turnstile

    fileprivate init(of turnstile: Turnstile) { self.turnstile = turnstile }

    deinit { turnstile.endTurn() }
}
