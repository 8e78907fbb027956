import Core
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// A batch of a client on its way to the leaders. Confined to its event loop.
final class ClientBatch: BatchEnvironment {
    /// Operations and bytes that go to a node with one request; one larger operation goes alone.
    private static let partOperationsMax = 2_048
    private static let partBytesMax = 1 << 20

    private let operations: [KVOperation]
    private let slots: [HashSlot]
    private let target: String
    private let isAtomic: Bool
    private let attemptTimeout: TimeAmount
    private let deadline: NIODeadline
    private let context: RoutingContext
    private let eventLoop: any EventLoop
    private var topology: Topology
    /// Who answered with a newer topology.
    private var newer: NodeAddress?

    init(
        _ operations: [KVOperation], _ options: BatchOptions, _ topology: Topology, patience: TimeAmount,
        deadline: NIODeadline, _ context: RoutingContext, _ eventLoop: any EventLoop
    ) {
        self.operations = operations
        self.topology = topology
        self.context = context
        self.eventLoop = eventLoop
        self.deadline = deadline
        isAtomic = options.isAtomic
        slots = operations.map { $0.operation.key.withUnsafeReadableBytes { HashSlot(key: $0) } }
        target = APIPath.batch(
            isAtomic: options.isAtomic, ack: options.ack,
            timeoutMilliseconds: options.ackTimeout.map { UInt64(max(1, ($0.nanoseconds + 999_999) / 1_000_000)) })
        attemptTimeout = context.writeAttemptTimeout + patience
    }

    func start(_ promise: EventLoopPromise<[BatchLine]>) {
        let policy = BatchProgress.Policy(
            partOperationsMax: isAtomic ? Limits.batchOperationsMax : ClientBatch.partOperationsMax,
            partBytesMax: isAtomic ? .max : ClientBatch.partBytesMax, attemptsMax: context.retry.attemptsMax,
            repeatsPlainWrites: true, repeatsOverloaded: true)
        BatchRun.start(
            operations.map { BatchProgress.Operation($0.operation) }, policy: policy, in: self, deadline: deadline
        ) { promise.succeed($0) }
    }

    // MARK: BatchEnvironment

    var batchLeaders: [BatchProgress.Leader] { topology.shards.map { .node($0.leader) } }

    func batchShard(of operation: Int) -> Int { topology.position(of: slots[operation]) }

    func sendBatch(
        _ part: BatchProgress.Part, deadline: NIODeadline, completion: @escaping (BatchAnswer) -> Void
    ) {
        var body = ByteBuffer()
        body.reserveCapacity(part.operations.reduce(0) { $0 + operations[$1].operation.lineBytesEstimate })
        for operation in part.operations { operations[operation].operation.write(into: &body) }
        let request = NodeRequest(
            method: .POST, target: target, headers: [("content-type", MediaType.ndjson)], body: body)
        context.connections.execute(
            request, to: part.node, on: eventLoop, deadline: min(deadline, .now() + attemptTimeout)
        ).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let response):
                if let epoch = response.epoch, epoch > topology.epoch { newer = part.node }
                completion(BatchAnswer(response, count: part.operations.count, from: part.node))
            case .failure(let error): completion(BatchAnswer(error, from: part.node))
            }
        }
    }

    func prepareBatch(forAttemptAfter attempt: Int, completion: @escaping () -> Void) {
        let wait = context.retry.wait(after: attempt)
        eventLoop.assumeIsolated().scheduleTask(in: wait) { [self] in
            // Whoever has shown a newer topology is asked for it, else several nodes whether they know one.
            let found =
                newer.map { context.topology.refresh(asking: [$0], epoch: topology.epoch + 1, on: eventLoop) }
                ?? context.topology.search(for: topology.epoch + 1, asking: [], on: eventLoop)
            newer = nil
            found.assumeIsolated().whenComplete { [self] result in
                // Where nobody answers, what was known may still be right.
                if case .success(let topology) = result, topology.epoch >= self.topology.epoch {
                    self.topology = topology
                }
                completion()
            }
        }
    }
}

extension RetryPolicy {
    /// The wait before an attempt; half of it is random, so that clients that failed together do not come back together.
    fileprivate func wait(after attempt: Int) -> TimeAmount {
        let doubled = backoffMin.nanoseconds.multipliedReportingOverflow(by: 1 << Int64(min(attempt - 1, 30)))
        let most = doubled.overflow ? backoffMax.nanoseconds : min(doubled.partialValue, backoffMax.nanoseconds)
        return .nanoseconds(.random(in: most / 2...max(most / 2, most)))
    }
}
