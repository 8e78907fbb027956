import Core
import NIOCore
import TestSupport
import Testing
import Wire

@Suite struct LogFrameTests {
    private func frame(term: UInt64, lsn: UInt64, version: UInt64, _ batch: [UInt8]) -> LogFrame {
        LogFrame(
            position: LogPosition(term: term, lsn: lsn, version: Version(rawValue: version)),
            batch: ByteBuffer(bytes: batch))
    }

    private func encode(_ frames: [LogFrame]) -> [UInt8] {
        var buffer = ByteBuffer()
        for frame in frames { frame.encode(into: &buffer) }
        return Array(buffer.readableBytesView)
    }

    /// Every frame up to the end or the first error.
    private func decode(_ bytes: [UInt8]) -> (frames: [LogFrame], isCorrupt: Bool, rest: Int) {
        var buffer = ByteBuffer(bytes: bytes)
        var frames: [LogFrame] = []
        do {
            while let frame = try LogFrame.decode(from: &buffer) { frames.append(frame) }
        } catch {
            return (frames, true, buffer.readableBytes)
        }
        return (frames, false, buffer.readableBytes)
    }

    private var samples: [LogFrame] {
        [
            frame(term: 1, lsn: 1, version: 0x0123_4567_89AB_CDEF, []),
            frame(term: 1, lsn: 2, version: 0x0123_4567_89AB_CDF0, Array("hello, follower".utf8)),
            frame(term: .max, lsn: .max, version: .max, (0..<200).map { UInt8($0) }),
        ]
    }

    /// The checksum in these bytes was computed by another implementation of CRC-32C.
    @Test func bytesAreStable() {
        let golden: [UInt8] = [
            0x03, 0x00, 0x00, 0x00, 0xE2, 0xA2, 0xF8, 0x6B,
            0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x2A, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01,
            0x61, 0x62, 0x63,
        ]
        let sample = frame(term: 2, lsn: 298, version: 0x0123_4567_89AB_CDEF, Array("abc".utf8))
        #expect(encode([sample]) == golden)
        #expect(decode(golden).frames == [sample])
        #expect(sample.encodedBytes == golden.count)
    }

    @Test func framesFollowOneAnother() {
        let decoded = decode(encode(samples))
        #expect(decoded.frames == samples)
        #expect(!decoded.isCorrupt)
        #expect(decoded.rest == 0)
    }

    @Test func encodingStartsWhereTheBufferEnds() throws {
        var buffer = ByteBuffer(string: "before")
        samples[1].encode(into: &buffer)
        buffer.moveReaderIndex(forwardBy: 3)
        samples[2].encode(into: &buffer)
        buffer.moveReaderIndex(forwardBy: 3)
        #expect(try LogFrame.decode(from: &buffer) == samples[1])
        #expect(try LogFrame.decode(from: &buffer) == samples[2])
    }

    @Test func truncationAtEveryByteWaitsForMore() {
        let bytes = encode(samples)
        var ends = [0]
        for sample in samples { ends.append(ends[ends.count - 1] + sample.encodedBytes) }
        for length in 0..<bytes.count {
            let whole = ends.lastIndex { $0 <= length } ?? 0
            let decoded = decode(Array(bytes[..<length]))
            guard decoded.frames == Array(samples[..<whole]), !decoded.isCorrupt, decoded.rest == length - ends[whole]
            else {
                Issue.record("cut to \(length) bytes: \(decoded)")
                return
            }
        }
    }

    /// CRC-32C finds every error of up to three bits at this length, so no damaged frame may come out at all.
    @Test func flippedBitsNeverMakeAnotherFrame() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let bytes = encode(samples)
        let (samples, bits) = (samples, bytes.count * 8)
        // Every single bit once, and then three at random.
        for round in 0..<2 * bits {
            var damaged = bytes
            let flips = round < bits ? [round] : (0..<3).map { _ in Int.random(in: 0..<bits, using: &generator) }
            for bit in flips { damaged[bit / 8] ^= 1 << UInt8(bit % 8) }
            let decoded = decode(damaged)
            // What comes out are the frames before the damage, unchanged, and not all of them.
            guard decoded.frames == Array(samples.prefix(decoded.frames.count)),
                damaged == bytes || decoded.frames.count < samples.count
            else {
                Issue.record("seed \(seed) round \(round) bits \(flips): \(decoded)")
                return
            }
        }
    }

    @Test func randomBytesAreRefusedOrWaitForMore() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<5_000 {
            var bytes = (0..<Int.random(in: 0...120, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            // Small lengths, or nearly every round would stop at the length check.
            if bytes.count > 4 { bytes.replaceSubrange(1..<4, with: [0, 0, 0]) }
            let decoded = decode(bytes)
            guard decoded.frames.isEmpty else {
                Issue.record("seed \(seed): \(bytes)")
                return
            }
        }
    }

    @Test func anAbsurdLengthIsCorruptAtOnce() throws {
        var bytes = encode([samples[1]])
        bytes.replaceSubrange(0..<4, with: [0x01, 0x00, 0x00, 0x04])
        let error = #expect(throws: KVError.self) {
            var buffer = ByteBuffer(bytes: bytes)
            _ = try LogFrame.decode(from: &buffer)
        }
        #expect(error?.code == .corrupted)
        // One byte less is a length that may still come.
        bytes.replaceSubrange(0..<4, with: [0x00, 0x00, 0x00, 0x04])
        #expect(!decode(bytes).isCorrupt)
    }
}
