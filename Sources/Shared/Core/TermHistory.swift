/// Where a term begins in a log: its first batch, the barrier its leader wrote.
public struct TermStart: Hashable, Sendable {
    public var term: UInt64
    public var firstLsn: UInt64
    /// The version of the batch before `firstLsn`; zero where there is none.
    public var previousVersion: Version

    public init(term: UInt64, firstLsn: UInt64, previousVersion: Version) {
        self.term = term
        self.firstLsn = firstLsn
        self.previousVersion = previousVersion
    }
}

/// The history of a replica in short: every term in its log, and where the log ends.
///
/// Two logs share everything up to the place where their histories part, because a term has one leader and that
/// leader writes each lsn once.
public struct TermHistory: Hashable, Sendable {
    /// By rising term.
    public var starts: [TermStart]
    public var end: LogPosition

    public init(starts: [TermStart], end: LogPosition) {
        self.starts = starts
        self.end = end
    }

    /// The last batch that two histories share.
    public struct Common: Hashable, Sendable {
        public var lsn: UInt64
        public var version: Version

        public init(lsn: UInt64, version: Version) {
            self.lsn = lsn
            self.version = version
        }
    }

    /// Where this history and `other` part, or where the shorter one ends.
    ///
    /// Should a term have had two leaders after all, it counts as not shared from its first batch on.
    public func common(with other: TermHistory) -> Common {
        var shared = Common(lsn: 0, version: .zero)
        for (index, (own, theirs)) in zip(starts, other.starts).enumerated() {
            guard own == theirs else { return shared }
            let ownEnd = lastBatch(ofTermAt: index)
            let theirEnd = other.lastBatch(ofTermAt: index)
            if ownEnd.lsn == theirEnd.lsn, ownEnd.version != theirEnd.version {
                return Common(lsn: own.firstLsn - 1, version: own.previousVersion)
            }
            shared = ownEnd.lsn <= theirEnd.lsn ? ownEnd : theirEnd
            guard ownEnd.lsn == theirEnd.lsn else { return shared }
        }
        return shared
    }

    /// The lsns of this history that `other` does not have; nil where this is a prefix of it.
    public func surplus(over other: TermHistory) -> ClosedRange<UInt64>? {
        let common = common(with: other)
        return common.lsn < end.lsn ? common.lsn + 1...end.lsn : nil
    }

    /// Whether a replica that ends at `position` has nothing that this history has not: its last batch is here, and with
    /// it, as a term has one leader, everything before.
    public func contains(_ position: LogPosition) -> Bool {
        guard position != .start else { return true }
        guard let index = starts.firstIndex(where: { $0.term == position.term }) else { return false }
        let (first, last) = (starts[index], lastBatch(ofTermAt: index))
        guard position.lsn >= first.firstLsn, position.lsn <= last.lsn, position.version > first.previousVersion else {
            return false
        }
        return position.lsn == last.lsn ? position.version == last.version : position.version < last.version
    }

    private func lastBatch(ofTermAt index: Int) -> Common {
        guard index + 1 < starts.count else { return Common(lsn: end.lsn, version: end.version) }
        return Common(lsn: starts[index + 1].firstLsn - 1, version: starts[index + 1].previousVersion)
    }
}
