import Configuration
import Core
import DistribKVClient
import HTTPServer
import LSM
import NIOCore
import Observability
import ServiceSupport
import Shard
import Sharding
import Wire

/// The operations of one batch on the shards that this node leads: each shard's writes as one submission to its
/// writer, shards at the same time, and a read before, between or behind the writes of its key as its place demands.
///
/// Belongs to its event loop.
final class LocalBatch {
    /// What a batch asks for.
    struct Demands {
        var isAtomic: Bool
        var guarantees: Guarantees
    }

    private let node: Node
    private let view: NodeView
    private let eventLoop: any EventLoop
    private let operations: [BatchOperation]
    private let demands: Demands
    private let account: AnswerAccount
    private let valueBytesMax: Int
    private let completion: ([BatchLine]) -> Void
    /// By the place in `chosen`.
    private var lines: [BatchLine?]
    private var missing: Int

    /// Carries the operations out; `completion` is called once on `eventLoop`, with a line for each, in their order.
    /// - Parameters:
    ///   - operations: those on shards that `view` does not lead here are answered `not-leader`.
    ///   - account: of the whole batch; to be kept until the lines have gone out.
    static func run(
        _ operations: [BatchOperation], _ demands: Demands, node: Node, view: NodeView, _ account: AnswerAccount,
        on eventLoop: any EventLoop, completion: @escaping ([BatchLine]) -> Void
    ) {
        guard !operations.isEmpty else { return completion([]) }
        LocalBatch(
            operations, demands, node: node, view: view, account, on: eventLoop, completion: completion
        ).start()
    }

    private init(
        _ operations: [BatchOperation], _ demands: Demands, node: Node, view: NodeView, _ account: AnswerAccount,
        on eventLoop: any EventLoop, completion: @escaping ([BatchLine]) -> Void
    ) {
        self.account = account
        self.operations = operations
        self.demands = demands
        self.node = node
        self.view = view
        self.eventLoop = eventLoop
        self.completion = completion
        valueBytesMax = node.configuration.storage.valueBytesMax
        lines = Array(repeating: nil, count: operations.count)
        missing = operations.count
    }

    // MARK: Splitting

    /// The operations of one shard, by their places, rising.
    private struct ShardPart {
        let position: Int
        /// Reads of keys that the batch does not write before: done first, so that they see no later write of it.
        var reads: [Int] = []
        /// The rest, for the writer.
        var ordered: [Int] = []
    }

    private func start() {
        var parts: [ShardPart?] = Array(repeating: nil, count: view.topology.shards.count)
        var defects: [(Int, Problem)] = []
        for (index, operation) in operations.enumerated() {
            if let defect = operation.defect(valueBytesMax: valueBytesMax) {
                defects.append((index, defect))
                continue
            }
            let position = operation.key.withUnsafeReadableBytes { view.topology.position(of: HashSlot(key: $0)) }
            parts[position, default: ShardPart(position: position)].ordered.append(index)
        }
        if demands.isAtomic, !defects.isEmpty { return refuseAll(defects) }
        // What is answered at once must not complete the batch while the rest is still to be started.
        missing += 1
        for (index, problem) in defects { settle(index, .failed(problem)) }
        for part in parts {
            guard var part else { continue }
            if !demands.isAtomic { separateReads(&part) }
            start(part)
        }
        missing -= 1
        completeIfDone()
    }

    /// An atomic batch with operations that cannot be done.
    private func refuseAll(_ defects: [(Int, Problem)]) {
        let problems = Dictionary(uniqueKeysWithValues: defects)
        for index in operations.indices {
            settle(index, .failed(problems[index] ?? Problem(WriteRefusal.otherRefused)))
        }
    }

    private func separateReads(_ part: inout ShardPart) {
        guard part.ordered.contains(where: { operations[$0].isRead }) else { return }
        var written: Set<ByteBuffer> = []
        var ordered: [Int] = []
        for index in part.ordered {
            let operation = operations[index]
            if operation.isRead, !written.contains(operation.key) {
                part.reads.append(index)
            } else {
                if !operation.isRead { written.insert(operation.key) }
                ordered.append(index)
            }
        }
        part.ordered = ordered
    }

    // MARK: Running

