import Core
import NIOCore

/// The most recent frames of one shard, for the followers near the end of its log.
///
/// Invariant: the segments continue each other from ``base`` to ``tail`` without a gap.
struct LogWindow {
    /// What the window holds for one who has everything up to a position.
    enum Supply {
        /// The position is not in the window, or has another history.
        case outside
        case nothingNew
        case segment(LogSegment)
    }

    private struct Entry {
        let segment: LogSegment
        /// Bytes ever appended before this segment.
        let start: Int
    }

    private(set) var base: LogPosition
    private(set) var tail: LogPosition
    /// An estimate of the memory it takes, in bytes.
    private(set) var footprint = 0
    private var entries = CircularBuffer<Entry>()
    /// Bytes ever appended.
    private var end = 0

    init(base: LogPosition) {
        self.base = base
        self.tail = base
    }

    /// Appends what continues the tail; false, and nothing done, where it does not.
    mutating func append(_ segment: LogSegment) -> Bool {
        guard segment.base == tail else { return false }
        entries.append(Entry(segment: segment, start: end))
        end += segment.byteCount
        footprint += segment.footprint
        tail = segment.last
        return true
    }

    /// Drops the oldest segments until at most `bytesMax` are left.
    /// - Parameter keepsNewest: the newest stays even when it alone is larger.
    mutating func trim(to bytesMax: Int, keepsNewest: Bool) {
        while footprint > bytesMax, entries.count > (keepsNewest ? 1 : 0), let oldest = entries.popFirst() {
            footprint -= oldest.segment.footprint
            base = oldest.segment.last
        }
    }

    /// Bytes in the window after `position`; nil where the position is not in it.
    func bytes(after position: LogPosition) -> Int? {
        if position == tail { return 0 }
        guard let index = index(of: position), let offset = entry(index).segment.offset(after: position) else {
            return nil
        }
        return end - entry(index).start - offset
    }

    /// The frames after `position`, up to `bytesMax` bytes, or one segment of the leader's where that is larger.
    func supply(after position: LogPosition, bytesMax: Int) -> Supply {
        if position == tail { return .nothingNew }
        guard let index = index(of: position) else { return .outside }
        // Where `position` ends one segment, the next one holds what follows.
        guard let first = entry(index).segment.suffix(after: position) else { return .outside }
        var segments = [first]
        var byteCount = first.byteCount
        for next in (index + 1)..<max(entries.count, index + 1) {
            let segment = entry(next).segment
            guard byteCount + segment.byteCount <= bytesMax else { break }
            segments.append(segment)
            byteCount += segment.byteCount
        }
        return .segment(LogSegment.joined(segments))
    }

    private func entry(_ offset: Int) -> Entry { entries[entries.index(entries.startIndex, offsetBy: offset)] }

    /// The entry that holds the frame after `position`, if `position` is in the window at all.
    private func index(of position: LogPosition) -> Int? {
        guard position.lsn >= base.lsn, position.lsn < tail.lsn else { return nil }
        var low = 0
        var high = entries.count - 1
        while low < high {
            let middle = (low + high) / 2
            if entry(middle).segment.last.lsn > position.lsn { high = middle } else { low = middle + 1 }
        }
        return entry(low).segment.offset(after: position) == nil ? nil : low
    }
}
