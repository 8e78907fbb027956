import Core
import DistribKVClient
import Sharding
import Testing
import Wire

extension TestCluster {
    /// Takes over the newest topology that a running node has.
    @discardableResult
    func refreshTopology() async throws -> Topology {
        for (index, address) in listens.enumerated() {
            guard process(TestCluster.nodeName(index))?.isRunning == true else { continue }
            let response = try await HTTP.get(APIPath.topology, from: address)
            guard response.status == 200 else { throw UnexpectedAnswer(APIPath.topology, response) }
            adopt(try Topology(json: response.bytes))
        }
        return topology
    }

    /// Waits until every replica of the newest topology stands where its leader stands. Nobody may be writing.
    func waitForConvergence(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await eventually("all replicas to stand where their leaders stand") { () -> Bool in
            for shard in try await refreshTopology().shards {
                let leader = try await HTTP.position(of: shard.name, at: direct(shard.leader))
                for follower in shard.followers {
                    let position = try await HTTP.position(of: shard.name, at: direct(follower))
                    guard position == leader else {
                        throw NotThere(
                            description: "\(shard.name): \(follower) is at \(position), its leader at \(leader)")
                    }
                }
            }
            return true
        }
    }

    struct NotThere: Error, CustomStringConvertible {
        let description: String
    }

    /// Every replica of every shard holds exactly what the ledger says.
    func expectContent(_ ledger: Ledger, _ comment: String, sourceLocation: SourceLocation = #_sourceLocation)
        async throws
    {
        for shard in topology.shards {
            for replica in shard.replicas {
                let wrong = try await ledger.discrepancies(at: direct(replica), in: self, shard: shard.name)
                #expect(
                    wrong.isEmpty, "\(comment): \(shard.name) at \(replica): \(wrong.prefix(5))",
                    sourceLocation: sourceLocation)
            }
            try await expectSameContent(shard, ledger, comment, sourceLocation: sourceLocation)
        }
    }

    /// Also keys that may be one thing or another are the same on every replica.
    private func expectSameContent(
        _ shard: ShardTopology, _ ledger: Ledger, _ comment: String, sourceLocation: SourceLocation
    ) async throws {
        let losses = ledger.losses.filter { $0.shard == shard.name }
        let doubtful = ledger.all.filter { key, entry in
            topology.shard(of: key) == shard
                && (entry.uncertain != nil || entry.history.contains { write in losses.contains { $0.covers(write) } })
        }
        for key in doubtful.keys {
            let path = APIPath.key(key.utf8)
            let leader = try await HTTP.get(path, from: direct(shard.leader))
            for follower in shard.followers {
                let copy = try await HTTP.get(path, from: direct(follower))
                #expect(
                    copy.status == leader.status && copy.bytes == leader.bytes && copy.version == leader.version
                        || copy.status == 404 && leader.status == 404,
                    "\(comment): \(key) differs at \(follower)", sourceLocation: sourceLocation)
            }
        }
    }
}
