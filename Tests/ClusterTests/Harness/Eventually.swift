import Testing

/// What did not come in time.
struct NotInTime: Error, CustomStringConvertible {
    let awaited: String
    let lastError: (any Error)?
    var description: String {
        "\(awaited) did not come in \(patience)" + (lastError.map { "; last: \($0)" } ?? "")
    }
}

/// A bound on every wait, far above what a busy machine needs: it is reached only where something hangs.
let patience = Duration.seconds(90)

/// Waits until `condition` answers something. An error it throws counts as "not yet".
func eventually<Value>(
    _ awaited: String, within limit: Duration = patience, _ condition: () async throws -> Value?
) async throws -> Value {
    let deadline = ContinuousClock.now + limit
    var lastError: (any Error)?
    var pause = Duration.milliseconds(2)
    while true {
        do {
            if let value = try await condition() { return value }
            lastError = nil
        } catch let error as GivenUp {
            throw error
        } catch {
            lastError = error
        }
        guard ContinuousClock.now < deadline else { throw NotInTime(awaited: awaited, lastError: lastError) }
        try await Task.sleep(for: pause)
        pause = min(pause * 2, .milliseconds(50))
    }
}

/// Waits until `condition` holds.
func eventually(
    _ awaited: String, within limit: Duration = patience, isTrue condition: () async throws -> Bool
) async throws {
    let _: Void = try await eventually(awaited, within: limit) { try await condition() ? () : nil }
}

/// Thrown inside of ``eventually(_:within:_:)`` where waiting on makes no sense.
struct GivenUp: Error, CustomStringConvertible {
    let description: String
}
