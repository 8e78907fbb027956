import DistribKVClient
import NIOCore

/// Allows a caller so many requests in a window of time, over all processes that ask.
public struct RateLimiter: Sendable {
    private static let attemptsMax = 4

    private let client: KVClient
    private let requestsMax: Int64
    private let window: TimeAmount

    public init(client: KVClient, requestsMax: Int64, per window: TimeAmount) {
        self.client = client
        self.requestsMax = requestsMax
        self.window = window
    }

    /// Counts a request of `caller`; whether it is within the limit. Throws where it is not known whether it was counted.
    ///
    /// The counter is a value with a life of one window: the first request makes it, further ones count it up, which
    /// leaves its end as it is, and when it is gone a new window begins.
    public func allows(_ caller: String) async throws -> Bool {
        for _ in 1...Self.attemptsMax {
            if let count = try await count(caller) { return count <= requestsMax }
            // Of several who see that no window is open one opens it, and the others count in it.
            if try await openWindow(caller) { return requestsMax >= 1 }
        }
        throw KVError(.conflict, "windows of \(caller) are over before anything is counted in them")
    }

    /// How many there are with this one; nil where no window is open.
    private func count(_ caller: String) async throws -> Int64? {
        do {
            return try await client.increment(key(caller), options: WriteOptions(condition: .exists)).number
        } catch {
            guard error.code == .preconditionFailed else { throw error }
            return nil
        }
    }

    /// False where somebody else has.
    private func openWindow(_ caller: String) async throws -> Bool {
        do {
            let options = WriteOptions(condition: .absent, ttl: window)
            try await client.put(key(caller), ByteBuffer(string: "1"), options: options)
            return true
        } catch {
            guard error.code == .preconditionFailed else { throw error }
            return false
        }
    }

    private func key(_ caller: String) -> String.UTF8View { "rate/\(caller)".utf8 }
}
