public import Core
import NIOCore
import Wire

/// What a counter stands at, and the version of the write that brought it there.
public struct KVCounter: Sendable, Hashable {
    public var number: Int64
    public var version: Version

    public init(number: Int64, version: Version) {
        self.number = number
        self.version = version
    }
}

extension KVClient {
    /// Adds `amount` to the number stored under `key`, of which there is 0 where there is no such key; the sum.
    ///
    /// The value is an ordinary one, a 64-bit integer in decimal ASCII: `get` reads it and `put` sets it. Increments of
    /// many clients are all counted, each once.
    ///
    /// Throws `KVError(.notAnInteger)` and `.counterOverflow` where there is nothing to add to or no room, and the value
    /// stays as it is; `.outcomeUnknown` where the answer was lost, so that it may have been counted; `.ackTimeout`, which
    /// carries the version, where it is counted and not on enough replicas yet; `.preconditionFailed`.
    @discardableResult
    public func increment(
        _ key: some Sequence<UInt8>, by amount: Int64 = 1, options: WriteOptions = .init()
    ) async throws(KVError) -> KVCounter {
        let response = try await send(try .increment(key: Array(key), by: amount, options))
        let version = try Self.version(ofWrite: response)
        guard let number = Int64(String(buffer: response.body)) else {
            throw KVError(.invalidData, "the answer to an increment is no number: is this a distribKV node?")
        }
        return KVCounter(number: number, version: version)
    }
}
