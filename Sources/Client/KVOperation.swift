public import Core
public import NIOCore
package import Wire

/// One operation of ``KVClient/batch(_:options:)``.
public struct KVOperation: Sendable, Hashable {
    let operation: BatchOperation

    /// Reads the value under `key`; the leader answers.
    public static func get(_ key: some Sequence<UInt8>) -> KVOperation { KVOperation(key, .get) }

    /// Writes `value` under `key`. After `ttl`, 1 ms at least, it is gone; nil is for never. A `condition` says what has to
    /// be found for it.
    public static func put(
        _ key: some Sequence<UInt8>, _ value: ByteBuffer, ttl: TimeAmount? = nil,
        condition: WriteOptions.Condition? = nil
    ) -> KVOperation {
        let milliseconds = ttl.map { UInt64(max(1, ($0.nanoseconds + 999_999) / 1_000_000)) }
        return KVOperation(key, .put(value, ttlMilliseconds: milliseconds), condition)
    }

    /// Removes `key`.
    public static func delete(
        _ key: some Sequence<UInt8>, condition: WriteOptions.Condition? = nil
    ) -> KVOperation {
        KVOperation(key, .delete, condition)
    }

    /// Adds `amount` to the number under `key`, of which there is 0 where there is no such key.
    public static func increment(
        _ key: some Sequence<UInt8>, by amount: Int64 = 1, condition: WriteOptions.Condition? = nil
    ) -> KVOperation {
        KVOperation(key, .increment(by: amount), condition)
    }

    /// The operations of a file as `POST /batch` takes it, however many they are.
    ///
    /// Throws `bad-request` that says which line is wrong and how.
    package static func read(_ lines: ByteBuffer) throws(Problem) -> [KVOperation] {
        try BatchOperation.read(lines, countMax: .max).map { KVOperation($0.operation) }
    }

    init(_ operation: BatchOperation) { self.operation = operation }

    private init(
        _ key: some Sequence<UInt8>, _ action: BatchOperation.Action, _ condition: WriteOptions.Condition? = nil
    ) {
        let condition: WriteCondition? =
            switch condition {
            case nil: nil
            case .absent: WriteCondition(noneMatch: .any)
            case .exists: WriteCondition(match: .any)
            case .version(let version): WriteCondition(match: .listed([version]))
            }
        operation = BatchOperation(key: ByteBuffer(bytes: key), action: action, condition: condition)
    }

    /// What the operation came to.
    public enum Outcome: Sendable, Hashable {
        /// Of a get; nil where there is no such key.
        case value(KVEntry?)
        /// Of a put or delete.
        case written(Version)
        /// Of an increment.
        case counter(KVCounter)
    }
}

/// How a batch is done, and what its writes wait for.
public struct BatchOptions: Sendable, Hashable {
    /// All of it at one place in the log, or none of it. All keys must be of one shard: give them one `{tag}`.
    public var isAtomic: Bool
    /// On how many replicas the writes have to be; nil for the cluster's `default_ack`.
    public var ack: AckLevel?
    /// How long that may take, at least 1 ms, on top of ``timeout``; nil for the node's own limit.
    public var ackTimeout: TimeAmount?
    /// From the call to its end, acknowledgements aside; nil for the client's `requestTimeout`.
    public var timeout: TimeAmount?

    public init(
        isAtomic: Bool = false, ack: AckLevel? = nil, ackTimeout: TimeAmount? = nil, timeout: TimeAmount? = nil
    ) {
        self.isAtomic = isAtomic
        self.ack = ack
        self.ackTimeout = ackTimeout
        self.timeout = timeout
    }
}
