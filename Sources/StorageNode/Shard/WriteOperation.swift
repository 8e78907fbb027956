public import Core
public import NIOCore

/// One write of a client.
public enum WriteOperation: Sendable, Hashable {
    /// Value bytes are opaque. The buffers may be slices of a request; they are copied once, into the batch.
    case put(key: ByteBuffer, value: ByteBuffer)
    case delete(key: ByteBuffer)

    /// What it takes in a batch and in the inbox, roughly.
    var bytes: Int {
        switch self {
        case .put(let key, let value): key.readableBytes + value.readableBytes + WriteOperation.overheadBytes
        case .delete(let key): key.readableBytes + WriteOperation.overheadBytes
        }
    }

    /// Tag, lengths, prefix, flags and version.
    private static let overheadBytes = 24
}

/// What became of a submission's operations.
///
/// Operations are committed in order, so those before ``committed`` are done and, where there are others, those
/// failed with ``failure``: a submission larger than one batch can succeed in part.
public struct WriteReceipt: Sendable {
    /// How many operations, from the first, are committed as the configured durability demands.
    public internal(set) var committed = 0
    /// Why the rest is not; nil where all are. A write that failed at the disk may still turn up after a restart.
    public internal(set) var failure: KVError?
    /// The log position of the newest batch that holds an operation of this submission.
    public internal(set) var position = LogPosition.start

    /// Versions rise by one within a batch, so one batch needs one version.
    private var firstVersion = Version.zero
    private var laterRuns: [(operation: Int, version: Version)] = []

    init() {}

    /// The version the operation at `index` was given; nil where it is not committed.
    public func version(at index: Int) -> Version? {
        guard index >= 0, index < committed else { return nil }
        if let run = laterRuns.last(where: { $0.operation <= index }) {
            return Version(rawValue: run.version.rawValue + UInt64(index - run.operation))
        }
        return Version(rawValue: firstVersion.rawValue + UInt64(index))
    }

    mutating func commit(operations: Int, firstVersion version: Version, position: LogPosition) {
        if committed == 0 {
            firstVersion = version
        } else {
            laterRuns.append((operation: committed, version: version))
        }
        committed += operations
        self.position = position
    }
}

/// The writes of one event-loop tick on their way to the writer.
struct Submission: Sendable {
    var operations: [WriteOperation]
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
