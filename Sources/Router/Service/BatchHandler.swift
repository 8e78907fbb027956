import Core
import DistribKVClient
import HTTPServer
import NIOCore
import NIOHTTP1
import NIOPosix
import Observability
import ServiceSupport
import Sharding
import Wire

/// `POST /batch` on one event loop of a router: split by shard, sent to the leaders, answered in order.
final class BatchHandler {
    /// Batches in work on one event loop; one more is answered 503.
    static let inFlightMax = 64
    /// Smaller ones are read on the event loop, larger ones would hold it up.
    private static let inlineBytesMax = 256 << 10

    fileprivate let transport: any NodeTransport
    fileprivate let cluster: ClusterView
    fileprivate let valueBytesMax: Int
    fileprivate let eventLoop: any EventLoop
    private let budget: AnswerBudget
    private let metrics: RouterMetrics
    private let timeout: TimeAmount
    private var inFlight = 0

    init(
        transport: any NodeTransport, cluster: ClusterView, metrics: RouterMetrics, budget: AnswerBudget,
        configuration: RouterConfiguration, eventLoop: any EventLoop
    ) {
        self.transport = transport
        self.cluster = cluster
        self.metrics = metrics
        self.budget = budget
        valueBytesMax = configuration.valueBytesMax
        self.eventLoop = eventLoop
        timeout = configuration.proxyTimeout
    }

    /// - Returns: false where the request is for something else.
    func handle(_ request: HTTPRequest, for router: RouterHandler, _ exchange: HTTPExchange) -> Bool {
        do throws(Problem) {
            guard let asked = try BatchRequest(request) else { return false }
            guard request.method == .POST else {
                exchange.respond(HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: "POST"))
                return true
            }
            guard asked.forwards else {
                throw Problem(.badRequest, "A router leads no shard, so that it has to forward: leave forward out.")
            }
            try begin()
            read(request.body, asked, router, exchange)
        } catch {
            metrics.refused.increment()
            exchange.respond(HTTPResponse(problem: error))
        }
        return true
    }

    /// - Returns: false where the request is for something else.
    func handleShortForm(_ request: HTTPRequest, for router: RouterHandler, _ exchange: HTTPExchange) -> Bool {
        do throws(Problem) {
            switch try ShortForm.asked(by: request) {
            case nil: return false
            case .refused(let response): exchange.respond(response)
            case .form(.get(let operation, let asked)), .form(.set(let operation, let asked)):
                try begin()
                let topology = router.table.topology
                let shard = operation.key.withUnsafeReadableBytes { topology.position(of: HashSlot(key: $0)) }
                let (body, lines) = operation.asBatch
                run(.success(lines), body, asked, router, exchange) { lines in
                    let result = (try? lines.first?.result()) ?? .failed(Problem(.internalError, "There is no result."))
                    return HTTPResponse(shortForm: result, shardIndex: topology.shards[shard].index)
                }
            case .form(.purge): purge(router, exchange)
            }
        } catch {
            metrics.refused.increment()
            exchange.respond(HTTPResponse(problem: error))
        }
        return true
    }

    /// Has every node purge what it holds, and answers with the sum.
    private func purge(_ router: RouterHandler, _ exchange: HTTPExchange) {
        let request = NodeRequest(method: .POST, target: "/purge")
        let answers = router.table.nodes.map { node in
            transport.execute(request, to: node, on: eventLoop, deadline: eventLoop.now + BatchHandler.purgeTimeout)
                .flatMapThrowing { response in
                    guard response.status == 200, let count = BatchHandler.purged(response) else {
                        throw Problem(
                            .unavailable, "\(node) did not purge: \(String(buffer: response.body).prefix(200))")
                    }
                    return count
                }
        }
        let sum = EventLoopFuture.whenAllSucceed(answers, on: eventLoop)
        exchange.respond(sum.map { HTTPResponse(purged: $0.reduce(0, +)) }) { error in
            let problem = error as? Problem ?? Problem(.unavailable, "A node did not purge: \(error.reason)")
            return HTTPResponse(problem: problem)
        }
    }

    /// A node reads all that it holds.
    private static let purgeTimeout = TimeAmount.minutes(10)

    private static func purged(_ response: NodeResponse) -> Int? {
        String(buffer: response.body).split(whereSeparator: \.isWhitespace).compactMap { Int($0) }.first
    }

    private func begin() throws(Problem) {
        guard inFlight < BatchHandler.inFlightMax else {
            throw Problem(.overloaded, "Too many batches are in work at this router: try again later.")
        }
        inFlight += 1
        metrics.batches.increment()
    }

    fileprivate typealias Lines = [(operation: BatchOperation, line: Range<Int>)]

    private func read(_ body: ByteBuffer, _ asked: BatchRequest, _ router: RouterHandler, _ exchange: HTTPExchange) {
        let parse = { @Sendable () -> Result<Lines, Problem> in
            do throws(Problem) {
                return .success(try BatchOperation.read(body, countMax: Limits.batchOperationsMax))
            } catch {
                return .failure(error)
            }
        }
        guard body.readableBytes > BatchHandler.inlineBytesMax else {
            return run(parse(), body, asked, router, exchange)
        }
        NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { parse() }.assumeIsolated().whenComplete { result in
            let lines = (try? result.get()) ?? .failure(Problem(.unavailable, "This router is shutting down."))
            self.run(lines, body, asked, router, exchange)
        }
    }

    private func run(
        _ lines: Result<Lines, Problem>, _ body: ByteBuffer, _ asked: BatchRequest, _ router: RouterHandler,
        _ exchange: HTTPExchange, answer: @escaping ([BatchLine]) -> HTTPResponse = BatchHandler.ndjson
    ) {
        do throws(Problem) {
            let lines = try lines.get()
            if asked.isAtomic {
                let topology = router.table.topology
                try BatchRequest.checkAtomic(lines.map(\.operation)) { operation in
                    let position = operation.key.withUnsafeReadableBytes { topology.position(of: HashSlot(key: $0)) }
                    return (position: position, name: topology.shards[position].name)
                }
            }
            let account = AnswerAccount(budget, bytesMax: Limits.batchBytesMax(valueBytesMax: valueBytesMax))
            let waits = TimeAmount.milliseconds(Int64(asked.waitsForMilliseconds))
            BatchRun.start(
                lines.map { BatchProgress.Operation($0.operation) }, policy: .service,
                in: RoutedBatch(lines, body, asked, account, handler: self, router: router),
                deadline: eventLoop.now + timeout + waits
            ) { lines in
                self.end(answer(lines), exchange)
                withExtendedLifetime(account) {}
            }
        } catch {
            metrics.refused.increment()
            end(HTTPResponse(problem: error), exchange)
        }
    }

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

