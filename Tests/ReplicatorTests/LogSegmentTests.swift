import Core
import NIOCore
import Testing

@testable import ReplicatorService

/// Positions from `first` on, one term each `termEvery` lsns.
private func positions(_ lsns: ClosedRange<UInt64>, term: UInt64 = 1) -> [LogPosition] {
    lsns.map { LogPosition(term: term, lsn: $0, version: Version(rawValue: $0 * 10)) }
}

private func bytes(_ positions: [LogPosition], batchBytes: Int = 10) -> ByteBuffer {
    var all = ByteBuffer()
    for position in positions { all.writeImmutableBuffer(makeFrame(position, batchBytes: batchBytes)) }
    return all
}

private func segment(_ lsns: ClosedRange<UInt64>, batchBytes: Int = 10) throws -> LogSegment {
    let base = lsns.lowerBound == 1 ? LogPosition.start : positions(lsns.lowerBound - 1...lsns.lowerBound - 1)[0]
    return try LogSegment(verifying: bytes(positions(lsns), batchBytes: batchBytes), after: base, leaderTerm: 1)
}

@Suite struct LogSegmentTests {
    private func isRefused(_ bytes: ByteBuffer, after base: LogPosition = .start, leaderTerm: UInt64 = 1) -> Bool {
        do {
            _ = try LogSegment(verifying: bytes, after: base, leaderTerm: leaderTerm)
            return false
        } catch {
            return (error as? KVError)?.code == .corrupted
        }
    }

    @Test func verifiesContinuity() throws {
        let all = positions(1...5)
        #expect(try segment(1...5).last == all[4])
        #expect(try segment(1...5).frameCount == 5)
        #expect(isRefused(bytes([all[0], all[2]])))
        #expect(isRefused(bytes([all[1], all[2]])))
        #expect(isRefused(bytes([all[0], all[0]])))
        #expect(isRefused(bytes([all[0]]), after: all[0]))
        #expect(isRefused(ByteBuffer()))
    }

    @Test func verifiesTerms() throws {
        let old = positions(1...2)
        let new = positions(3...4, term: 2)
        _ = try LogSegment(verifying: bytes(old + new), after: .start, leaderTerm: 2)
        #expect(isRefused(bytes(old + new), leaderTerm: 1))
        #expect(isRefused(bytes(positions(3...3)), after: LogPosition(term: 2, lsn: 2, version: .zero), leaderTerm: 2))
    }

    @Test func everyFlippedBitAndEveryCutIsRefused() throws {
        let good = bytes(positions(1...3))
        for index in 0..<good.readableBytes {
            var bad = good
            let byte = try #require(bad.getInteger(at: index, as: UInt8.self))
            bad.setInteger(byte ^ (1 << UInt8(index % 8)), at: index)
            #expect(isRefused(bad), "byte \(index)")
        }
        let frameBytes = good.readableBytes / 3
        for count in 0..<good.readableBytes where count % frameBytes != 0 {
            #expect(isRefused(try #require(good.getSlice(at: 0, length: count))), "\(count) bytes")
        }
    }

    @Test func suffixesShareTheBytes() throws {
        let all = positions(1...5)
        let whole = try segment(1...5)
        #expect(whole.suffix(after: .start)?.bytes == whole.bytes)
        let tail = try #require(whole.suffix(after: all[2]))
        #expect(tail.base == all[2] && tail.last == all[4] && tail.frameCount == 2)
        #expect(tail.bytes == bytes(Array(all[3...])))
        #expect(tail.suffix(after: all[3])?.bytes == bytes([all[4]]))
        #expect(whole.suffix(after: all[4]) == nil)
        var other = all[2]
        other.version = Version(rawValue: 31)
        #expect(whole.suffix(after: other) == nil && whole.offset(after: other) == nil)
        #expect(whole.offset(after: all[4]) == whole.byteCount)
    }

    @Test func joinedSegmentsReadLikeOne() throws {
        let joined = LogSegment.joined([try segment(1...2), try segment(3...3), try segment(4...6)])
        let whole = try segment(1...6)
        #expect(joined.bytes == whole.bytes && joined.last == whole.last && joined.base == .start)
        for position in positions(1...5) {
            #expect(joined.suffix(after: position)?.bytes == whole.suffix(after: position)?.bytes)
        }
    }
}

