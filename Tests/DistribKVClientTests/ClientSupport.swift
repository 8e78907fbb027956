import Core
import DistribKVClient
import NIOCore
import Synchronization

func withClient(
    seeds: [NodeAddress], _ configure: (inout KVClientConfiguration) -> Void = { _ in },
    _ body: (KVClient) async throws -> Void
) async throws {
    var configuration = KVClientConfiguration()
    // On a busy machine no answer may count as late that a test did not make late.
    configuration.requestTimeout = .seconds(30)
    configuration.readAttemptTimeout = .seconds(30)
    configuration.topologyTimeout = .seconds(30)
    configuration.topologySearchPatience = .seconds(30)
    configuration.connections.connectTimeout = .seconds(30)
    configuration.backoffMin = .milliseconds(1)
    configuration.backoffMax = .milliseconds(20)
    configuration.topologyIntervalMin = .nanoseconds(0)
    configure(&configuration)
    let client = KVClient(seeds: seeds, configuration: configuration)
    do {
        try await body(client)
        await client.shutdown()
    } catch {
        await client.shutdown()
        throw error
    }
}

func failure(_ body: () async throws(KVError) -> Void) async throws -> KVError {
    do {
        try await body()
    } catch {
        return error
    }
    throw KVError(.internalError, "expected a failure")
}

func bytes(_ text: String) -> ByteBuffer { ByteBuffer(string: text) }

/// Counts, for scripts that do something the n-th time.
final class Counter: Sendable {
    private let count = Mutex(0)
    /// 1 for the first call.
    func next() -> Int {
        count.withLock {
            $0 += 1
            return $0
        }
    }
    var value: Int { count.withLock { $0 } }
}

/// Waits until `condition` holds; fails the test's call by throwing after `seconds`.
func eventually(
    _ what: String, within seconds: Int = 10, _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
        if try await condition() { return }
        // Polls; a spin would take the cores from what is waited for.
        try await Task.sleep(for: .milliseconds(1))
    }
    throw KVError(.timedOut, "never happened: \(what)")
}
