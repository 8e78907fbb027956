import Core
import LSM
import NIOCore
import Wire

/// The log on its way from leader to follower: frames of batches of 32 puts.
let replicationBenchmarks = [
    Benchmark("log frame encoded", iterations: 500) {
        let frame = LogFrame(position: position(1), batch: Fixture.batch(puts: 32))
        var buffer = ByteBuffer()
        return { _ in
            buffer.clear()
            frame.encode(into: &buffer)
            keep(buffer)
        }
    },
    Benchmark("log frame decoded", iterations: 500) {
        var encoded = ByteBuffer()
        LogFrame(position: position(1), batch: Fixture.batch(puts: 32)).encode(into: &encoded)
        return { _ in
            var rest = encoded
            keep(try LogFrame.decode(from: &rest))
        }
    },
    Benchmark("16 batches merged into one", iterations: 100) {
        let batch = Fixture.batch(puts: 32)
        return { _ in
            var builder = WriteBatchBuilder(capacity: 16 * batch.readableBytes)
            for _ in 0..<16 { builder.append(recordsOf: batch) }
            keep(builder.finish())
        }
    },
    Benchmark("CRC-32C of 4 KiB", iterations: 500) {
        let bytes = [UInt8](repeating: 98, count: 4_096)
        return { _ in bytes.withUnsafeBytes { keep(CRC32C.checksum($0)) } }
    },
]

private func position(_ lsn: UInt64) -> LogPosition {
    LogPosition(term: 1, lsn: lsn, version: Version(rawValue: 1 << 20))
}
