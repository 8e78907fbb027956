import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// Why another node did not do what it was asked.
enum PeerFailure: Error, CustomStringConvertible {
    /// It does not take connections: no process is there.
    case refused(String)
    /// No answer in time, or no proper one.
    case silent(String)
    /// It answered with a problem.
    case problem(kind: String, detail: String)

    var description: String {
        switch self {
        case .refused(let reason), .silent(let reason): reason
        case .problem(_, let detail): detail
        }
    }
}

/// What a node asks of others. Every question has a deadline.
struct Peers: Sendable {
    static let answerTimeout = TimeAmount.seconds(1)
    /// A promotion asks everybody twice.
    private static let promotionTimeout = TimeAmount.seconds(5)
    /// A digest reads the whole shard.
    private static let digestTimeout = TimeAmount.seconds(60)

    let transport: any PeerTransport

    /// The topology of `peer`; nil where it is `own`.
    func topology(of peer: NodeAddress, unless own: Topology) async throws(PeerFailure) -> Topology? {
        let tag = TopologyTag.field(of: own)
        let response = try await ask(
            peer, NodeRequest(method: .GET, target: APIPath.topology, headers: [("if-none-match", tag)]))
        guard response.status != 304 else { return nil }
        return try topology(in: response, from: peer)
    }

    /// Shows `topology` to `peer`; returns the one it has then.
    func show(_ topology: Topology, to peer: NodeAddress) async throws(PeerFailure) -> Topology {
        let document: [UInt8]
        do {
            document = try topology.json()
        } catch {
            throw .silent("the topology cannot be encoded: \(error)")
        }
        let request = NodeRequest(
            method: .POST, target: APIPath.topology, headers: [("content-type", MediaType.json)],
            body: ByteBuffer(bytes: document))
        return try self.topology(in: try await ask(peer, request), from: peer)
    }

    func history(ofShard shard: String, at peer: NodeAddress) async throws(PeerFailure) -> HistoryDocument {
        let request = NodeRequest(method: .GET, target: APIPath.history(shard: shard))
        return try decode(HistoryDocument.self, try await ask(peer, request), from: peer)
    }

    /// What those of `nodes` have that answer. Asks all at once.
    func histories(
        ofShard shard: String, at nodes: [NodeAddress]
    ) async -> [(node: NodeAddress, history: TermHistory)] {
        await withTaskGroup(of: (NodeAddress, TermHistory)?.self) { group in
            for node in nodes {
                group.addTask {
                    guard let history = try? await history(ofShard: shard, at: node).history else { return nil }
                    return (node, history)
                }
            }
            return await group.reduce(into: []) { if let answer = $1 { $0.append(answer) } }
        }
    }

    /// Has `peer` lead a shard, which its leader so far does not: it asks the other replicas first. Takes seconds if one
    /// of them does not answer.
    func promote(_ promote: PromoteRequest, ofShard shard: String, at peer: NodeAddress) async throws(PeerFailure) {
        let request = try request(APIPath.promote(shard: shard), promote)
        try check(try await ask(peer, request, within: Peers.promotionTimeout), from: peer)
    }

    func fence(_ fence: FenceRequest, ofShard shard: String, at peer: NodeAddress) async throws(PeerFailure)
        -> HistoryDocument
    {
        let request = try request(APIPath.fence(shard: shard), fence)
        return try decode(HistoryDocument.self, try await ask(peer, request), from: peer)
    }

    // MARK: Reading everything

    /// Has the replica at `peer` read everything that it has, or looks how far that is.
    func scrub(ofShard shard: String, at peer: NodeAddress, begins: Bool) async throws(PeerFailure) -> ScrubDocument {
        let request = NodeRequest(method: begins ? .POST : .GET, target: APIPath.scrub(shard: shard))
        return try decode(ScrubDocument.self, try await ask(peer, request), from: peer, statuses: [200, 202])
    }

    func digest(
        _ digest: DigestRequest, ofShard shard: String, at peer: NodeAddress
    ) async throws(PeerFailure) -> DigestDocument {
        let request = try request(APIPath.digest(shard: shard), digest)
        return try decode(
            DigestDocument.self, try await ask(peer, request, within: Peers.digestTimeout), from: peer)
    }

    private func request(_ target: String, _ document: some Encodable) throws(PeerFailure) -> NodeRequest {
        do throws(KVError) {
            return try NodeRequest.post(target, document)
        } catch {
            throw .silent("\(error)")
        }
    }

    // MARK: Asking

    private func ask(
        _ peer: NodeAddress, _ request: NodeRequest, within timeout: TimeAmount = Peers.answerTimeout
    ) async throws(PeerFailure) -> NodeResponse {
        do {
            return try await transport.execute(request, to: peer, deadline: .now() + timeout)
        } catch let failure as NodeFailure {
            if failure.delivery == .notSent, failure.error.code == .unavailable {
                throw .refused(failure.description)
            }
            throw .silent(failure.description)
        } catch {
            throw .silent("\(error)")
        }
    }

    private func topology(in response: NodeResponse, from peer: NodeAddress) throws(PeerFailure) -> Topology {
        try check(response, from: peer)
        do {
            return try Topology(json: response.body.readableBytesView)
        } catch {
            throw .silent("\(peer) did not answer with a topology: \(error)")
        }
    }

    private func decode<Document: Decodable>(
        _ type: Document.Type, _ response: NodeResponse, from peer: NodeAddress, statuses: [Int] = [200]
    ) throws(PeerFailure) -> Document {
        try check(response, from: peer, statuses: statuses)
        do {
            return try DocumentCoding.decode(type, from: response.body.readableBytesView)
        } catch {
            throw .silent("\(peer) did not answer as a storage node does: \(error)")
        }
    }

    private func check(
        _ response: NodeResponse, from peer: NodeAddress, statuses: [Int] = [200]
    ) throws(PeerFailure) {
        guard !statuses.contains(response.status) else { return }
        struct Document: Decodable {
            var type: String
            var detail: String
        }
        do {
            let problem = try DocumentCoding.decode(Document.self, from: response.body.readableBytesView)
            throw PeerFailure.problem(kind: problem.type, detail: problem.detail)
        } catch let failure as PeerFailure {
            throw failure
        } catch {
            throw .silent("\(peer) answered \(response.status)")
        }
    }
}
