public import Core
import NIOCore
import Sharding
import Wire

extension KVClient {
    /// Does many operations: splits them by the leaders of their shards, sends each leader its part, at the same time,
    /// and returns one result for each operation, in their order.
    ///
    /// Operations on one key are done in their order, others in any. Each has its own result: what
    /// `KVError` it failed with, as the single request would. Parts that have certainly not been done are sent again,
    /// and parts of nothing but gets, or nothing but puts and deletes without a condition, also where their answer was
    /// lost; other writes fail with `outcomeUnknown` then.
    ///
    /// With ``BatchOptions/isAtomic`` it is all or nothing: where one operation is refused, its result says why, and the
    /// others fail with `batchRefused`.
    ///
    /// Throws `KVError(.invalidArgument)` for an atomic batch with keys of several shards, or more operations or bytes
    /// than it can have; `.overloaded`, `.cancelled`, and `.unavailable` where nobody answers with the topology.
    public func batch(
        _ operations: [KVOperation], options: BatchOptions = .init()
    ) async throws(KVError) -> [Result<KVOperation.Outcome, KVError>] {
        guard !operations.isEmpty else { return [] }
        let topology = try await topology()
        if options.isAtomic { try Self.checkAtomic(operations, topology) }
        try context.gate.enter()
        defer { context.gate.leave() }
        let eventLoop = group.any()
        let promise = eventLoop.makePromise(of: [BatchLine].self)
        let patience = WriteOptions(ack: options.ack, ackTimeout: options.ackTimeout).patience
        let deadline = NIODeadline.now() + (options.timeout ?? requestTimeout) + patience
        let lines: [BatchLine]
        do {
            let context = context
            eventLoop.execute {
                ClientBatch(
                    operations, options, topology, patience: patience, deadline: deadline, context, eventLoop
                ).start(promise)
            }
            lines = try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                // What is under way at nodes may still be done.
                promise.fail(KVError(.cancelled, "the task was cancelled"))
            }
        } catch {
            throw Self.kvError(error)
        }
        let outcomes = zip(operations, lines).map { Self.outcome(of: $0.operation, $1) }
        noteVersions(operations, outcomes, topology)
        return outcomes
    }

    /// Does many writes; one result each, in the same order. Of two writes with one key the later one wins.
    public func writeAll(_ writes: [KVWrite]) async -> [Result<Version, KVError>] {
        let operations = writes.map { write in
            write.value.map { KVOperation.put(write.key, $0, ttl: write.ttl) } ?? .delete(write.key)
        }
        do throws(KVError) {
            return try await batch(operations).map { result in
                switch result {
                case .success(.written(let version)): .success(version)
                case .success: .failure(KVError(.invalidData, "the answer to a write carries no version"))
                case .failure(let error): .failure(error)
                }
            }
        } catch {
            return writes.map { _ in .failure(error) }
        }
    }

    private static func checkAtomic(_ operations: [KVOperation], _ topology: Topology) throws(KVError) {
        guard operations.count <= Limits.batchOperationsMax else {
            throw KVError(
                .invalidArgument,
                "an atomic batch has at most \(Limits.batchOperationsMax) operations, this one \(operations.count)")
        }
        let shards = operations.map { operation in
            operation.operation.key.withUnsafeReadableBytes { topology.position(of: HashSlot(key: $0)) }
        }
        guard let other = shards.firstIndex(where: { $0 != shards[0] }) else { return }
        func shown(_ place: Int) -> String {
            let key = operations[place].operation.key.readableBytesView.prefix(64)
            return "\"\(String(decoding: key, as: UTF8.self))\" (\(topology.shards[shards[place]].name))"
        }
        throw KVError(
            .invalidArgument,
            "an atomic batch has keys of one shard, not \(shown(0)) and \(shown(other)): keys with the same {tag} share one"
        )
    }

    private static func outcome(
        of operation: BatchOperation, _ line: BatchLine
    ) -> Result<KVOperation.Outcome, KVError> {
        do throws(KVError) {
            switch (try line.result(), operation.action) {
            case (.written(let version), .put), (.written(let version), .delete): return .success(.written(version))
            case (.counted(let number, let version), .increment):
                return .success(.counter(KVCounter(number: number, version: version)))
            case (.found(let value, let version, let ttl), .get):
                // A copy, as the bytes are a slice of what was read from the socket and would keep all of that.
                return .success(
                    .value(
                        KVEntry(
                            value: ByteBuffer(bytes: value.readableBytesView), version: version,
                            expiresIn: ttl.map { .milliseconds(Int64(clamping: $0)) })))
            case (.failed(let failure), .get) where failure.is(.notFound): return .success(.value(nil))
            case (.failed(let failure), _): return .failure(Answers.error(failure, operation))
            default: throw KVError(.invalidData, "the answer does not fit the operation: is this a distribKV node?")
            }
        } catch {
            return .failure(error)
        }
    }

    /// Has later reads include what this batch wrote and read.
    private func noteVersions(
        _ operations: [KVOperation], _ outcomes: [Result<KVOperation.Outcome, KVError>], _ topology: Topology
    ) {
        guard let session = context.session else { return }
        var newest = [Version](repeating: .zero, count: topology.shards.count)
        for (operation, outcome) in zip(operations, outcomes) {
            let version: Version? =
                switch outcome {
                case .success(.written(let version)): version
                case .success(.counter(let counter)): counter.version
                case .success(.value(let entry)): entry?.version
                case .failure(let error): error.code == .ackTimeout ? error.version : nil
                }
            guard let version else { continue }
            let shard = operation.operation.key.withUnsafeReadableBytes { topology.position(of: HashSlot(key: $0)) }
            newest[shard] = max(newest[shard], version)
        }
        for (shard, version) in newest.enumerated() where version > .zero {
            session.note(version, in: topology.shards[shard].name)
        }
    }
}
