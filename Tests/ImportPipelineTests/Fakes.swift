import Core
import DistribKVClient
import ImportPipeline
import NIOCore
import Synchronization
import TestSupport

/// A text in chunks of a given size.
final class TextSource: ImportSource {
    private let chunks: [ByteBuffer]
    private let position = Mutex(0)
    private let failsAtEnd: Bool

    init(_ text: [UInt8], chunkBytes: Int = 1_000, failsAtEnd: Bool = false) {
        chunks = stride(from: 0, to: text.count, by: chunkBytes).map {
            ByteBuffer(bytes: text[$0..<min($0 + chunkBytes, text.count)])
        }
        self.failsAtEnd = failsAtEnd
    }

    convenience init(_ text: String, chunkBytes: Int = 1_000) { self.init(Array(text.utf8), chunkBytes: chunkBytes) }

    func next() async throws(KVError) -> ByteBuffer? {
        let index = position.withLock { position in
            position += 1
            return position - 1
        }
        if index < chunks.count { return chunks[index] }
        if failsAtEnd { throw KVError(.invalidArgument, "the disk is gone") }
        return nil
    }
}

/// A store in memory that a test can make fail, and that applies a batch in a shuffled order.
final class MemorySink: ImportSink {
    private struct State {
        var data: [[UInt8]: [UInt8]] = [:]
        var random: SeededGenerator
        var bytesInFlight = 0
        var bytesInFlightPeak = 0
        var batchesInFlight = 0
        var batchesInFlightPeak = 0
        var batchRecordsPeak = 0
    }

    private let state: Mutex<State>
    private let failure: @Sendable (KVWrite) -> KVError?

    init(seed: UInt64 = 1, failure: @escaping @Sendable (KVWrite) -> KVError? = { _ in nil }) {
        state = Mutex(State(random: SeededGenerator(seed: seed)))
        self.failure = failure
    }

    var data: [[UInt8]: [UInt8]] { state.withLock { $0.data } }
    var bytesInFlightPeak: Int { state.withLock { $0.bytesInFlightPeak } }
    var batchesInFlightPeak: Int { state.withLock { $0.batchesInFlightPeak } }
    var batchRecordsPeak: Int { state.withLock { $0.batchRecordsPeak } }

    func writeAll(_ pairs: [KVWrite]) async -> [Result<Version, KVError>] {
        let bytes = pairs.reduce(0) { $0 + $1.key.count + ($1.value?.readableBytes ?? 0) }
        let pauses = state.withLock { state in
            state.bytesInFlight += bytes
            state.bytesInFlightPeak = max(state.bytesInFlightPeak, state.bytesInFlight)
            state.batchesInFlight += 1
            state.batchesInFlightPeak = max(state.batchesInFlightPeak, state.batchesInFlight)
            state.batchRecordsPeak = max(state.batchRecordsPeak, pairs.count)
            return Int.random(in: 0..<20, using: &state.random)
        }
        for _ in 0..<pauses { await Task.yield() }
        var results = [Result<Version, KVError>](repeating: .success(.zero), count: pairs.count)
        state.withLock { state in
            for index in pairs.indices.shuffled(using: &state.random) {
                if let error = failure(pairs[index]) {
                    results[index] = .failure(error)
                } else {
                    state.data[pairs[index].key] = pairs[index].value.map { Array($0.readableBytesView) }
                }
            }
            state.bytesInFlight -= bytes
            state.batchesInFlight -= 1
        }
        return results
    }
}
