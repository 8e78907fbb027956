import Core
import NIOCore
import Sharding
import TestSupport
import Testing
import Wire

@testable import DistribKVClient

/// What shards hold, kept in sorted arrays, and how a node makes a page of it.
private struct ModelShards {
    var shards: [[[UInt8]: Int]]

    /// - Parameter value: bytes of every value.
    func page(_ shard: Int, _ request: ShardScanRequest, examined: Int) -> ScanPage {
        let range = request.range
        var keys = shards[shard].keys.filter { key in
            !key.lexicographicallyPrecedes(range.lower) && range.upper.map { key.lexicographicallyPrecedes($0) } ?? true
        }.sorted { $0.lexicographicallyPrecedes($1) }
        if range.isReverse { keys.reverse() }
        var page = ScanPage(frames: ByteBuffer(), next: nil)
        for (index, key) in keys.enumerated() {
            let valueBytes = shards[shard][key] ?? 0
            let bytes = ScanFrame.bytes(key: key.count, value: valueBytes)
            let isTooMuch = page.frames.readableBytes + bytes > request.bytesMax
            if index == request.limit || isTooMuch && index > 0 {
                page.next = range.isReverse ? key + [0] : key
                break
            }
            let value = [UInt8](repeating: 0x76, count: valueBytes)
            key.withUnsafeBytes { key in
                value.withUnsafeBytes { value in
                    ScanFrame.write(
                        key: key, isTooMuch ? .oversized : .value(value), version: Version(rawValue: 1),
                        ttlMilliseconds: nil, into: &page.frames)
                }
            }
            if isTooMuch || index + 1 == examined {
                page.next = range.next(after: key)
                break
            }
        }
        return page
    }
}

