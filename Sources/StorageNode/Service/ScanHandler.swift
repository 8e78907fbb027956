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
import Synchronization
import Wire

/// Scans on one event loop of a storage node: of one shard for who merges, and of all shards, merged here.
final class ScanHandler {
    /// From the arrival of a scan over all shards to its answer.
    private static let timeout = TimeAmount.seconds(10)
    /// How long a scan of one shard waits for the version it demands, before it is sent to the leader.
    private static let versionWait = TimeAmount.milliseconds(100)

    private let node: Node
    private let eventLoop: any EventLoop
    private var view: NodeView
    /// Where in the list of a shard's replicas the next scan begins.
    private var nextReplica = 0

    init(node: Node, view: NodeView, eventLoop: any EventLoop) {
        self.node = node
        self.view = view
        self.eventLoop = eventLoop
    }

    func use(_ view: NodeView) { self.view = view }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        guard request.method == .GET || request.method == .HEAD else {
            return exchange.respond(
                HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: ScanParameters.allowedMethods))
        }
        do throws(Problem) {
            let parameters = try ScanParameters(request)
            node.metrics.scans.increment()
            if let shard = parameters.shard {
                try scanShard(shard, parameters, request, exchange, mayWait: true)
            } else {
                scanAll(parameters, exchange)
            }
        } catch {
            exchange.respond(HTTPResponse(problem: error))
        }
    }

    // MARK: One shard

    private func scanShard(
        _ name: String, _ parameters: ScanParameters, _ request: HTTPRequest, _ exchange: HTTPExchange, mayWait: Bool
    ) throws(Problem) {
        guard let position = view.position(ofShardNamed: name) else { throw view.absence(ofShardNamed: name) }
        guard let replica = view.replicas[position] else {
            let isHere = view.absences[position] != nil || view.leads[position]
            return try redirectToLeader(position, parameters, request, exchange, status: isHere ? 307 : 308)
        }
        let minVersion = try ReadFields(request.headers).minVersion
        switch decide(position, replica, parameters.guarantees, minVersion: minVersion, mayWait: mayWait) {
        case .answer: break
        case .redirectToLeader, .leaderIsChanging:
            return try redirectToLeader(position, parameters, request, exchange, status: 307)
        case .waitForVersion(let version):
            return try wait(for: version, replica, name, parameters, request, exchange)
        case .refuseVersion(let version):
            throw Problem(
                .versionUnknown,
                "The leader of \(name) has no version \(version.hexDigits): it is of another shard, or was lost in a "
                    + "failover; scan again without \(KVHeader.minVersion).")
        }
        let lag = view.leads[position] ? nil : replica.freshness.lagMilliseconds
        let wantsFrames = request.headers.first(name: "accept") == MediaType.scanFrames
        let asked = ShardScanRequest(
            range: parameters.range, limit: parameters.limit,
            bytesMax: parameters.shardBytesMax ?? ScanPaging.bytesMaxDefault, keysOnly: parameters.keysOnly)
        let page = read(asked, position, replica)
        let paging = ScanPaging(limit: asked.limit, bytesMax: asked.bytesMax)
        let redirect = try? redirection(position, parameters, request, status: 307)
        exchange.respond(
            page.flatMapThrowing { page in
                if wantsFrames { return HTTPResponse(page, lag: lag) }
                return try HTTPResponse(page, paging, isReverse: asked.range.isReverse, lag: lag)
            }
        ) { error in
            let problem = Problem(ofRead: error)
            // What is damaged here is whole on the leader.
            if problem == .damagedRead, let redirect { return redirect }
            return HTTPResponse(problem: problem)
        }
    }

    private func decide(
        _ position: Int, _ replica: ShardReplica, _ guarantees: Guarantees, minVersion: Version?, mayWait: Bool
    ) -> ReadDecision {
        let leads = view.leads[position]
        return ReadDecision(
            guarantees, minVersion: minVersion,
            at: ReadDecision.Situation(
                leads: leads, isLeader: replica.role.isLeader, isJoining: replica.isJoining,
                lagMilliseconds: leads ? nil : replica.freshness.lagMilliseconds, mayWait: mayWait),
            newest: replica.newestVersion)
    }

    /// Reads a page on a thread that may block.
    private func read(
        _ asked: ShardScanRequest, _ position: Int, _ replica: ShardReplica
    ) -> EventLoopFuture<ShardScanPage> {
        let topology = view.topology
        let limits = ScanLimits(
            records: asked.limit, bytes: min(asked.bytesMax, node.configuration.scanRecordBytesMax))
        return node.scanners.run(on: eventLoop) {
            try replica.scan(asked.range, limits, keysOnly: asked.keysOnly) { key in
                topology.shards.count == 1 || topology.position(of: HashSlot(key: key)) == position
            }
        }
    }

    private func redirectToLeader(
        _ position: Int, _ parameters: ScanParameters, _ request: HTTPRequest, _ exchange: HTTPExchange, status: Int
    ) throws(Problem) {
        let response = try redirection(position, parameters, request, status: status)
        node.metrics.redirects.increment()
        exchange.respond(response)
    }

    private func redirection(
        _ position: Int, _ parameters: ScanParameters, _ request: HTTPRequest, status: Int
    ) throws(Problem) -> HTTPResponse {
        // Never to itself.
        guard !view.leads[position] else { throw view.leaderOutOfService(at: position) }
        let others = (request.query ?? "").split(separator: "&").filter { !$0.hasPrefix("\(redirectHopsParameter)=") }
        let query = (others + ["\(redirectHopsParameter)=\(parameters.hops + 1)"]).joined(separator: "&")
        return HTTPResponse(
            status: status,
            headers: [
                (name: "cache-control", value: "no-store"),
                (name: "location", value: "http://\(view.topology.shards[position].leader)\(request.path)?\(query)"),
            ])
    }

    /// Handles the scan again when the replica has the version, or when it has waited long enough.
    private func wait(
        for version: Version, _ replica: ShardReplica, _ name: String, _ parameters: ScanParameters,
        _ request: HTTPRequest, _ exchange: HTTPExchange
    ) throws(Problem) {
        let eventLoop = eventLoop
        let handler = NIOLoopBound(self, eventLoop: eventLoop)
        let timer = NIOLoopBoundBox<Scheduled<Void>?>(nil, eventLoop: eventLoop)
        @Sendable func resume() {
            do throws(Problem) {
                try handler.value.scanShard(name, parameters, request, exchange, mayWait: false)
            } catch {
                exchange.respond(HTTPResponse(problem: error))
            }
        }
        do throws(KVError) {
            let wait = try replica.log.waitForVersion(version) { _ in
                eventLoop.execute {
                    timer.value?.cancel()
                    resume()
                }
            }
            switch wait {
            case .ready: eventLoop.execute { resume() }
            case .waiting(let token):
                timer.value = eventLoop.scheduleTask(in: ScanHandler.versionWait) {
                    if replica.log.cancelWait(token) { resume() }
                }
            }
        } catch {
            throw Problem(error)
        }
    }

    // MARK: All shards

    private func scanAll(_ parameters: ScanParameters, _ exchange: HTTPExchange) {
        guard node.scansInFlight.begin() else {
            return exchange.respond(
                HTTPResponse(problem: Problem(.overloaded, "Too many scans are under way here: try again later.")))
        }
        let shards = view.topology.shards
        let positions = parameters.range.slot.map { [view.topology.position(of: $0)] } ?? Array(shards.indices)
        let run = ScanRun(
            shards: positions.map { shards[$0].name }, range: parameters.range,
            paging: ScanPaging(limit: parameters.limit), keysOnly: parameters.keysOnly,
            isPartial: parameters.isPartial, recordBytesMax: node.configuration.scanRecordBytesMax)
        let deadline = eventLoop.now + ScanHandler.timeout
        let node = node
        let result = run.start(on: eventLoop, merging: node.scanners.threads) { [self] index, asked in
            page(of: positions[index], asked, parameters, deadline)
        }
        result.whenComplete { _ in node.scansInFlight.end() }
        exchange.respond(
            result.map { HTTPResponse(scanned: $0.page.lines, next: $0.page.next, missing: $0.missing) }
        ) { error in
            guard let failure = error as? ShardScanFailure else { return HTTPResponse(problem: Problem(error)) }
            return HTTPResponse(problem: .scanUnavailable(shard: failure.shard, reason: failure.reason))
        }
    }

    /// Of the replica here, where there is one that may answer; else of another.
    private func page(
        of position: Int, _ asked: ShardScanRequest, _ parameters: ScanParameters, _ deadline: NIODeadline
    ) -> EventLoopFuture<ScanPage> {
        let shard = view.topology.shards[position]
        if let replica = view.replicas[position],
            decide(position, replica, parameters.guarantees, minVersion: nil, mayWait: false) == .answer
        {
            let others = view.leads[position] ? nil : NIOLoopBound(self, eventLoop: eventLoop)
            return read(asked, position, replica).map(\.page).flatMapError { [eventLoop] error in
                // What is damaged here is whole on another.
                if let others, (error as? KVError)?.code == .corrupted {
                    return others.value.pageOfAnother(than: position, asked, parameters, deadline)
                }
                return eventLoop.makeFailedFuture(ShardScanFailure(shard: shard.name, reason: "\(error)"))
            }
        }
        return pageOfAnother(than: position, asked, parameters, deadline)
    }

    private func pageOfAnother(
        than position: Int, _ asked: ShardScanRequest, _ parameters: ScanParameters, _ deadline: NIODeadline
    ) -> EventLoopFuture<ScanPage> {
        let shard = view.topology.shards[position]
        var others = shard.replicas.filter { $0 != node.address }
        if parameters.guarantees.consistency == .leader {
            others = others.filter { $0 == shard.leader }
        } else if !others.isEmpty {
            nextReplica &+= 1
            let first = nextReplica % others.count
            others = Array(others[first...] + others[..<first])
        }
        let connections = node.scanConnections
        return ShardScanFetch.start(
            asked, ofShard: shard.name, demands: parameters.demands, replicas: others, deadline: deadline, on: eventLoop
        ) { [eventLoop] request, address, deadline in
            connections.execute(request, to: address, on: eventLoop, deadline: deadline)
        }
    }
}

