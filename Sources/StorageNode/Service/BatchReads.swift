import Core
import DistribKVClient
import LSM
import NIOCore
import Observability
import ServiceSupport
import Shard
import Wire

/// Reads for batches.
enum BatchReads {
    /// Looks keys up and writes a line for each. Blocks.
    static func lines(
        of keys: [ByteBuffer], in replica: ShardReplica, _ account: AnswerAccount, _ metrics: NodeMetrics
    ) -> [BatchLine] {
        var buffer = ByteBuffer()
        var lines: [BatchLine] = []
        lines.reserveCapacity(keys.count)
        var places: [Range<Int>?] = []
        for key in keys {
            let start = buffer.writerIndex
            var refusal: BatchResult?
            do throws(KVError) {
                refusal = try find(key, in: replica, account, metrics, &buffer)
            } catch {
                refusal = .failed(Problem(ofRead: error))
            }
            // A slice taken now would have the buffer copied by the next write; the LF goes out with the line.
            places.append(refusal == nil ? start..<buffer.writerIndex - 1 : nil)
            lines.append(.result(refusal ?? .missing))
        }
        for (index, place) in places.enumerated() {
            guard let place, let line = buffer.getSlice(at: place.lowerBound, length: place.count) else { continue }
            lines[index] = .raw(line)
        }
        return lines
    }

    /// Appends the line of a value that is found.
    /// - Returns: what is answered where there is none.
    private static func find(
        _ key: ByteBuffer, in replica: ShardReplica, _ account: AnswerAccount, _ metrics: NodeMetrics,
        _ buffer: inout ByteBuffer
    ) throws(KVError) -> BatchResult? {
        var refusal: BatchResult?
        var failure: KVError?
        key.withUnsafeReadableBytes { key in
            do throws(KVError) {
                try replica.read(key: key, tier: .disk) { lookup in
                    guard case .value(let value) = lookup else {
                        metrics.misses.increment()
                        refusal = .missing
                        return
                    }
                    metrics.hits.increment()
                    if let problem = account.take(value.bytes.count) {
                        refusal = .failed(problem)
                    } else {
                        BatchResult.writeFound(
                            value.bytes, value.version, ttlMilliseconds: replica.millisecondsLeft(of: value),
                            into: &buffer)
                    }
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return refusal
    }
}
