import Core
import Curl
import NIOCore
import Sharding
import Wire

/// The replication protocol over HTTP, through libcurl.
final class CurlTransport: ReplicationTransport {
    static let documentBytesMax = 64 << 10
    private static let topologyBytesMax = 4 << 20

    private let client: CurlClient
    let limits: ReplicationLimits
    let budget: ReplicationBudget
    /// Answers above `answerBytesMax` come one at a time: for the feeds, which no follower may hold up, for followers
    /// behind the window, and for those of them that did not take what they were sent last.
    private let largeTail = Turnstile()
    private let largeCatchUp = Turnstile()
    private let largeDoubtful = Turnstile()
    /// Transfers of snapshots at once.
    let snapshotTurns: Turnstile
    let snapshotPacer: SnapshotPacer
    let metrics: ReplicatorMetrics
    /// Told of the epoch in every answer.
    private let onEpoch: @Sendable (UInt64, NodeAddress) -> Void

    init(
        client: CurlClient, limits: ReplicationLimits, metrics: ReplicatorMetrics,
        onEpoch: @escaping @Sendable (UInt64, NodeAddress) -> Void
    ) {
        self.client = client
        self.limits = limits
        self.budget = ReplicationBudget(limits)
        self.snapshotTurns = Turnstile(places: limits.snapshotTransfersMax)
        self.snapshotPacer = SnapshotPacer(bytesPerSecondMax: limits.snapshotBytesPerSecondMax)
        self.metrics = metrics
        self.onEpoch = onEpoch
    }

    func position(of node: NodeAddress, shard: String) async -> PositionOutcome {
        do {
            let response = try await get(
                node, APIPath.position(shard: shard), bytesMax: CurlTransport.documentBytesMax,
                timeout: limits.answerTimeout)
            guard response.status == 200 else { return .failed(CurlTransport.explain(response)) }
            let document = try DocumentCoding.decode(PositionDocument.self, from: response.body.readableBytesView)
            return .position(try document.position, document.role, damaged: document.damaged)
        } catch {
            return .failed("\(error)")
        }
    }

    func tail(
        of leader: NodeAddress, shard: String, after position: LogPosition, limits: ReplicationLimits
    ) async -> ReadOutcome {
        let wait = limits.longPollWait
        do {
            do {
                return try await read(leader, shard, position, wait, limits.batchBytesMax, limits.answerBytesMax, nil)
            } catch let error as CurlError where error.code == .bodyTooLarge {
                // Held while the bytes are on their way; in the window they count as the window's.
                let turn = try await largeTail.pass()
                defer { withExtendedLifetime(turn) {} }
                return try await read(leader, shard, position, wait, limits.batchBytesMax, frameBytesMax, nil)
            }
        } catch {
            return .failed("\(error)")
        }
    }

    func catchUp(
        from leader: NodeAddress, shard: String, after position: LogPosition, isDoubtful: Bool,
        limits: ReplicationLimits
    ) async -> ReadOutcome {
        do {
            do {
                return try await read(leader, shard, position, .zero, limits.batchBytesMax, limits.answerBytesMax, nil)
            } catch let error as CurlError where error.code == .bodyTooLarge {
                let turn = try await (isDoubtful ? largeDoubtful : largeCatchUp).pass()
                return try await read(leader, shard, position, .zero, limits.batchBytesMax, frameBytesMax, turn)
            }
        } catch {
            return .failed("\(error)")
        }
    }

    func push(_ push: LogPush, to follower: NodeAddress, shard: String, limits: ReplicationLimits) async -> PushOutcome
    {
        guard let segment = push.segment, segment.byteCount > limits.answerBytesMax else {
            return await self.push(push, to: follower, shard: shard)
        }
        guard budget.beginLargePush(segment.byteCount, to: follower, isInTurn: segment.isInTurn) else {
            return .postponed
        }
        defer { budget.endLargePush(segment.byteCount, to: follower) }
        return await self.push(push, to: follower, shard: shard)
    }

    private func push(_ push: LogPush, to follower: NodeAddress, shard: String) async -> PushOutcome {
        let start = ContinuousClock.now
        let outcome: PushOutcome
        do {
            outcome = try await send(push, follower, shard)
        } catch {
            outcome = .failed("\(error)")
        }
        switch outcome {
        case .accepted: metrics.pushed(push, in: ContinuousClock.now - start)
        case .rejected, .failed, .postponed: metrics.pushFailed()
        }
        return outcome
    }

