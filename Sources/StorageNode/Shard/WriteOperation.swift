public import Core
public import NIOCore

/// One write of a client, or a read that has its place among writes.
public enum WriteOperation: Sendable, Hashable {
    /// Value bytes are opaque. The buffers may be slices of a request; they are copied once, into the batch.
    case put(key: ByteBuffer, value: ByteBuffer)
    /// A put of a value that is gone `milliseconds` after the write has its place in the log. Indirect, so that a plain
    /// put is no larger for it.
    indirect case expiringPut(key: ByteBuffer, value: ByteBuffer, milliseconds: UInt64)
    case delete(key: ByteBuffer)
    /// Adds to the 64-bit integer that is stored in decimal ASCII; an absent one counts as 0. A put of the sum, which
    /// expires when the number before it would have.
    case increment(key: ByteBuffer, by: Int64)
    /// Looks the key up at its place among the writes, and writes nothing. A read for which the place does not matter is
    /// not the writer's.
    case read(key: ByteBuffer)
    /// Another operation, made only where the condition holds at its place in the log. Indirect, so that a plain
    /// write is no larger for it.
    indirect case conditional(WriteCondition, WriteOperation)

    var key: ByteBuffer {
        switch self {
        case .put(let key, _), .expiringPut(let key, _, _), .delete(let key), .increment(let key, _), .read(let key):
            key
        case .conditional(_, let operation): operation.key
        }
    }

    /// Whether what becomes of it depends on what is stored.
    var isChecked: Bool {
        switch self {
        case .put, .expiringPut, .delete: false
        case .increment, .read, .conditional: true
        }
    }

    /// What it takes in a batch and in the inbox, roughly.
    var bytes: Int {
        switch self {
        case .put(let key, let value), .expiringPut(let key, let value, _):
            key.readableBytes + value.readableBytes + WriteOperation.overheadBytes
        case .delete(let key), .read(let key): key.readableBytes + WriteOperation.overheadBytes
        case .increment(let key, _): key.readableBytes + WriteOperation.numberBytesMax + WriteOperation.overheadBytes
        case .conditional(_, let operation): operation.bytes
        }
    }

    /// `-9223372036854775808`.
    private static let numberBytesMax = 20

    /// Tag, lengths, prefix, flags, version and expiry.
    private static let overheadBytes = 32
}

/// What became of a submission's operations.
///
/// Operations are settled in order, so those before ``settled`` are committed or refused and, where there are others,
/// those failed with ``failure``: a submission larger than one batch can succeed in part.
public struct WriteReceipt: Sendable {
    /// What there is to say of an operation beyond its version.
    enum Remark: Sendable {
        case refused(WriteRefusal)
        /// What a counter stands at now.
        case number(Int64)
        /// What a read found; nil for nothing.
        case read(ReadValue?)

        /// Whether the operation has become a record.
        var takesVersion: Bool {
            switch self {
            case .number: true
            case .refused, .read: false
            }
        }
    }

    /// How many operations, from the first, are committed as the configured durability demands, or refused.
    public private(set) var settled = 0
    /// How many of those are refused.
    public private(set) var refused = 0
    /// How many of them are reads that were answered.
    public private(set) var reads = 0
    /// How many are committed.
    public var committed: Int { settled - refused - reads }
    /// Why the rest is not; nil where all are. A write that failed at the disk may still turn up after a restart.
    public internal(set) var failure: KVError?
    /// A log position at which every committed operation of this submission is in the log, and no later than when
    /// the last of them was settled.
    public internal(set) var position = LogPosition.start

    /// Versions rise by one within a batch, so one batch needs one version.
    private var firstVersion = Version.zero
    private var laterRuns: [(operation: Int, version: Version)] = []
    /// Indices of operations that took none, rising.
    private var withoutVersion: [Int] = []
    /// By the operation's index; empty for plain writes.
    private var remarks: [Int: Remark] = [:]

    init() {}

    /// The version the operation at `index` was given; nil where it is not committed.
    public func version(at index: Int) -> Version? {
        guard index >= 0, index < settled else { return nil }
        if refused + reads > 0 {
            switch remarks[index] {
            case .refused, .read: return nil
            case .number, nil: break
            }
        }
        let run = laterRuns.last { $0.operation <= index } ?? (operation: 0, version: firstVersion)
        let skipped = operationsWithoutVersion(before: index) - operationsWithoutVersion(before: run.operation)
        return Version(rawValue: run.version.rawValue + UInt64(index - run.operation - skipped))
    }

    private func operationsWithoutVersion(before index: Int) -> Int {
        withoutVersion.partitioningIndex { $0 >= index }
    }

    /// Why the operation at `index` was not made; nil where it was, or failed.
    public func refusal(at index: Int) -> WriteRefusal? {
        guard case .refused(let refusal) = remarks[index] else { return nil }
        return refusal
    }

    /// What the counter stands at that the operation at `index` changed; nil where it changed none.
    public func number(at index: Int) -> Int64? {
        guard case .number(let number) = remarks[index] else { return nil }
        return number
    }

    /// What the read at `index` found; the outer nil where the operation is no read, or was not answered.
    public func read(at index: Int) -> ReadValue?? {
        guard case .read(let value) = remarks[index] else { return nil }
        return .some(value)
    }

    /// - Parameter version: of the first of them that is committed; each other that is has the next.
    mutating func settle(operations: Int, firstVersion version: Version, position: LogPosition) {
        if settled == 0 {
            firstVersion = version
        } else {
            laterRuns.append((operation: settled, version: version))
        }
        settled += operations
        self.position = position
    }

    mutating func note(_ remark: Remark, at index: Int) {
        switch remark {
        case .refused: refused += 1
        case .read: reads += 1
        case .number: break
        }
        if !remark.takesVersion { withoutVersion.append(index) }
        remarks[index] = remark
    }
}

extension [Int] {
    /// The first index whose element fulfils `isInSecondPart`, as do all behind it; the count if none does.
    fileprivate func partitioningIndex(_ isInSecondPart: (Int) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if isInSecondPart(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

/// What a read among writes found.
public struct ReadValue: Sendable, Hashable {
    public var value: ByteBuffer
    public var version: Version
    /// What is left of its life, 1 at least; nil where it has no end.
    public var millisecondsLeft: UInt64?
}

/// The writes of one event-loop tick on their way to the writer.
struct Submission: Sendable {
    var operations: [WriteOperation]
    /// All in one batch of the log, or none.
    var isAtomic = false
    var completion: @Sendable (WriteReceipt) -> Void
}

/// What became of a push of log frames.
public struct ApplyOutcome: Sendable {
    /// Where the replica stands now, also after a failure.
    public var position: LogPosition
    /// Nil where everything pushed is applied as the configured durability demands. Codes: `.staleTerm`,
    /// `.logMismatch` (a gap: push from `position`), `.diverged`, `.corrupted`, or the storage's.
    public var failure: KVError?
}
