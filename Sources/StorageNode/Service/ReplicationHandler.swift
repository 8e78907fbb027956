import Core
import HTTPServer
import LSM
import NIOCore
import NIOHTTP1
import ServiceSupport
import Shard
import Sharding
import Wire

/// Requests of the replicator: a shard's position, its log, and batches for it.
final class ReplicationHandler {
    static let pathPrefix = "/replication/"
    /// Of the body of a POST.
    static func bodyBytesMax(_ target: String) -> Int {
        target.hasSuffix("/acks") ? acksBytesMax : batchesBytesMax
    }

    /// Host names have at most 255 bytes.
    private static let acksBytesMax = AckReport.linesMax * 384
    /// One push: above the largest frame, so that every frame fits alone.
    private static let batchesBytesMax = LogFrame.headerBytes + LogFrame.batchBytesMax
    private static let waitMillisecondsMax: Int64 = 60_000
    private static let answerBytesMax = 16 << 20
    private static let answerBytesDefault = 1 << 20
    /// Smaller pushes are decoded on the event loop, larger ones would hold it up.
    private static let inlineDecodeBytesMax = 64 << 10

    private let node: Node
    private var view: NodeView

    init(node: Node, view: NodeView) {
        self.node = node
        self.view = view
    }

    /// Goes by `view` from now on.
    func use(_ view: NodeView) { self.view = view }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        let parts = request.path.dropFirst(ReplicationHandler.pathPrefix.count)
            .split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return exchange.respond(HTTPResponse(unknownPath: request.path)) }
        guard let replica = view.replica(ofShardNamed: parts[0]) else {
            if parts[1] == "position", request.method == .GET, view.damagedAbsence(ofShardNamed: parts[0]) != nil {
                return respondAbsentPosition(String(parts[0]), exchange)
            }
            return exchange.respond(HTTPResponse(problem: view.absence(ofShardNamed: parts[0])))
        }
        do throws(Problem) {
            switch (parts[1], request.method) {
            case ("position", .GET): respondPosition(replica, exchange)
            case ("wal", .GET): try serveLog(replica, request, exchange)
            case ("batches", .POST): try apply(replica, request, exchange)
            case ("acks", .POST): try takeAcks(replica, request, exchange)
            case ("position", _), ("wal", _): refuse(request.method, allowed: "GET", exchange)
            case ("batches", _), ("acks", _): refuse(request.method, allowed: "POST", exchange)
            default: exchange.respond(HTTPResponse(unknownPath: request.path))
            }
        } catch {
            exchange.respond(HTTPResponse(problem: error))
        }
    }

    private func refuse(_ method: HTTPMethod, allowed: String, _ exchange: HTTPExchange) {
        exchange.respond(HTTPResponse(methodNotAllowed: method.rawValue, allowed: allowed))
    }

    private func respondPosition(_ replica: ShardReplica, _ exchange: HTTPExchange) {
        exchange.respond(HTTPResponse(document: replica.document(at: replica.position)))
    }

    private func respondAbsentPosition(_ shard: String, _ exchange: HTTPExchange) {
        let (node, eventLoop) = (node, exchange.eventLoop)
        let document = eventLoop.makeFutureWithTask {
            HTTPResponse(document: try await node.absentPosition(ofShard: shard, on: eventLoop))
        }
        exchange.respond(document) { HTTPResponse(problem: Problem($0)) }
    }

    // MARK: The log

    private struct LogQuery {
        var position: LogPosition
        var deadline: NIODeadline
        var bytesMax: Int
    }

    private func serveLog(
        _ replica: ShardReplica, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) throws(Problem) {
        guard replica.role.isLeader else {
            throw Problem(.notLeader, "This node follows \(replica.configuration.name): read the log of its leader.")
        }
        let parameters = try QueryParameters(request.query)
        try parameters.allowOnly(["term", "lsn", "version", "wait", "max_bytes"])
        guard let term = try parameters.integer("term", in: UInt64.min...UInt64.max),
            let lsn = try parameters.integer("lsn", in: UInt64.min...UInt64.max),
            let version = try parameters.text("version").flatMap({ Version(hexDigits: $0) })
        else {
            throw Problem(
                .badRequest, "The query must give the reader's position: term, lsn and version (16 hex digits).")
        }
        let wait = try parameters.integer("wait", in: 0...ReplicationHandler.waitMillisecondsMax) ?? 0
        let bytesMax = try parameters.integer("max_bytes", in: 1...ReplicationHandler.answerBytesMax)
        let query = LogQuery(
            position: LogPosition(term: term, lsn: lsn, version: version),
            deadline: wait == 0 ? .uptimeNanoseconds(0) : .now() + .milliseconds(wait),
            bytesMax: bytesMax ?? ReplicationHandler.answerBytesDefault)
        answer(replica.log.readFromMemory(after: query.position, bytesMax: query.bytesMax), query, replica, exchange)
    }

    private func answer(_ read: LogRead, _ query: LogQuery, _ replica: ShardReplica, _ exchange: HTTPExchange) {
        switch read {
        case .frames(let frames, _):
            exchange.respond(
                HTTPResponse(
                    status: 200, headers: ReplicationHandler.logHeaders(replica, withContent: true), body: frames))
        case .caughtUp:
            wait(query, replica, exchange)
        case .needsDisk:
            let read = node.readers.run(on: exchange.eventLoop) {
                try replica.log.readFromDisk(after: query.position, bytesMax: query.bytesMax)
            }
            let handler = NIOLoopBound(self, eventLoop: exchange.eventLoop)
            read.whenComplete { result in
                switch result {
                case .success(let read): handler.value.answer(read, query, replica, exchange)
                case .failure(let error): exchange.respond(HTTPResponse(problem: Problem(error)))
                }
            }
        case .truncated(let firstLsn):
            exchange.respond(
                HTTPResponse(
                    problem: Problem(
                        .logTruncated,
                        "The log of \(replica.configuration.name) begins at lsn \(firstLsn): it no longer holds what "
                            + "follows lsn \(query.position.lsn). The follower needs a snapshot.",
                        members: ["first_lsn": "\(firstLsn)"])))
        case .diverged(let detail):
            exchange.respond(HTTPResponse(problem: Problem(.diverged, "The histories differ: \(detail).")))
        }
    }

    /// Holds the request until a batch is committed or its time is over.
    private func wait(_ query: LogQuery, _ replica: ShardReplica, _ exchange: HTTPExchange) {
        let eventLoop = exchange.eventLoop
        guard query.deadline > .now() else { return ReplicationHandler.answerNothing(replica, exchange) }
        let handler = NIOLoopBound(self, eventLoop: eventLoop)
        let timer = NIOLoopBoundBox<Scheduled<Void>?>(nil, eventLoop: eventLoop)
        do throws(KVError) {
            let wait = try replica.log.waitForCommit(after: query.position.lsn) { result in
                eventLoop.execute {
                    timer.value?.cancel()
                    handler.value.resume(result, query, replica, exchange)
                }
            }
            switch wait {
            case .ready:
                resume(.success(query.position), query, replica, exchange)
            case .waiting(let token):
                timer.value = eventLoop.scheduleTask(deadline: query.deadline) {
                    guard replica.log.cancelWait(token) else { return }
                    ReplicationHandler.answerNothing(replica, exchange)
                }
            }
        } catch {
            exchange.respond(HTTPResponse(problem: Problem(error)))
        }
    }

    private func resume(
        _ result: Result<LogPosition, KVError>, _ query: LogQuery, _ replica: ShardReplica, _ exchange: HTTPExchange
    ) {
        switch result {
        case .success:
            answer(
                replica.log.readFromMemory(after: query.position, bytesMax: query.bytesMax), query, replica, exchange)
        case .failure(let error):
            exchange.respond(HTTPResponse(problem: Problem(error)))
        }
    }

    private static func answerNothing(_ replica: ShardReplica, _ exchange: HTTPExchange) {
        exchange.respond(HTTPResponse(status: 204, headers: logHeaders(replica, withContent: false)))
    }

    private static func logHeaders(
        _ replica: ShardReplica, withContent: Bool
    ) -> [(name: String, value: String)] {
        // The clock first: what was committed at that moment is then within the lsn.
        let clock = ShardClock.system.wallMilliseconds()
        let committed = replica.position
        var headers = [
            (name: KVHeader.term, value: "\(committed.term)"), (name: KVHeader.lsn, value: "\(committed.lsn)"),
        ]
        // One that has stepped down meanwhile knows nothing of what is committed.
        if replica.role.isLeader { headers.append((name: KVHeader.clock, value: "\(clock)")) }
        if withContent { headers.append((name: "content-type", value: MediaType.logFrames)) }
        return headers
    }

    // MARK: Acknowledgements

    private func takeAcks(
        _ replica: ShardReplica, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) throws(Problem) {
        guard replica.role.isLeader else {
            throw Problem(.notLeader, "This node follows \(replica.configuration.name): report to its leader.")
        }
        do throws(KVError) {
            for ack in try AckReport(decoding: request.body).acks { replica.acks.acked(ack.follower, ack.position) }
        } catch {
            throw Problem(.badRequest, "The report cannot be read: \(error).")
        }
        exchange.respond(HTTPResponse(status: 204))
    }

    // MARK: Batches

    /// What a push says about the leader it comes from.
    private struct LeaderState {
        var term: UInt64
        /// Its last lsn and its clock at that moment; nil where the push does not say.
        var committed: (lsn: UInt64, clockMilliseconds: UInt64)?

        init(_ headers: HTTPHeaders) throws(Problem) {
            guard let term = try LeaderState.number(KVHeader.term, headers) else {
                throw Problem(.badRequest, "The header field \(KVHeader.term) must give the leader's term.")
            }
            self.term = term
            if let lsn = try LeaderState.number(KVHeader.lsn, headers),
                let clock = try LeaderState.number(KVHeader.clock, headers)
            {
                committed = (lsn: lsn, clockMilliseconds: clock)
            }
        }

        private static func number(_ name: String, _ headers: HTTPHeaders) throws(Problem) -> UInt64? {
            guard let field = headers.first(name: name) else { return nil }
            guard let number = UInt64(field) else {
                throw Problem(.badRequest, "The header field \(name) must be a number.")
            }
            return number
        }

        /// Tells the replica, which stands at `position` and has taken the leader for one, how old it is.
        func note(in replica: ShardReplica, at position: LogPosition) {
            guard let committed else { return replica.freshness.applied(position) }
            replica.freshness.heartbeat(
                leaderLsn: committed.lsn, leaderClockMilliseconds: committed.clockMilliseconds, term: term,
                position: position)
        }
    }

    private func apply(
        _ replica: ShardReplica, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) throws(Problem) {
        let leader = try LeaderState(request.headers)
        let body = request.body
        if body.readableBytes == 0, takeHeartbeat(leader, replica, exchange) { return }
        guard body.readableBytes > ReplicationHandler.inlineDecodeBytesMax else {
            let frames: [LogFrame]
            do {
                frames = try ReplicationHandler.decode(body)
            } catch {
                throw Problem(.badRequest, "The batches cannot be read: \(error).")
            }
            return ReplicationHandler.apply(frames, leader, replica, exchange)
        }
        node.readers.run(on: exchange.eventLoop) { try ReplicationHandler.decode(body) }.whenComplete { result in
            switch result {
            case .success(let frames):
                ReplicationHandler.apply(frames, leader, replica, exchange)
            case .failure(let error as KVError) where error.code == .corrupted:
                exchange.respond(HTTPResponse(problem: Problem(.badRequest, "The batches cannot be read: \(error).")))
            case .failure(let error):
                exchange.respond(HTTPResponse(problem: Problem(error)))
            }
        }
    }

    /// Answers a push without batches here where the writer has nothing to decide: a follower hears from a leader of
    /// the term it knows.
    private func takeHeartbeat(_ leader: LeaderState, _ replica: ShardReplica, _ exchange: HTTPExchange) -> Bool {
        guard replica.role == .follower(term: leader.term), replica.failure == nil else { return false }
        let position = replica.position
        leader.note(in: replica, at: position)
        exchange.respond(HTTPResponse(document: replica.document(at: position)))
        return true
    }

    private static func decode(_ body: ByteBuffer) throws -> [LogFrame] {
        var rest = body
        var frames: [LogFrame] = []
        while let frame = try LogFrame.decode(from: &rest) { frames.append(frame) }
        guard rest.readableBytes == 0 else {
            throw KVError(.corrupted, "the last frame ends after \(rest.readableBytes) bytes of it")
        }
        return frames
    }

    private static func apply(
        _ frames: [LogFrame], _ leader: LeaderState, _ replica: ShardReplica, _ exchange: HTTPExchange
    ) {
        let eventLoop = exchange.eventLoop
        do throws(KVError) {
            try replica.apply(frames, leaderTerm: leader.term) { outcome in
                // Also where the batches leave a gap, the leader was heard.
                if outcome.failure == nil || outcome.failure?.code == .logMismatch {
                    leader.note(in: replica, at: outcome.position)
                }
                eventLoop.execute { answer(outcome, replica, exchange) }
            }
        } catch {
            exchange.respond(HTTPResponse(problem: Problem(error)))
        }
    }

    private static func answer(_ outcome: ApplyOutcome, _ replica: ShardReplica, _ exchange: HTTPExchange) {
        guard let failure = outcome.failure else {
            return exchange.respond(HTTPResponse(document: replica.document(at: outcome.position)))
        }
        var problem = Problem(failure)
        problem.add(position: outcome.position)
        exchange.respond(HTTPResponse(problem: problem))
    }
}

extension ShardReplica {
    func document(at position: LogPosition) -> PositionDocument {
        PositionDocument(
            shard: configuration.name, role: role.isLeader ? .leader : .follower, position: position,
            damaged: damage?.description)
    }
}

extension Problem {
    /// Members that tell the pusher where to go on from.
    fileprivate mutating func add(position: LogPosition) {
        self = Problem(
            kind, detail,
            members: [
                "term": "\(position.term)", "lsn": "\(position.lsn)", "version": position.version.hexDigits,
            ])
    }
}