    private func send(_ push: LogPush, _ follower: NodeAddress, _ shard: String) async throws -> PushOutcome {
        var headers = [(name: "content-type", value: MediaType.logFrames), (KVHeader.term, String(push.term))]
        if let clock = push.clock, let milliseconds = clock.milliseconds {
            headers.append((KVHeader.lsn, String(clock.lsn)))
            headers.append((KVHeader.clock, String(milliseconds)))
        }
        let response = try await perform(
            follower,
            CurlRequest(
                .post, "http://\(follower)\(APIPath.batches(shard: shard))", headers: headers,
                body: push.segment?.bytes ?? ByteBuffer(), responseBytesMax: CurlTransport.documentBytesMax,
                timeout: push.segment == nil ? limits.answerTimeout : limits.pushTimeout,
                connectTimeout: limits.connectTimeout))
        if response.status == 200 {
            let document = try DocumentCoding.decode(PositionDocument.self, from: response.body.readableBytesView)
            return .accepted(try document.position, damaged: document.damaged)
        }
        let problem = ProblemReading(response.body)
        if response.status == 409, problem.type == Problem.Kind.logMismatch.name, let position = problem.position {
            return .rejected(position)
        }
        return .failed(CurlTransport.explain(response))
    }

    func report(_ report: AckReport, to leader: NodeAddress, shard: String) async -> ReportOutcome {
        do {
            let response = try await perform(
                leader,
                CurlRequest(
                    .post, "http://\(leader)\(APIPath.acks(shard: shard))", headers: [("content-type", "text/plain")],
                    body: report.encoded(), responseBytesMax: CurlTransport.documentBytesMax,
                    timeout: limits.answerTimeout, connectTimeout: limits.connectTimeout))
            let isTaken = (200..<300).contains(response.status)
            metrics.reported(isTaken: isTaken)
            return isTaken ? .taken : .failed(CurlTransport.explain(response))
        } catch {
            metrics.reported(isTaken: false)
            return .failed("\(error)")
        }
    }

    /// `GET /topology`. Throws `KVError` or ``CurlError``.
    func topology(from node: NodeAddress) async throws -> Topology {
        let response = try await get(
            node, APIPath.topology, bytesMax: CurlTransport.topologyBytesMax, timeout: limits.answerTimeout)
        guard response.status == 200 else { throw KVError(.unavailable, CurlTransport.explain(response)) }
        return try Topology(json: response.body.readableBytesView)
    }

    /// The largest frame there can be.
    private var frameBytesMax: Int { LogFrame.headerBytes + LogFrame.batchBytesMax }

    /// Hears of the epoch that `node` knows, where it answers.
    func askEpoch(of node: NodeAddress) async {
        // Every answer carries it, and whatever else comes of the request does not matter.
        _ = try? await get(
            node, APIPath.healthz, bytesMax: CurlTransport.documentBytesMax, timeout: limits.connectTimeout)
    }

    private func read(
        _ leader: NodeAddress, _ shard: String, _ position: LogPosition, _ wait: Duration, _ askedBytesMax: Int,
        _ answerBytesMax: Int, _ turn: Turn?
    ) async throws -> ReadOutcome {
        let path =
            "\(APIPath.wal(shard: shard))?term=\(position.term)&lsn=\(position.lsn)&version=\(position.version.hexDigits)"
            + "&wait=\(wait.wholeMilliseconds)&max_bytes=\(askedBytesMax)"
        let response = try await get(leader, path, bytesMax: answerBytesMax, timeout: wait + limits.answerTimeout)
        switch response.status {
        case 200, 204:
            guard let lsn = response.header(KVHeader.lsn).flatMap(UInt64.init) else {
                return .failed("its answer has no \(KVHeader.lsn) field")
            }
            guard let term = response.header(KVHeader.term).flatMap(UInt64.init) else {
                return .failed("its answer has no \(KVHeader.term) field")
            }
            let clock = LeaderClock(
                term: term, lsn: lsn, milliseconds: response.header(KVHeader.clock).flatMap(UInt64.init))
            guard response.status == 200 else { return .nothingNew(clock) }
            metrics.fetched(bytes: response.body.readableBytes)
            let segment = try LogSegment(
                verifying: response.body, after: position, leaderTerm: term, turn: turn, budget: budget)
            return .segment(segment, clock)
        case 409, 410:
            let problem = ProblemReading(response.body)
            if problem.type == Problem.Kind.diverged.name || problem.type == Problem.Kind.logTruncated.name {
                return .cannotContinue(
                    problem.detail ?? CurlTransport.explain(response),
                    isDiverged: problem.type == Problem.Kind.diverged.name)
            }
            return .failed(CurlTransport.explain(response))
        default:
            return .failed(CurlTransport.explain(response))
        }
    }

    private func get(_ node: NodeAddress, _ path: String, bytesMax: Int, timeout: Duration) async throws -> CurlResponse
    {
        try await perform(
            node,
            CurlRequest(
                .get, "http://\(node)\(path)", responseBytesMax: bytesMax, timeout: timeout,
                connectTimeout: limits.connectTimeout))
    }

    func perform(_ node: NodeAddress, _ request: CurlRequest) async throws -> CurlResponse {
        let response = try await client.perform(request)
        if let epoch = response.header(KVHeader.epoch).flatMap(UInt64.init) { onEpoch(epoch, node) }
        return response
    }

    static func explain(_ response: CurlResponse) -> String {
        "it answered \(response.status)" + (ProblemReading(response.body).detail.map { ": \($0)" } ?? "")
    }
}

extension Duration {
    var wholeMilliseconds: Int64 { components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000 }

    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
