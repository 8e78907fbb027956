import Configuration
import Core
import DistribKVClient
import HTTPServer
import NIOCore
import NIOHTTP1
import NIOPosix
import Observability
import ServiceSupport
import Shard
import Sharding
import Wire

/// `POST /batch` on one event loop of a storage node.
final class BatchHandler {
    /// Batches in work on one event loop; one more is answered 503.
    static let inFlightMax = 64
    /// Smaller ones are read on the event loop, larger ones would hold it up.
    private static let inlineBytesMax = 256 << 10

    let node: Node
    let admin: ShardAdmin
    let eventLoop: any EventLoop
    private(set) var view: NodeView
    private var inFlight = 0

    init(node: Node, admin: ShardAdmin, view: NodeView, eventLoop: any EventLoop) {
        self.node = node
        self.admin = admin
        self.view = view
        self.eventLoop = eventLoop
    }

    /// Goes by `view` from now on.
    func use(_ view: NodeView) { self.view = view }

    /// - Returns: false where the request is for something else.
    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) -> Bool {
        do throws(Problem) {
            guard let asked = try BatchRequest(request) else { return false }
            guard request.method == .POST else {
                exchange.respond(HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: "POST"))
                return true
            }
            try begin()
            read(request.body, asked, exchange)
        } catch {
            exchange.respond(HTTPResponse(problem: error))
        }
        return true
    }

    // MARK: Short forms

    /// - Returns: false where the request is for something else.
    func handleShortForm(_ request: HTTPRequest, _ exchange: HTTPExchange) -> Bool {
        do throws(Problem) {
            switch try ShortForm.asked(by: request) {
            case nil: return false
            case .refused(let response): exchange.respond(response)
            case .form(.get(let operation, let asked)), .form(.set(let operation, let asked)):
                try begin()
                let topology = view.topology
                let shard = operation.key.withUnsafeReadableBytes { topology.position(of: HashSlot(key: $0)) }
                let (body, lines) = operation.asBatch
                run(.success(lines), body, asked, exchange) { lines in
                    let result = (try? lines.first?.result()) ?? .failed(Problem(.internalError, "There is no result."))
                    return HTTPResponse(shortForm: result, shardIndex: topology.shards[shard].index)
                }
            case .form(.purge): purge(exchange)
            }
        } catch {
            exchange.respond(HTTPResponse(problem: error))
        }
        return true
    }

    private func purge(_ exchange: HTTPExchange) {
        let (node, view, eventLoop) = (node, view, eventLoop)
        let purged = eventLoop.makeFutureWithTask {
            HTTPResponse(purged: try await node.purge(by: view, on: eventLoop))
        }
        exchange.respond(purged) { HTTPResponse(problem: Problem($0)) }
    }

    // MARK: Reading

    private typealias Lines = [(operation: BatchOperation, line: Range<Int>)]

    private func begin() throws(Problem) {
        guard inFlight < BatchHandler.inFlightMax else {
            throw Problem(.overloaded, "Too many batches are in work here: try again later.")
        }
        inFlight += 1
        node.metrics.batches.increment()
    }

    private func read(_ body: ByteBuffer, _ asked: BatchRequest, _ exchange: HTTPExchange) {
        let parse = { @Sendable () -> Result<Lines, Problem> in
            do throws(Problem) {
                return .success(try BatchOperation.read(body, countMax: Limits.batchOperationsMax))
            } catch {
                return .failure(error)
            }
        }
        guard body.readableBytes > BatchHandler.inlineBytesMax else { return run(parse(), body, asked, exchange) }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { parse() }.whenComplete { result in
            let lines = (try? result.get()) ?? .failure(Problem(.unavailable, "This node is shutting down."))
            bound.value.run(lines, body, asked, exchange)
        }
    }

    // MARK: Running

    private func run(
        _ lines: Result<Lines, Problem>, _ body: ByteBuffer, _ asked: BatchRequest, _ exchange: HTTPExchange,
        answer: @escaping ([BatchLine]) -> HTTPResponse = BatchHandler.ndjson
    ) {
        do throws(Problem) {
            let lines = try lines.get()
            let operations = lines.map(\.operation)
            if asked.isAtomic { try checkAtomic(operations) }
            node.metrics.batchOperations.increment(by: UInt64(operations.count))
            let account = AnswerAccount(
                node.answerBudget,
                bytesMax: Limits.batchBytesMax(valueBytesMax: node.configuration.storage.valueBytesMax))
            let completion = { (lines: [BatchLine]) in
                self.end(answer(lines), exchange)
                withExtendedLifetime(account) {}
            }
            let demands = LocalBatch.Demands(isAtomic: asked.isAtomic, guarantees: asked.guarantees)
            guard asked.forwards, !leadsAll(operations) else {
                return LocalBatch.run(
                    operations, demands, node: node, view: view, account, on: eventLoop, completion: completion)
            }
            SplitBatch(lines, body, asked, account, handler: self).start(completion: completion)
        } catch {
            end(HTTPResponse(problem: error), exchange)
        }
    }

    private func checkAtomic(_ operations: [BatchOperation]) throws(Problem) {
        let topology = view.topology
        try BatchRequest.checkAtomic(operations) { operation in
            let position = operation.key.withUnsafeReadableBytes { topology.position(of: HashSlot(key: $0)) }
            return (position: position, name: topology.shards[position].name)
        }
    }

    private func leadsAll(_ operations: [BatchOperation]) -> Bool {
        view.leads.allSatisfy(\.self)
            || operations.allSatisfy { operation in
                view.leads[operation.key.withUnsafeReadableBytes { view.topology.position(of: HashSlot(key: $0)) }]
            }
    }

    // MARK: Answering

    private static func ndjson(_ lines: [BatchLine]) -> HTTPResponse {
        var body = ByteBuffer()
        body.reserveCapacity(lines.count * 48)
        for line in lines { line.write(into: &body) }
        return HTTPResponse(ndjson: body)
    }

    private func end(_ response: HTTPResponse, _ exchange: HTTPExchange) {
        inFlight -= 1
        exchange.respond(response)
    }
}