@Suite struct ScanMergeTests {
    private static func key(_ random: inout SeededGenerator) -> [UInt8] {
        let alphabet: [UInt8] = [0x00, 0x01, 0x61, 0x62, 0x7F, 0x80, 0xFF]
        return (0..<Int.random(in: 1...4, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? 0 }
    }

    private static func keys(_ page: ScannedPage) throws -> [[UInt8]] {
        try page.lines.readableBytesView.split(separator: UInt8(ascii: "\n")).map { line in
            Array(try RecordLine(ByteBuffer(bytes: line)).key.readableBytesView)
        }
    }

    /// Pages of random shards, limits, ranges and directions, while keys come and go between pages.
    @Test(arguments: 0..<40) func pagesNeitherMissNorRepeat(round: Int) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<50 {
            let shardCount = Int.random(in: 1...5, using: &random)
            var model = ModelShards(shards: Array(repeating: [:], count: shardCount))
            let isSkewed = Bool.random(using: &random)
            func owner(_ key: [UInt8]) -> Int {
                isSkewed ? 0 : key.reduce(7) { ($0 &* 31 &+ Int($1)) & 0xFFFF } % shardCount
            }
            let valueMax = [0, 20, 600].randomElement(using: &random) ?? 0
            for _ in 0..<Int.random(in: 0...150, using: &random) {
                let key = Self.key(&random)
                model.shards[owner(key)][key] = Int.random(in: 0...valueMax, using: &random)
            }
            func bound() -> [UInt8] { Bool.random(using: &random) ? [] : Self.key(&random) }
            var range = ScanRange(
                prefix: Int.random(in: 0..<4, using: &random) == 0 ? [Self.key(&random)[0]] : [], start: bound(),
                end: bound(), isReverse: Bool.random(using: &random))
            let paging = ScanPaging(
                limit: Int.random(in: 1...20, using: &random),
                bytesMax: [100, 700, 1 << 20].randomElement(using: &random) ?? 0)
            func isInRange(_ key: [UInt8]) -> Bool {
                let (low, high) = range.isReverse ? (range.end, range.start) : (range.start, range.end)
                return key.starts(with: range.prefix) && !key.lexicographicallyPrecedes(low)
                    && (high.isEmpty || key.lexicographicallyPrecedes(high))
            }
            var permanent = Set(model.shards.flatMap(\.keys).filter(isInRange))
            let asked = range
            var seen: [[UInt8]] = []
            var pages = 0
            while true {
                let examined = Int.random(in: 1...30, using: &random)
                let perShard = ShardScanRequest(
                    range: range, limit: paging.limit(ofEach: shardCount),
                    bytesMax: max(80, paging.bytesMax / shardCount),
                    keysOnly: false)
                let shardPages = (0..<shardCount).map { model.page($0, perShard, examined: examined) }
                let page: ScannedPage
                switch ScannedPage.merge(shardPages, paging, isReverse: range.isReverse) {
                case .page(let merged): page = merged
                case .oversized(let shard, let key):
                    let whole = ShardScanRequest(
                        range: ScanRange(prefix: key), limit: 1, bytesMax: 1 << 20, keysOnly: false)
                    page = try #require(
                        ScannedPage.single(
                            model.page(shard, whole, examined: 9), key: key, isReverse: range.isReverse))
                }
                #expect(page.count <= paging.limit)
                let keys = try Self.keys(page)
                #expect(keys.count == page.count)
                seen += keys
                pages += 1
                guard let next = page.next else { break }
                #expect(pages < 2_000, "seed \(seed)")
                if pages >= 2_000 { break }
                range = range.from(next)
                // Some come and some go.
                for _ in 0..<Int.random(in: 0...3, using: &random) {
                    let key = Self.key(&random)
                    if Bool.random(using: &random) {
                        model.shards[owner(key)][key] = Int.random(in: 0...valueMax, using: &random)
                    } else {
                        model.shards[owner(key)][key] = nil
                        permanent.remove(key)
                    }
                }
            }
            let isOrdered = zip(seen, seen.dropFirst()).allSatisfy { left, right in
                asked.isReverse ? right.lexicographicallyPrecedes(left) : left.lexicographicallyPrecedes(right)
            }
            #expect(isOrdered, "seed \(seed): \(seen)")
            range = asked
            #expect(seen.allSatisfy(isInRange), "seed \(seed)")
            #expect(permanent.subtracting(seen).isEmpty, "seed \(seed): missed \(permanent.subtracting(seen))")
        }
    }

    /// Without changes the pages are everything; with small shards' parts they are as full as they can be.
    @Test func aPageThatNobodyCutsShortIsFull() throws {
        var model = ModelShards(shards: Array(repeating: [:], count: 3))
        for number in 0..<300 { model.shards[number % 3][Array("k\(1_000 + number)".utf8)] = 1 }
        let paging = ScanPaging(limit: 100)
        let request = ShardScanRequest(
            range: ScanRange(), limit: paging.limit(ofEach: 3), bytesMax: 1 << 20, keysOnly: false)
        #expect(request.limit < 100)
        let pages = (0..<3).map { model.page($0, request, examined: 1_000) }
        guard case .page(let page) = ScannedPage.merge(pages, paging, isReverse: false) else {
            Issue.record("there is no oversized record")
            return
        }
        #expect(page.count == 100)
        #expect(page.next.map { String(decoding: $0, as: UTF8.self) } == "k1099\0")
        #expect(paging.limit(ofEach: 1) == 100 && ScanPaging(limit: 10).limit(ofEach: 2) == 10)
    }

    /// What one client iterates over: pages of a shard are supplied as they are needed, and all of it comes out.
    @Test func aMergeGoesOnWithTheNextPageOfAShard() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for isReverse in [false, true] {
            var model = ModelShards(shards: Array(repeating: [:], count: 4))
            for _ in 0..<400 { model.shards[Int.random(in: 0..<4, using: &random)][Self.key(&random) + [9]] = 3 }
            // A key is in one shard only.
            var owned: Set<[UInt8]> = []
            for shard in 0..<4 { model.shards[shard] = model.shards[shard].filter { owned.insert($0.key).inserted } }
            var merge = ScanMerge(shards: 4, isReverse: isReverse)
            var seen: [[UInt8]] = []
            loop: while true {
                switch merge.next() {
                case .end: break loop
                case .needsPage(let shard, let from):
                    let all = ScanRange(isReverse: isReverse)
                    let request = ShardScanRequest(
                        range: from.map { all.from($0) } ?? all, limit: Int.random(in: 1...9, using: &random),
                        bytesMax: 1 << 20, keysOnly: false)
                    merge.supply(model.page(shard, request, examined: 100), for: shard)
                case .record(let shard, let frame):
                    seen.append(merge.withBytes(of: shard) { Array($0[frame.key]) })
                }
            }
            let all = owned.sorted { $0.lexicographicallyPrecedes($1) }
            #expect(seen == (isReverse ? all.reversed() : all), "seed \(seed)")
        }
    }
}

