/// Where a replica stands in its shard's log.
///
/// `lsn` rises by one with every write batch, `term` with every change of leader, so positions order
/// first by term. `version` is the highest version in that batch: two histories that disagree about
/// the version at one (term, lsn) have diverged.
public struct LogPosition: Hashable, Sendable, Comparable {
    public var term: UInt64
    public var lsn: UInt64
    public var version: Version

    @inlinable public init(term: UInt64, lsn: UInt64, version: Version) {
        self.term = term
        self.lsn = lsn
        self.version = version
    }

    /// Before the first batch of the first term.
    public static let start = LogPosition(term: 0, lsn: 0, version: .zero)

    @inlinable public static func < (left: LogPosition, right: LogPosition) -> Bool {
        (left.term, left.lsn) < (right.term, right.lsn)
    }
}

extension LogPosition: CustomStringConvertible {
    public var description: String { "term \(term) lsn \(lsn)" }
}
