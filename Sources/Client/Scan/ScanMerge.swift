package import NIOCore
package import Wire

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Merges the pages of several shards into one sequence in key order: pure, fed with pages and asked what is next.
///
/// A shard is waiting for its first page, or inside of a page, or behind a page and before the next one, or done. Behind
/// a page it is known where the next begins: no key from there on may come out before that page is here.
///
/// Invariants: records come out in the order of the scan; no record of a shard comes out before every record of the
/// others that stands before it; `heap` holds the shards that are not done, the one to go on with first.
package struct ScanMerge {
    package enum Step: Equatable {
        /// Its bytes are in ``bytes(of:)`` until the next call of ``next()``.
        case record(shard: Int, ScanFrame)
        /// Nothing can come out before the shard's next page is there, which begins at `from`; nil for where the scan
        /// begins.
        case needsPage(shard: Int, from: [UInt8]?)
        case end
    }

    private struct Cursor {
        /// There was no page yet.
        var isUnread = true
        var frames = ByteBuffer()
        /// Nil where the page is used up.
        var frame: ScanFrame?
        /// Where the page behind this one begins; nil where this is the last one.
        var next: [UInt8]?
    }

    private let isReverse: Bool
    private var cursors: [Cursor]
    private var heap: [Int] = []

    /// - Parameter shards: how many, numbered from 0.
    package init(shards: Int, isReverse: Bool) {
        self.isReverse = isReverse
        cursors = Array(repeating: Cursor(), count: shards)
        heap = Array(0..<shards)
    }

    /// Of already fetched pages, one for each shard.
    package init(_ pages: [ScanPage], isReverse: Bool) {
        self.init(shards: pages.count, isReverse: isReverse)
        for (shard, page) in pages.enumerated() { load(page, shard) }
        heap = heap.filter { !isDone($0) }
        for place in (0..<heap.count / 2).reversed() { sink(place) }
    }

    /// Gives the page that ``Step/needsPage(shard:from:)`` asked for.
    package mutating func supply(_ page: ScanPage, for shard: Int) {
        precondition(heap.first == shard && cursors[shard].frame == nil, "the shard needs no page")
        load(page, shard)
        settleFirst()
    }

    /// The bytes that the frames of a shard's page point into.
    package func bytes(of shard: Int) -> ByteBuffer { cursors[shard].frames }

    /// Lends the bytes of the frames of a shard's page.
    package func withBytes<Result>(of shard: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        cursors[shard].frames.withUnsafeReadableBytes(body)
    }

    /// What is next, without taking it.
    package var upcoming: Step {
        guard let shard = heap.first else { return .end }
        guard let frame = cursors[shard].frame else {
            return .needsPage(shard: shard, from: cursors[shard].next)
        }
        return .record(shard: shard, frame)
    }

    /// What is next; a record is taken.
    package mutating func next() -> Step {
        let step = upcoming
        if case .record(let shard, let frame) = step {
            cursors[shard].frame = cursors[shard].frames.withUnsafeReadableBytes { ScanFrame(in: $0, at: frame.end) }
            settleFirst()
        }
        return step
    }

    private mutating func load(_ page: ScanPage, _ shard: Int) {
        let first = page.frames.withUnsafeReadableBytes { ScanFrame(in: $0, at: 0) }
        cursors[shard] = Cursor(isUnread: false, frames: page.frames, frame: first, next: page.next)
    }

    private func isDone(_ shard: Int) -> Bool {
        !cursors[shard].isUnread && cursors[shard].frame == nil && cursors[shard].next == nil
    }

    // MARK: The heap

    /// The first shard has moved: it goes to its place, or leaves.
    private mutating func settleFirst() {
        if isDone(heap[0]) {
            let last = heap.removeLast()
            if heap.isEmpty { return }
            heap[0] = last
        }
        sink(0)
    }

    private mutating func sink(_ place: Int) {
        var parent = place
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, goesBefore(heap[child + 1], heap[child]) { child += 1 }
            guard goesBefore(heap[child], heap[parent]) else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }

    /// Whether the position of `left` is before that of `right`.
    private func goesBefore(_ left: Int, _ right: Int) -> Bool {
        guard !cursors[left].isUnread, !cursors[right].isUnread else { return cursors[left].isUnread }
        let order = withPosition(left) { left in withPosition(right) { right in ScanMerge.order(left, right) } }
        guard order != 0 else {
            // A page upwards begins with the key itself, one downwards right behind it.
            return isReverse ? cursors[left].frame != nil : cursors[left].frame == nil
        }
        return isReverse ? order > 0 : order < 0
    }

    private func withPosition<Result>(_ shard: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        if let frame = cursors[shard].frame {
            return cursors[shard].frames.withUnsafeReadableBytes {
                body(UnsafeRawBufferPointer(rebasing: $0[frame.key]))
            }
        }
        return (cursors[shard].next ?? []).withUnsafeBytes(body)
    }

    private static func order(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Int {
        let count = min(left.count, right.count)
        if count > 0, let left = left.baseAddress, let right = right.baseAddress {
            let order = memcmp(left, right, count)
            if order != 0 { return Int(order) }
        }
        return left.count - right.count
    }
}