    private func start(_ part: ShardPart) {
        guard let replica = view.replicas[part.position], view.leads[part.position] else {
            let problem =
                view.leads[part.position]
                ? view.leaderOutOfService(at: part.position)
                : Problem(
                    .notLeader, "\(view.topology.shards[part.position].name) is led by another node: send it there.")
            return settle(part.reads + part.ordered, .failed(problem))
        }
        guard replica.role.isLeader else {
            return settle(part.reads + part.ordered, .failed(view.leaderOutOfService(at: part.position)))
        }
        guard !part.reads.isEmpty else { return submit(part, to: replica) }
        let keys = part.reads.map { operations[$0].key }
        let node = node
        let account = account
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        node.metrics.diskReads.increment(by: UInt64(keys.count))
        node.readers.run(on: eventLoop) {
            BatchReads.lines(of: keys, in: replica, account, node.metrics)
        }.whenComplete { result in
            let batch = bound.value
            switch result {
            case .success(let lines):
                for (index, line) in zip(part.reads, lines) { batch.settle(index, line) }
            case .failure(let error):
                batch.settle(part.reads, .failed(Problem(error)))
            }
            batch.submit(part, to: replica)
        }
    }

    private func submit(_ part: ShardPart, to replica: ShardReplica) {
        guard !part.ordered.isEmpty else { return }
        let indices = part.ordered
        let demand: AckDemand?
        do throws(Problem) {
            demand = try AckDemand(
                demands.guarantees, defaultAck: node.configuration.replication.defaultAck,
                view.topology.shards[part.position])
            if demand != nil { try AckDemand.reserve(replica) }
        } catch {
            return settle(indices, .failed(error))
        }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let eventLoop = eventLoop
        do throws(KVError) {
            try replica.submit(indices.map { operations[$0].writeOperation }, isAtomic: demands.isAtomic) { receipt in
                eventLoop.execute { bound.value.received(receipt, for: indices, demand, replica) }
            }
        } catch {
            if demand != nil { replica.acks.release() }
            node.metrics.failedWrites.increment(by: UInt64(indices.count))
            settle(indices, .failed(Problem(error)))
        }
    }

    private func received(
        _ receipt: WriteReceipt, for indices: [Int], _ demand: AckDemand?, _ replica: ShardReplica
    ) {
        let metrics = node.metrics
        metrics.writes.increment(by: UInt64(receipt.committed))
        metrics.refusedWrites.increment(by: UInt64(receipt.refused))
        metrics.failedWrites.increment(by: UInt64(indices.count - receipt.settled))
        guard let demand, receipt.committed > 0 else {
            if demand != nil { replica.acks.release() }
            return settle(indices, receipt, missed: nil)
        }
        BatchAckWait(demand, replica, metrics, eventLoop).start(lsn: receipt.position.lsn, writes: receipt.committed) {
            self.settle(indices, receipt, missed: $0)
        }
    }

    // MARK: Settling

    /// - Parameter missed: why the writes that were made are not acknowledged; nil where they are.
    private func settle(_ indices: [Int], _ receipt: WriteReceipt, missed: Problem?) {
        for (place, index) in indices.enumerated() {
            lines[index] = .result(LocalBatch.result(of: place, receipt, missed: missed))
        }
        missing -= indices.count
        completeIfDone()
    }

    private static func result(of place: Int, _ receipt: WriteReceipt, missed: Problem?) -> BatchResult {
        if let version = receipt.version(at: place) {
            if let missed { return .failed(missed, version: version) }
            return receipt.number(at: place).map { .counted($0, version) } ?? .written(version)
        }
        if let refusal = receipt.refusal(at: place) { return .failed(Problem(refusal)) }
        if let read = receipt.read(at: place) {
            return read.map { .found($0.value, $0.version, ttlMilliseconds: $0.millisecondsLeft) } ?? .missing
        }
        return .failed(Problem(receipt.failure ?? KVError(.internalError, "the write has no outcome")))
    }

    private func settle(_ indices: [Int], _ result: BatchResult) {
        for index in indices { lines[index] = .result(result) }
        missing -= indices.count
        completeIfDone()
    }

    private func settle(_ index: Int, _ result: BatchResult) { settle(index, .result(result)) }

    private func settle(_ index: Int, _ line: BatchLine) {
        lines[index] = line
        missing -= 1
        completeIfDone()
    }

    private func completeIfDone() {
        guard missing == 0 else { return }
        completion(lines.compactMap(\.self))
    }
}

extension BatchOperation {
    fileprivate var writeOperation: WriteOperation {
        let operation: WriteOperation =
            switch action {
            case .get: .read(key: key)
            case .put(let value, nil): .put(key: key, value: value)
            case .put(let value, .some(let ttl)): .expiringPut(key: key, value: value, milliseconds: ttl)
            case .delete: .delete(key: key)
            case .increment(let amount): .increment(key: key, by: amount)
            }
        return condition.map { .conditional($0, operation) } ?? operation
    }
}

extension Array {
    fileprivate subscript<Wrapped>(_ index: Int, default value: @autoclosure () -> Wrapped) -> Wrapped
    where Element == Wrapped? {
        get { self[index] ?? value() }
        set { self[index] = newValue }
    }
}
