import Core
import LSM
import NIOCore
import Wire

/// Frames pushed to a follower.
struct ApplyRequest: Sendable {
    var frames: [LogFrame]
    var leaderTerm: UInt64
    /// Nothing but the term is wanted: that can be noted also when a failed write has stopped the writer.
    var isTermOnly = false
    var completion: @Sendable (ApplyOutcome) -> Void
}

extension WriterCore {
    /// Applies pushed frames: exactly once, in order, all checked before the first is written.
    mutating func apply(_ request: ApplyRequest) -> ApplyOutcome {
        do throws(KVError) {
            if let failure, !request.isTermOnly { throw failure }
            let fresh = try admit(request)
            var start = fresh.startIndex
            while start < fresh.endIndex {
                let end = joinEnd(of: fresh, from: start)
                try applyJoined(fresh[start..<end])
                start = end
            }
            return ApplyOutcome(position: position, failure: nil)
        } catch {
            return ApplyOutcome(position: position, failure: error)
        }
    }

    /// The frames that are new to this replica, after every check that can be made.
    private mutating func admit(_ request: ApplyRequest) throws(KVError) -> ArraySlice<LogFrame> {
        if let promise = try terms.promiseToTake(batchesOf: request.leaderTerm) { try keep(promise) }
        var end = position
        var freshFrom = request.frames.startIndex
        for (index, frame) in request.frames.enumerated() {
            if frame.position.lsn <= end.lsn, freshFrom == index {
                try checkKnown(frame.position)
                freshFrom = index + 1
                continue
            }
            try check(frame, follows: end, leaderTerm: request.leaderTerm)
            end = frame.position
        }
        return request.frames[freshFrom...]
    }

    /// A frame at or below this replica's position must be one it has applied.
    private func checkKnown(_ pushed: LogPosition) throws(KVError) {
        let own = log.position(at: pushed.lsn)
        guard own.map({ $0 == pushed }) ?? (pushed.term <= position.term && pushed.version < position.version) else {
            let has = own.map { "term \($0.term) version \($0.version)" } ?? "an older term"
            throw KVError(
                .diverged,
                "\(configuration.name) has another history: at lsn \(pushed.lsn) it has \(has), "
                    + "the leader term \(pushed.term) version \(pushed.version)")
        }
    }

    private func check(_ frame: LogFrame, follows previous: LogPosition, leaderTerm: UInt64) throws(KVError) {
        let next = frame.position
        guard next.lsn == previous.lsn + 1 else {
            throw KVError(
                .logMismatch,
                "\(configuration.name) is at lsn \(previous.lsn), the batch at lsn \(next.lsn) does not follow")
        }
        guard next.term >= previous.term, next.version > previous.version else {
            throw KVError(
                .diverged,
                "the batch at lsn \(next.lsn) goes back from term \(previous.term) version \(previous.version) "
                    + "to term \(next.term) version \(next.version)")
        }
        guard next.term <= leaderTerm else {
            throw KVError(.corrupted, "a leader of term \(leaderTerm) pushes a batch of term \(next.term)")
        }
        let error: KVError? = frame.batch.withUnsafeReadableBytes { bytes in
            do throws(KVError) {
                try LogBatch.validate(bytes, is: next, after: previous)
                return nil
            } catch {
                return error
            }
        }
        if let error { throw error }
    }

    private func joinEnd(of frames: ArraySlice<LogFrame>, from start: Int) -> Int {
        var end = start
        var bytes = 0
        while end < frames.endIndex, end - start < configuration.applyBatchesMax {
            if end > start, stops.contains(frames[end - 1].position.lsn) { break }
            bytes += frames[end].batch.readableBytes
            if end > start, bytes > configuration.applyBytesMax { break }
            end += 1
        }
        return end
    }

    /// One RocksDB write for all of them; each keeps its position record, so the log can be taken apart again.
    private mutating func applyJoined(_ frames: ArraySlice<LogFrame>) throws(KVError) {
        var builder = WriteBatchBuilder(
            reservedBytes: LogFrame.headerBytes, capacity: frames.reduce(0) { $0 + $1.batch.readableBytes })
        var batches: [CommitLog.Batch] = []
        batches.reserveCapacity(frames.count)
        for frame in frames {
            let sequence = nextSequence + UInt64(builder.count)
            builder.append(recordsOf: frame.batch)
            var encoded = ByteBufferAllocator().buffer(capacity: frame.encodedBytes)
            frame.encode(into: &encoded)
            batches.append(CommitLog.Batch(position: frame.position, frame: encoded, sequence: sequence))
        }
        let records = builder.count
        try write(builder.finish(), records: records, batches: batches)
    }
}