/// A batch with operations on shards that other nodes lead. Confined to its event loop.
private final class SplitBatch: BatchEnvironment {
    private let handler: BatchHandler
    private let operations: [BatchOperation]
    private let places: [Range<Int>]
    private let slots: [HashSlot]
    private let body: ByteBuffer
    private let asked: BatchRequest
    private let account: AnswerAccount
    /// A node that answered with a topology newer than ours.
    private var newer: NodeAddress?

    init(
        _ lines: [(operation: BatchOperation, line: Range<Int>)], _ body: ByteBuffer, _ asked: BatchRequest,
        _ account: AnswerAccount, handler: BatchHandler
    ) {
        self.handler = handler
        self.body = body
        self.asked = asked
        self.account = account
        operations = lines.map(\.operation)
        places = lines.map(\.line)
        slots = operations.map { $0.key.withUnsafeReadableBytes { HashSlot(key: $0) } }
    }

    /// How long a leader may take for its part, acknowledgements aside.
    private static let timeout = TimeAmount.seconds(10)

    func start(completion: @escaping ([BatchLine]) -> Void) {
        let waits = TimeAmount.milliseconds(Int64(asked.waitsForMilliseconds))
        BatchRun.start(
            operations.map(BatchProgress.Operation.init), policy: .service, in: self,
            deadline: .now() + SplitBatch.timeout + waits, completion: completion)
    }

    var batchLeaders: [BatchProgress.Leader] { handler.view.topology.shards.map { .node($0.leader) } }

    func batchShard(of operation: Int) -> Int { handler.view.topology.position(of: slots[operation]) }

    func sendBatch(
        _ part: BatchProgress.Part, deadline: NIODeadline, completion: @escaping (BatchAnswer) -> Void
    ) {
        guard part.node != handler.node.address else {
            return LocalBatch.run(
                part.operations.map { operations[$0] },
                LocalBatch.Demands(isAtomic: asked.isAtomic, guarantees: asked.guarantees), node: handler.node,
                view: handler.view, account, on: handler.eventLoop
            ) { completion(.lines($0)) }
        }
        let request = NodeRequest(batch: asked.forwardedTarget, lines: places, of: body, part.operations)
        handler.node.batchConnections.execute(
            request, to: part.node, on: handler.eventLoop, deadline: deadline
        ).assumeIsolated().whenComplete { result in
            switch result {
            case .success(let response):
                if let epoch = response.epoch, epoch > self.handler.view.topology.epoch { self.newer = part.node }
                completion(BatchAnswer(response, count: part.operations.count, from: part.node))
            case .failure(let error): completion(BatchAnswer(error, from: part.node))
            }
        }
    }

    func prepareBatch(forAttemptAfter attempt: Int, completion: @escaping () -> Void) {
        let pause = handler.eventLoop.assumeIsolated().scheduleTask(in: BatchProgress.pause(after: attempt)) {}
        let (admin, newer) = (handler.admin, newer)
        let looked = handler.eventLoop.makeFutureWithTask {
            // Where it is not reached, the topology comes from a peer sooner or later.
            if let newer { _ = try? await admin.spreading.compare(with: newer) }
        }
        pause.futureResult.and(looked).assumeIsolated().whenComplete { _ in completion() }
    }
}