/// A batch on its way to the leaders. Confined to its event loop.
private final class RoutedBatch: BatchEnvironment {
    private let handler: BatchHandler
    private let router: RouterHandler
    private let places: [Range<Int>]
    private let slots: [HashSlot]
    private let body: ByteBuffer
    private let target: String
    private let account: AnswerAccount

    init(
        _ lines: BatchHandler.Lines, _ body: ByteBuffer, _ asked: BatchRequest, _ account: AnswerAccount,
        handler: BatchHandler, router: RouterHandler
    ) {
        self.account = account
        self.handler = handler
        self.router = router
        self.body = body
        target = asked.forwardedTarget
        places = lines.map(\.line)
        slots = lines.map { $0.operation.key.withUnsafeReadableBytes { HashSlot(key: $0) } }
    }

    var batchLeaders: [BatchProgress.Leader] {
        router.table.shards.indices.map { shard in
            do throws(Problem) {
                return .node(router.table.nodes[try router.leader(of: shard)])
            } catch {
                return .none(error)
            }
        }
    }

    func batchShard(of operation: Int) -> Int { router.table.topology.position(of: slots[operation]) }

    func sendBatch(
        _ part: BatchProgress.Part, deadline: NIODeadline, completion: @escaping (BatchAnswer) -> Void
    ) {
        let request = NodeRequest(batch: target, lines: places, of: body, part.operations)
        handler.transport.execute(
            request, to: part.node, on: handler.eventLoop, deadline: deadline
        ).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let response):
                if let epoch = response.epoch, epoch > router.table.topology.epoch {
                    handler.cluster.saw(epoch: epoch, of: part.node, on: handler.eventLoop)
                }
                completion(kept(BatchAnswer(response, count: part.operations.count, from: part.node), response))
            case .failure(let error):
                if let failure = error as? NodeFailure, failure.error.code == .unavailable,
                    failure.delivery == .notSent
                {
                    handler.cluster.failed(part.node, reason: failure.error.description)
                }
                completion(BatchAnswer(error, from: part.node))
            }
        }
    }

    /// Leaves the values out where there is no room for them.
    private func kept(_ answer: BatchAnswer, _ response: NodeResponse) -> BatchAnswer {
        guard case .lines(let lines) = answer, lines.contains(where: \.hasValue),
            let problem = account.take(response.body.readableBytes)
        else { return answer }
        return .lines(lines.map { $0.hasValue ? .result(.failed(problem)) : $0.detached })
    }

    /// The topology is fetched meanwhile, where somebody has shown a newer one.
    func prepareBatch(forAttemptAfter attempt: Int, completion: @escaping () -> Void) {
        handler.eventLoop.assumeIsolated().scheduleTask(in: BatchProgress.pause(after: attempt), completion)
    }
}
