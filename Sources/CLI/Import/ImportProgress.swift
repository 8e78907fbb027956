import Synchronization

/// What an import has done so far; exact at its end.
public struct ImportCounts: Sendable, Hashable {
    /// Records, malformed ones included, from the line it began at.
    public var read: UInt64 = 0
    /// Acknowledged by the cluster.
    public var written: UInt64 = 0
    /// Malformed and passed over.
    public var skipped: UInt64 = 0
    /// Refused by the cluster, or not acknowledged.
    public var failed: UInt64 = 0
    /// Bytes of keys and values written.
    public var bytesWritten: UInt64 = 0
    /// Bytes of the file that have been taken.
    public var position: UInt64 = 0

    public init() {}

    /// Read, but given up before they were sent, as the import stopped.
    public var unsent: UInt64 { read - written - skipped - failed }
}

/// The counts of an import that is running, for whoever shows them.
public final class ImportProgress: Sendable {
    private let state = Mutex(ImportCounts())

    public init() {}

    public var counts: ImportCounts { state.withLock { $0 } }

    func update(_ change: (inout ImportCounts) -> Void) { state.withLock { change(&$0) } }
}
