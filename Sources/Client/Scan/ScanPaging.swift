package import NIOCore
package import Wire

/// How a page of a scan over several shards is put together.
package struct ScanPaging: Sendable {
    /// Records of a page.
    package var limit: Int
    /// A page ends before the record that would make it larger than that, unless that is its first.
    package var bytesMax: Int

    package init(limit: Int, bytesMax: Int = ScanPaging.bytesMaxDefault) {
        self.limit = limit
        self.bytesMax = bytesMax
    }

    package static let bytesMaxDefault = 4 << 20
    private static let shardBytesMin = 128 << 10

    /// Records to ask each of `shards` for. Keys are spread by their hash, so that of a page with `limit` records each
    /// shard has about its part; with that much more a page rarely ends early.
    package func limit(ofEach shards: Int) -> Int {
        let part = (limit + shards - 1) / shards
        return min(limit, part + 4 * Int(Double(part).squareRoot()) + 16)
    }

    /// Bytes to ask each of `shards` for.
    package func bytesMax(ofEach shards: Int) -> Int {
        max(ScanPaging.shardBytesMin, bytesMax / shards + bytesMax / 8)
    }
}

/// A page of a scan over several shards, as lines of JSON.
package struct ScannedPage: Sendable, Hashable {
    package var lines = ByteBuffer()
    package var count = 0
    /// The `start` of the next page; nil where there is no more.
    package var next: [UInt8]?

    /// What a merge comes to.
    package enum Outcome: Sendable, Hashable {
        case page(ScannedPage)
        /// The first record is larger than a shard was asked for: it has to be fetched by itself.
        case oversized(shard: Int, key: [UInt8])
    }

    /// Merges one page of each shard, in their order: a number in the outcome is a position in `pages`. It ends at the limits, and where a shard's page is used up and more of it follows:
    /// going on would leave out what follows there.
    package static func merge(_ pages: [ScanPage], _ paging: ScanPaging, isReverse: Bool) -> Outcome {
        var merge = ScanMerge(pages, isReverse: isReverse)
        var page = ScannedPage()
        page.lines.reserveCapacity(min(paging.bytesMax, pages.reduce(0) { $0 + $1.frames.readableBytes * 5 / 4 + 64 }))
        /// Of the last record: shard and place of its key.
        var last: (shard: Int, key: Range<Int>)?
        func nextStart() -> [UInt8] {
            guard let last else { return [] }
            return merge.withBytes(of: last.shard) { bytes in
                ScanRange(isReverse: isReverse).next(after: bytes[last.key])
            }
        }
        while true {
            let upcoming = merge.upcoming
            if page.count == paging.limit, upcoming != .end {
                page.next = nextStart()
                return .page(page)
            }
            switch upcoming {
            case .end: return .page(page)
            case .needsPage(_, let from):
                page.next = from
                return .page(page)
            case .record(let shard, let frame):
                let isFull =
                    page.count > 0 && page.lines.readableBytes + frame.end - frame.key.lowerBound > paging.bytesMax
                if isFull || (frame.isOversized && page.count > 0) {
                    page.next = nextStart()
                    return .page(page)
                }
                if frame.isOversized {
                    return .oversized(shard: shard, key: merge.withBytes(of: shard) { Array($0[frame.key]) })
                }
                merge.withBytes(of: shard) { page.append(frame, of: $0) }
                last = (shard, frame.key)
                _ = merge.next()
            }
        }
    }

    /// The page of one record that was fetched by itself; nil where it is larger than that was allowed to be.
    /// - Parameter key: the one it was to have; it may be gone.
    package static func single(_ page: ScanPage, key: [UInt8], isReverse: Bool) -> ScannedPage? {
        var single = ScannedPage(next: ScanRange(isReverse: isReverse).next(after: key))
        let isWhole = page.frames.withUnsafeReadableBytes { bytes in
            guard let frame = ScanFrame(in: bytes, at: 0) else { return true }
            guard bytes[frame.key].elementsEqual(key) else { return true }
            if !frame.isOversized { single.append(frame, of: bytes) }
            return !frame.isOversized
        }
        return isWhole ? single : nil
    }

    private mutating func append(_ frame: ScanFrame, of bytes: UnsafeRawBufferPointer) {
        JSONLine.writeRecord(
            key: UnsafeRawBufferPointer(rebasing: bytes[frame.key]),
            value: frame.value.map { UnsafeRawBufferPointer(rebasing: bytes[$0]) }, version: frame.version,
            ttlMilliseconds: frame.ttlMilliseconds, into: &lines)
        count += 1
    }
}