@Suite struct LogWindowTests {
    private func supplied(_ supply: LogWindow.Supply) -> LogSegment? {
        if case .segment(let segment) = supply { segment } else { nil }
    }

    private func isOutside(_ supply: LogWindow.Supply) -> Bool {
        if case .outside = supply { true } else { false }
    }

    @Test func suppliesFromEveryPositionAndNothingElse() throws {
        var window = LogWindow(base: .start)
        for lsns in [1...3, 4...4, 5...9, 10...10] as [ClosedRange<UInt64>] {
            #expect(window.append(try segment(lsns)))
        }
        #expect(!window.append(try segment(12...13)))
        #expect(!window.append(try segment(4...4)))
        let all = positions(1...10)
        let whole = bytes(all)
        for have in 0..<10 {
            let after = have == 0 ? LogPosition.start : all[have - 1]
            let segment = try #require(supplied(window.supply(after: after, bytesMax: 1 << 20)))
            #expect(segment.base == after && segment.last == all[9])
            #expect(segment.bytes == bytes(Array(all[have...])))
            #expect(window.bytes(after: after) == whole.readableBytes * (10 - have) / 10)
        }
        if case .nothingNew = window.supply(after: all[9], bytesMax: 1) {
        } else {
            Issue.record("the tail has nothing new")
        }
        #expect(window.bytes(after: all[9]) == 0)
        #expect(isOutside(window.supply(after: positions(11...11)[0], bytesMax: 1)))
        #expect(isOutside(window.supply(after: positions(4...4, term: 2)[0], bytesMax: 1)))
    }

    @Test func joinsNoMoreThanAskedFor() throws {
        var window = LogWindow(base: .start)
        for lsn in UInt64(1)...20 { #expect(window.append(try segment(lsn...lsn))) }
        let frameBytes = makeFrame(positions(1...1)[0], batchBytes: 10).readableBytes
        for frames in 1...5 {
            let segment = try #require(supplied(window.supply(after: .start, bytesMax: frames * frameBytes + 5)))
            #expect(segment.frameCount == frames)
        }
        // One frame passes whatever its size.
        #expect(supplied(window.supply(after: .start, bytesMax: 1))?.frameCount == 1)
    }

    @Test func forgetsTheOldestFirst() throws {
        var window = LogWindow(base: .start)
        for lsn in UInt64(1)...20 { #expect(window.append(try segment(lsn...lsn, batchBytes: 1_000))) }
        let footprint = window.footprint
        window.trim(to: footprint / 2, keepsNewest: true)
        #expect(window.footprint <= footprint / 2)
        #expect(window.base.lsn >= 10 && window.tail.lsn == 20)
        #expect(isOutside(window.supply(after: .start, bytesMax: 1)))
        #expect(supplied(window.supply(after: window.base, bytesMax: 1 << 20))?.last == window.tail)
        window.trim(to: 0, keepsNewest: true)
        #expect(window.base.lsn == 19)
        window.trim(to: 0, keepsNewest: false)
        #expect(window.base == window.tail && window.footprint == 0 && window.bytes(after: window.tail) == 0)
        #expect(window.append(try segment(21...22)))
    }
}

@Suite struct ReplicationLimitsTests {
    @Test func sharesKeepTheWholeWithinItsBounds() {
        let limits = ReplicationLimits()
        for shards in [1, 2, 3, 10, 64] {
            for followersPerShard in 1...3 {
                let followers = shards * followersPerShard
                let shared = limits.shared(shards: shards, followers: followers)
                #expect(shared.batchBytesMax >= limits.batchBytesMin && shared.batchBytesMax <= limits.batchBytesMax)
                #expect(2 * followers * shared.batchBytesMax <= limits.followersBytesMax * 3 / 2)
                #expect(shards * shared.windowBytesMax <= limits.windowsBytesMax)
                #expect(shared.windowBytesMax >= 2 * shared.batchBytesMax)
            }
        }
        #expect(limits.shared(shards: 1, followers: 1).batchBytesMax == limits.batchBytesMax)
    }
}
