import Core
import Curl
import NIOCore
import Sharding
import Wire

/// The replication protocol over HTTP, through libcurl.
final class CurlTransport: ReplicationTransport {
    private static let documentBytesMax = 64 << 10
    private static let topologyBytesMax = 4 << 20

    private let client: CurlClient
    private let limits: ReplicationLimits
    private let catchUpBudget: ByteBudget
    /// For answers with a frame above `answerBytesMax`: one at a time for all feeds, so that no slow follower holds
    /// them up, and one for all catch-up reads.
    private let largeTailBudget = ByteBudget(capacity: 1)
    private let largeCatchUpBudget = ByteBudget(capacity: 1)
    private let metrics: ReplicatorMetrics
    /// Told of the epoch in every answer.
    private let onEpoch: @Sendable (UInt64, NodeAddress) -> Void

    init(
        client: CurlClient, limits: ReplicationLimits, metrics: ReplicatorMetrics,
        onEpoch: @escaping @Sendable (UInt64, NodeAddress) -> Void
    ) {
        self.client = client
        self.limits = limits
        self.catchUpBudget = ByteBudget(capacity: limits.catchUpBytesMax)
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
            return .position(try document.position, document.role)
        } catch {
            return .failed("\(error)")
        }
    }

    func tail(of leader: NodeAddress, shard: String, after position: LogPosition) async -> ReadOutcome {
        do {
            do {
                return try await read(leader, shard, position, wait: limits.longPollWait, limits.answerBytesMax, nil)
            } catch let error as CurlError where error.code == .bodyTooLarge {
                // Held while the bytes are on their way; in the window they count as the window's.
                let lease = try await largeTailBudget.take(1)
                defer { withExtendedLifetime(lease) {} }
                return try await read(leader, shard, position, wait: limits.longPollWait, frameBytesMax, nil)
            }
        } catch {
            return .failed("\(error)")
        }
    }

    func catchUp(from leader: NodeAddress, shard: String, after position: LogPosition) async -> ReadOutcome {
        do {
            do {
                let lease = try await catchUpBudget.take(limits.batchBytesMax)
                return try await read(leader, shard, position, wait: .zero, limits.answerBytesMax, lease)
            } catch let error as CurlError where error.code == .bodyTooLarge {
                let lease = try await largeCatchUpBudget.take(1)
                return try await read(leader, shard, position, wait: .zero, frameBytesMax, lease)
            }
        } catch {
            return .failed("\(error)")
        }
    }

    func push(_ segment: LogSegment, to follower: NodeAddress, shard: String) async -> PushOutcome {
        let start = ContinuousClock.now
        let outcome: PushOutcome
        do {
            outcome = try await send(segment, follower, shard)
        } catch {
            outcome = .failed("\(error)")
        }
        if case .accepted = outcome {
            metrics.pushed(segment, in: ContinuousClock.now - start)
        } else {
            metrics.pushFailed()
        }
        return outcome
    }

    private func send(_ segment: LogSegment, _ follower: NodeAddress, _ shard: String) async throws -> PushOutcome {
        let response = try await perform(
            follower,
            CurlRequest(
                .post, "http://\(follower)\(APIPath.batches(shard: shard))",
                headers: [("content-type", MediaType.logFrames), (KVHeader.term, String(segment.leaderTerm))],
                body: segment.bytes, responseBytesMax: CurlTransport.documentBytesMax, timeout: limits.pushTimeout,
                connectTimeout: limits.connectTimeout))
        if response.status == 200 {
            let document = try DocumentCoding.decode(PositionDocument.self, from: response.body.readableBytesView)
            return .accepted(try document.position)
        }
        let problem = ProblemReading(response.body)
        if response.status == 409, problem.type == Problem.Kind.logMismatch.name, let position = problem.position {
            return .rejected(position)
        }
        return .failed(CurlTransport.explain(response))
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

    private func read(
        _ leader: NodeAddress, _ shard: String, _ position: LogPosition, wait: Duration, _ bytesMax: Int,
        _ lease: ByteLease?
    ) async throws -> ReadOutcome {
        let path =
            "\(APIPath.wal(shard: shard))?term=\(position.term)&lsn=\(position.lsn)&version=\(position.version.hexDigits)"
            + "&wait=\(wait.wholeMilliseconds)&max_bytes=\(limits.batchBytesMax)"
        let response = try await get(leader, path, bytesMax: bytesMax, timeout: wait + limits.answerTimeout)
        switch response.status {
        case 200, 204:
            guard let leaderLSN = response.header(KVHeader.lsn).flatMap(UInt64.init) else {
                return .failed("its answer has no \(KVHeader.lsn) field")
            }
            guard response.status == 200 else { return .nothingNew(leaderLSN: leaderLSN) }
            guard let term = response.header(KVHeader.term).flatMap(UInt64.init) else {
                return .failed("its answer has no \(KVHeader.term) field")
            }
            metrics.fetched(bytes: response.body.readableBytes)
            let segment = try LogSegment(verifying: response.body, after: position, leaderTerm: term, lease: lease)
            return .segment(segment, leaderLSN: leaderLSN)
        case 409, 410:
            let problem = ProblemReading(response.body)
            if problem.type == Problem.Kind.diverged.name || problem.type == Problem.Kind.logTruncated.name {
                return .cannotContinue(problem.detail ?? CurlTransport.explain(response))
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

    private func perform(_ node: NodeAddress, _ request: CurlRequest) async throws -> CurlResponse {
        let response = try await client.perform(request)
        if let epoch = response.header(KVHeader.epoch).flatMap(UInt64.init) { onEpoch(epoch, node) }
        return response
    }

    private static func explain(_ response: CurlResponse) -> String {
        "it answered \(response.status)" + (ProblemReading(response.body).detail.map { ": \($0)" } ?? "")
    }
}

extension Duration {
    var wholeMilliseconds: Int64 { components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000 }

    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
