import Core
import NIOCore

/// The newest log frames, encoded, in lsn order without a gap, bounded by the bytes they occupy.
///
/// Invariant: holds exactly the frames after `base` up to the newest appended; an evicted frame becomes `base`, so
/// that a reader who stands right before the oldest frame can be checked without it.
struct FrameRing {
    private struct Entry {
        var position: LogPosition
        var frame: ByteBuffer
    }

    /// The position before the oldest frame.
    private(set) var base: LogPosition
    private(set) var bytes = 0
    private let bytesMax: Int
    private var entries: [Entry] = []
    private var head = 0

    /// Bookkeeping per frame: the entry and the buffer's own allocation.
    private static let entryOverheadBytes = 128

    init(base: LogPosition, bytesMax: Int) {
        self.base = base
        self.bytesMax = bytesMax
    }

    var count: Int { entries.count - head }

    /// The position of the frame at `lsn`, or of `base`; nil where neither holds it.
    func position(at lsn: UInt64) -> LogPosition? {
        if lsn == base.lsn { return base }
        guard lsn > base.lsn, lsn - base.lsn <= UInt64(count) else { return nil }
        return entries[head + Int(lsn - base.lsn) - 1].position
    }

    mutating func append(_ frame: ByteBuffer, at position: LogPosition) {
        entries.append(Entry(position: position, frame: frame))
        bytes += FrameRing.cost(of: frame)
        while bytes > bytesMax, count > 0 { evictOldest() }
    }

    /// Evicts the oldest frames, of so many bytes at least where there are as many.
    mutating func evict(bytes wanted: Int) {
        let target = bytes - wanted
        while bytes > target, count > 0 { evictOldest() }
    }

    private mutating func evictOldest() {
        base = entries[head].position
        bytes -= FrameRing.cost(of: entries[head].frame)
        entries[head].frame = ByteBuffer()
        head += 1
        if head > 1_024, head > entries.count / 2 {
            entries.removeFirst(head)
            head = 0
        }
    }

    private static func cost(of frame: ByteBuffer) -> Int { frame.storageCapacity + entryOverheadBytes }

    /// The frames after `lsn` that fit into `bytesMax`, one at least where there is one.
    func frames(after lsn: UInt64, bytesMax: Int) -> (frames: [ByteBuffer], last: LogPosition)? {
        guard lsn >= base.lsn, lsn - base.lsn < UInt64(count) else { return nil }
        var frames: [ByteBuffer] = []
        var last = base
        var bytes = 0
        for entry in entries[(head + Int(lsn - base.lsn))...] {
            guard frames.isEmpty || bytes + entry.frame.readableBytes <= bytesMax else { break }
            frames.append(entry.frame)
            bytes += entry.frame.readableBytes
            last = entry.position
        }
        return (frames, last)
    }
}
