import Core
import LSM
import NIOCore
import TestSupport
import Wire

/// The replication log's frames.
struct FrameTarget: FuzzTarget {
    let words = ["\0\0\0\0", "\u{7f}\u{7f}\u{7f}\u{7f}", "\u{1}\0\0\0"]

    let seeds: [[UInt8]] = {
        var streams: [[UInt8]] = [[]]
        var random = SeededGenerator(seed: 1)
        for count in 1...4 {
            var stream = ByteBuffer()
            for number in 0..<UInt64(count) {
                frame(number, random.bytes(Int(random.next() % 200))).encode(into: &stream)
            }
            streams.append(Array(stream.readableBytesView))
        }
        return streams
    }()

    private static func frame(_ number: UInt64, _ batch: [UInt8]) -> LogFrame {
        LogFrame(
            position: LogPosition(term: number / 2, lsn: number, version: Version(rawValue: number << 16)),
            batch: ByteBuffer(bytes: batch))
    }

    func run(_ input: [UInt8]) throws {
        var stream = ByteBuffer(bytes: input)
        while true {
            let before = stream
            let frame: LogFrame?
            do { frame = try LogFrame.decode(from: &stream) } catch let error as KVError {
                return try expectClear(error.message)
            }
            guard let frame else {
                try expect(stream.readerIndex == before.readerIndex, "bytes are gone and there is no frame")
                break
            }
            var again = ByteBuffer()
            frame.encode(into: &again)
            try expect(
                before.readableBytesView.starts(with: again.readableBytesView), "it is not written as it was read")
            try expect(stream.readableBytes == before.readableBytes - frame.encodedBytes, "it took another length")
        }
        // And what is written is read, whatever it holds.
        var written = ByteBuffer()
        let frame = FrameTarget.frame(UInt64(input.count), input)
        frame.encode(into: &written)
        try expect(try LogFrame.decode(from: &written) == frame && written.readableBytes == 0, "it does not come back")
    }
}

/// Write batches, which followers take from the network.
struct WriteBatchTarget: FuzzTarget {
    let words = ["\0", "\u{1}", "\u{2}", "\u{7f}", "\u{1}\u{1}\u{1}", "\0\0\0\0\0\0\0\0\0\0\0\0"]

    let seeds: [[UInt8]] = {
        var batches: [[UInt8]] = [[], [UInt8](repeating: 0, count: 12)]
        var random = SeededGenerator(seed: 2)
        for count in 1...5 {
            var batch = WriteBatchBuilder()
            for _ in 0..<count {
                let (key, value) = (random.bytes(1 + Int(random.next() % 20)), random.bytes(Int(random.next() % 200)))
                key.withUnsafeBytes { key in
                    value.withUnsafeBytes { value in
                        if random.next() % 4 == 0 {
                            batch.delete(key: key)
                        } else {
                            batch.put(key: key, version: Version(rawValue: random.next()), value: value)
                        }
                    }
                }
            }
            batches.append(Array(batch.finish().readableBytesView))
        }
        return batches
    }()

    func run(_ input: [UInt8]) throws {
        try input.withUnsafeBytes { bytes in
            var end = WriteBatchBuilder.headerBytes
            do throws(KVError) {
                var reader = try WriteBatchReader(bytes)
                while let record = try reader.next() {
                    guard record.offset == end, !record.key.isEmpty, reader.offset <= bytes.count else {
                        throw KVError(.internalError, "the record at \(record.offset) is not where the one before ends")
                    }
                    end = reader.offset
                    // Reading it finds what is out of bounds, where the sanitizer looks on.
                    var sum = record.key.reduce(0) { $0 &+ $1 }
                    if let value = record.value { sum = value.reduce(sum) { $0 &+ $1 } }
                    if sum == 7, end == 0 { throw KVError(.internalError, "never") }
                }
                guard end == bytes.count else {
                    throw KVError(.internalError, "\(bytes.count - end) bytes are left over")
                }
            } catch {
                guard error.code == .corrupted else { throw FuzzDefect(error.message) }
                try expectClear(error.message)
            }
        }
    }
}

/// Values as they are stored.
struct ValueTarget: FuzzTarget {
    let words = ["\0", "\u{1}", "\0\0\0\0\0\0\0\0\0"]
    let seeds: [[UInt8]] = [
        [], [0], Array(repeating: 0, count: 9), [0, 1, 2, 3, 4, 5, 6, 7, 8, 65, 66],
        [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 65],
    ]

    func run(_ input: [UInt8]) throws {
        input.withUnsafeBytes { bytes in
            guard let value = StoredValue(decoding: bytes) else { return }
            _ = value.bytes.reduce(0) { $0 &+ $1 }
        }
        let number = input.reduce(7) { ($0 &* 31) &+ UInt64($1) }
        for expires in [nil, number, 0, .max] { try check(input, Version(rawValue: number), expires: expires) }
    }

    private func check(_ input: [UInt8], _ version: Version, expires: UInt64?) throws {
        var batch = WriteBatchBuilder()
        try input.withUnsafeBytes { value in
            [UInt8(65)].withUnsafeBytes { batch.put(key: $0, version: version, expires: expires, value: value) }
            try batch.finish().withUnsafeReadableBytes { bytes in
                var reader = try WriteBatchReader(bytes)
                guard let record = try reader.next(), let stored = record.value,
                    let read = StoredValue(decoding: stored)
                else { throw FuzzDefect("a value that was written cannot be read") }
                try expect(Array(record.key) == [KeySpace.user, 65], "its key is \(Array(record.key))")
                try expect(
                    read.version == version && read.expiresMilliseconds == expires && Array(read.bytes) == input,
                    "the value does not come back")
                let end = try reader.next()
                try expect(end == nil, "there are two of it")
            }
        }
    }
}
