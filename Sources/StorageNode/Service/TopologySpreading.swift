import Core
import Logging
import NIOCore
import Shard
import Sharding

/// Brings topologies to other nodes and takes theirs.
struct TopologySpreading: Sendable {
    let address: NodeAddress
    let keeper: TopologyKeeper
    let peers: Peers
    let logger: Logger

    /// Shows the current topology to every node of it, and to `others`; returns when each has answered or failed to.
    ///
    /// Whoever is not reached learns it from a peer sooner or later.
    func showToAll(and others: [NodeAddress] = [], except: NodeAddress? = nil) async {
        let topology = keeper.topology
        let nodes = Set(topology.nodes + others).subtracting([address, except].compactMap { $0 })
        await withDiscardingTaskGroup { group in
            for node in nodes {
                group.addTask {
                    do throws(PeerFailure) {
                        try await self.show(topology, to: node)
                    } catch {
                        self.logger.info(
                            "the topology did not reach a node; it will learn it from a peer",
                            metadata: ["node": "\(node)", "epoch": "\(topology.epoch)", "reason": "\(error)"])
                    }
                }
            }
        }
    }

    /// Shows `topology` to `node`, and takes what that has where it is newer.
    func show(_ topology: Topology, to node: NodeAddress) async throws(PeerFailure) {
        await take(try await peers.show(topology, to: node), from: node)
    }

    /// Compares topologies with `node`: takes what is newer there, or shows it what is newer here.
    /// - Returns: whether it has a newer one that could not be taken.
    @discardableResult
    func compare(with node: NodeAddress) async throws(PeerFailure) -> Bool {
        guard let theirs = try await peers.topology(of: node, unless: keeper.topology) else { return false }
        await take(theirs, from: node)
        return (try? theirs.supersedes(keeper.topology)) ?? true
    }

    /// Does about the topology of a peer what there is to do; nil where it is ours.
    private func take(_ theirs: Topology?, from node: NodeAddress) async {
        let gossip = Gossip(address: address)
        do {
            let own = keeper.topology
            switch try gossip.action(on: theirs.map { .topology($0) } ?? .same, own: own) {
            case .nothing: break
            case .adopt(let topology): _ = try await keeper.adopt(topology, from: "\(node)")
            case .tell: _ = try await peers.show(own, to: node)
            case .complain(let cluster):
                logger.warning(
                    "a node of this topology belongs to another cluster",
                    metadata: ["node": "\(node)", "cluster": "\(cluster)"])
            }
        } catch {
            logger.warning("topologies not compared", metadata: ["node": "\(node)", "reason": "\(error)"])
        }
    }

    // MARK: At the start

    /// Holds the writes of the shards led here until the other replicas were asked whether somebody else leads them
    /// by now. To be called before requests are served; returns at once.
    func holdUntilAsked() async throws -> StartQuestion {
        let question = StartQuestion(topology: keeper.topology, address: address)
        for shard in question.waiting.keys {
            guard let replica = keeper.views.current.replica(ofShardNamed: shard), replica.role.isLeader else {
                continue
            }
            try await keeper.holdFromStart(replica, milliseconds: StartQuestion.waitMillisecondsMax)
        }
        return question
    }

    /// Asks, and lets writes go as the answers come.
    func ask(_ question: StartQuestion) async {
        var question = question
        await withTaskGroup(of: NodeAddress?.self) { group in
            for peer in question.peers {
                group.addTask { await self.settle(with: peer) ? peer : nil }
            }
            for await peer in group {
                guard let peer else { continue }
                for shard in question.settled(peer) { await keeper.releaseStartHold(ofShard: shard) }
            }
        }
        for shard in question.timedOut() {
            logger.warning(
                "takes writes without having heard of every replica", metadata: ["shard": "\(shard)"])
            await keeper.releaseStartHold(ofShard: shard)
        }
    }

    /// - Returns: false where the peer said nothing before the time was over.
    private func settle(with peer: NodeAddress) async -> Bool {
        let deadline = ContinuousClock.now + .milliseconds(StartQuestion.waitMillisecondsMax)
        while ContinuousClock.now < deadline {
            do throws(PeerFailure) {
                try await compare(with: peer)
                return true
            } catch {
                switch error {
                case .refused, .problem: return true
                case .silent: break
                }
            }
            do {
                try await Task.sleep(for: .milliseconds(StartQuestion.retryMilliseconds))
            } catch {
                return false
            }
        }
        return false
    }

    // MARK: Gossip

    /// Compares topologies with one peer after the other, until the task is cancelled.
    func run() async {
        let gossip = Gossip(address: address)
        var random = SystemRandomNumberGenerator()
        while !Task.isCancelled {
            do {
                try await Task.sleep(for: .milliseconds(gossip.pauseMilliseconds(&random)))
            } catch {
                return
            }
            guard let peer = gossip.peer(in: keeper.topology, &random) else { continue }
            do throws(PeerFailure) {
                try await compare(with: peer)
            } catch {
                logger.debug("a peer did not answer", metadata: ["node": "\(peer)", "reason": "\(error)"])
            }
        }
    }
}
