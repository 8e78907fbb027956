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

/// Scans on one event loop of a router: asks a replica of each shard, and merges what they answer.
///
/// Confined to its event loop. Bounded: at most `inFlightMax` scans are under way at once, each for `timeout` at the
/// longest and with one page in memory.
final class RouterScans {
    /// Scans under way at once, over all event loops.
    static let inFlightMax = 64

    private let transport: any NodeTransport
    private let cluster: ClusterView
    private let metrics: RouterMetrics
    private let inFlightMax: Int
    private let timeout: TimeAmount
    private let recordBytesMax: Int
    private var inFlight = 0

    /// - Parameter transport: its answers may be as large as the largest record.
    init(
        transport: any NodeTransport, cluster: ClusterView, metrics: RouterMetrics, inFlightMax: Int,
        timeout: TimeAmount, recordBytesMax: Int
    ) {
        self.transport = transport
        self.cluster = cluster
        self.metrics = metrics
        self.inFlightMax = inFlightMax
        self.timeout = timeout
        self.recordBytesMax = recordBytesMax
    }

    func handle(_ request: HTTPRequest, for router: RouterHandler, _ exchange: HTTPExchange) {
        guard request.method == .GET || request.method == .HEAD else {
            metrics.refused.increment()
            return exchange.respond(
                HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: ScanParameters.allowedMethods))
        }
        do throws(Problem) {
            let parameters = try ScanParameters(request)
            guard parameters.shard == nil else {
                throw Problem(.badRequest, "A router scans all shards: leave shard out, or ask a node of the shard.")
            }
            guard inFlight < inFlightMax else {
                throw Problem(.overloaded, "Too many scans are under way at this router: try again later.")
            }
            start(parameters, for: router, exchange)
        } catch {
            metrics.refused.increment()
            exchange.respond(HTTPResponse(problem: error))
        }
    }

    private func start(_ parameters: ScanParameters, for router: RouterHandler, _ exchange: HTTPExchange) {
        let eventLoop = exchange.eventLoop
        let table = router.table
        let shards = table.topology.shards
        let positions = parameters.range.slot.map { [table.topology.position(of: $0)] } ?? Array(shards.indices)
        let run = ScanRun(
            shards: positions.map { shards[$0].name }, range: parameters.range,
            paging: ScanPaging(limit: parameters.limit), keysOnly: parameters.keysOnly,
            isPartial: parameters.isPartial, recordBytesMax: recordBytesMax)
        let deadline = eventLoop.now + timeout
        inFlight += 1
        metrics.scans.increment()
        let result = run.start(on: eventLoop, merging: NIOThreadPool.singleton) { [self] index, asked in
            ShardScanFetch.start(
                asked, ofShard: shards[positions[index]].name, demands: parameters.demands,
                replicas: replicas(of: positions[index], parameters.guarantees, router), deadline: deadline,
                on: eventLoop
            ) { [self] request, address, deadline in
                send(request, to: address, deadline, router, on: eventLoop)
            }
        }
        result.assumeIsolated().whenComplete { [self] result in
            inFlight -= 1
            exchange.respond(RouterScans.response(to: result))
        }
    }

    /// Those that are believed to be alive, the one first whose turn it is.
    private func replicas(of shard: Int, _ guarantees: Guarantees, _ router: RouterHandler) -> [NodeAddress] {
        let table = router.table
        do throws(Problem) {
            if guarantees.consistency == .leader { return [table.nodes[try router.leader(of: shard)]] }
            let first = try router.reader(of: shard)
            let others = table.shards[shard].readers.filter { $0 != first }
            // Where none of those answers, one that is not ready may still redirect to one that does.
            let rest = table.topology.shards[shard].replicas.filter { replica in
                !([first] + others).contains { table.nodes[$0] == replica }
            }
            return ([first] + others).map { table.nodes[$0] } + rest
        } catch {
            return []
        }
    }

    private func send(
        _ request: NodeRequest, to address: NodeAddress, _ deadline: NIODeadline, _ router: RouterHandler,
        on eventLoop: any EventLoop
    ) -> EventLoopFuture<NodeResponse> {
        let answer = transport.execute(request, to: address, on: eventLoop, deadline: deadline)
        answer.assumeIsolated().whenComplete { [cluster] result in
            switch result {
            case .success(let response):
                if let epoch = response.epoch, epoch > router.table.topology.epoch {
                    cluster.saw(epoch: epoch, of: address, on: eventLoop)
                }
            case .failure(let error):
                if let failure = error as? NodeFailure, failure.delivery == .notSent, failure.error.code == .unavailable
                {
                    cluster.failed(address, reason: failure.error.description)
                }
            }
        }
        return answer
    }

    private static func response(to result: Result<ScanRun.Result, any Error>) -> HTTPResponse {
        switch result {
        case .success(let scan):
            return HTTPResponse(scanned: scan.page.lines, next: scan.page.next, missing: scan.missing)
        case .failure(let failure as ShardScanFailure):
            return HTTPResponse(problem: .scanUnavailable(shard: failure.shard, reason: failure.reason))
        case .failure(let error):
            return HTTPResponse(problem: Problem(.internalError, "The scan failed: \(error)."))
        }
    }
}