@Suite struct ScanRangeTests {
    private func slot(_ prefix: String, _ start: String = "", _ end: String = "", reverse: Bool = false) -> Bool {
        ScanRange(prefix: Array(prefix.utf8), start: Array(start.utf8), end: Array(end.utf8), isReverse: reverse).slot
            != nil
    }

    @Test func aTagInThePrefixNamesTheShard() {
        #expect(slot("{user:7}"))
        #expect(slot("{user:7}/mail"))
        #expect(slot("{user:7}", "{user:7}/a", "{user:7}/b", reverse: false))
        #expect(slot("{user:7}", "{user:7}/b", "{user:7}/a", reverse: true))
        #expect(slot("", "{a}1", "{a}2"))
        #expect(!slot("{user:7"))
        #expect(!slot("user:7}"))
        #expect(!slot("{}user"))
        #expect(!slot("", "{a}1"))
        #expect(!slot("", "{a}1", "{b}1"))
        #expect(!slot(""))
        #expect(
            ScanRange(prefix: Array("x{user:7}y".utf8)).slot?.rawValue
                == ScanRange(prefix: Array("{user:7}".utf8)).slot?.rawValue)
    }

    @Test func boundsOfBytes() {
        #expect(ScanRange(prefix: [0x61, 0xFF]).upper == [0x62])
        #expect(ScanRange(prefix: [0xFF, 0xFF]).upper == nil)
        #expect(ScanRange(prefix: [1], start: [1, 5], end: [9]).upper == [2])
        #expect(ScanRange(prefix: [1], start: [1, 5], end: [1, 6], isReverse: true).upper == [1, 5])
        #expect(ScanRange(prefix: [1], start: [1, 5], end: [1, 6], isReverse: true).isEmpty)
        #expect(ScanRange(prefix: [1], start: [3]).isEmpty)
        #expect(!ScanRange(start: [3]).isEmpty)
    }

    @Test func damagedFramesAreRefused() throws {
        var page = ScanPage(frames: ByteBuffer(), next: nil)
        [UInt8("k".utf8.first ?? 0)].withUnsafeBytes { key in
            ScanFrame.write(key: key, .keyOnly, version: .zero, ttlMilliseconds: 5, into: &page.frames)
            ScanFrame.write(key: key, .value(key), version: .zero, ttlMilliseconds: nil, into: &page.frames)
        }
        let whole = try ScanPage(frames: page.frames, encodedNext: "a%00")
        #expect(whole.next == [0x61, 0])
        for length in 1..<page.frames.readableBytes where length != 24 {
            let cut = page.frames.getSlice(at: 0, length: length) ?? ByteBuffer()
            #expect(throws: KVError.self) { try ScanPage(frames: cut, encodedNext: nil) }
        }
        #expect(throws: KVError.self) { try ScanPage(frames: page.frames, encodedNext: "%") }
    }
}