extension HTTPResponse {
    /// A page of one shard, as frames.
    fileprivate init(_ page: ShardScanPage, lag: UInt64?) {
        self.init(
            status: 200, headers: [(name: "content-type", value: MediaType.scanFrames)], body: page.page.frames)
        if let next = page.page.next { headers.append((name: KVHeader.next, value: PercentCoding.encode(next))) }
        addFields(page, lag: lag)
    }

    /// A page of one shard, as lines.
    fileprivate init(_ page: ShardScanPage, _ paging: ScanPaging, isReverse: Bool, lag: UInt64?) throws {
        guard case .page(let lines) = ScannedPage.merge([page.page], paging, isReverse: isReverse) else {
            throw Problem(.badRequest, "The first record is larger than a page of so many bytes: raise bytes.")
        }
        self.init(scanned: lines.lines, next: lines.next, missing: [])
        addFields(page, lag: lag)
    }

    private mutating func addFields(_ page: ShardScanPage, lag: UInt64?) {
        if page.records > 0 { headers.append((name: KVHeader.version, value: page.newestVersion.hexDigits)) }
        if let lag { headers.append((name: KVHeader.lag, value: "\(lag)")) }
    }
}

/// Counts scans over all shards that are under way at this node.
final class ScansInFlight: Sendable {
    /// Each may hold a page, twice.
    static let maximum = 32
    private let count = Atomic<Int>(0)

    /// False where there are too many; else ``end()`` is to be called once.
    func begin() -> Bool {
        guard count.add(1, ordering: .relaxed).newValue <= ScansInFlight.maximum else {
            end()
            return false
        }
        return true
    }

    func end() { count.subtract(1, ordering: .relaxed) }
}
