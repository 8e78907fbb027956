import Core
import DistribKVClient
import Glibc
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// `kv failover` where the leader answers: nothing is lost, nothing is made twice.
    @Suite struct Switchovers {
        /// The leadership goes round under load, to named followers and to one that `kv` chooses.
        @Test(.timeLimit(.minutes(5)))
        func underLoad() async throws {
            let seed = testSeed("underLoad")
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "switch", acks: [nil, .all, .quorum, .leader])
                var reports: [FailoverReport] = []
                try await load.running(writers: 4, seed: seed) {
                    for _ in 0..<testSetting("DISTRIBKV_TEST_ROUNDS", default: 1) {
                        for target in [1, 2, nil, 0] where target.map({ !cluster.leads($0, "shard-0") }) ?? true {
                            try await load.waitForMore(60)
                            reports.append(try await cluster.failover("shard-0", to: target, ledger))
                        }
                    }
                    try await load.waitForMore(60)
                }
                var before = try #require(reports.first).previousLeader
                var (term, epoch): (UInt64, UInt64) = (1, 1)
                for report in reports {
                    #expect(report.isComplete && report.unreachable.isEmpty, "\(report)")
                    #expect(report.previousLeader == before && report.leader != before, "\(report)")
                    #expect(report.term > term && report.epoch > epoch, "\(report)")
                    #expect(report.writesHeldMilliseconds != nil, "\(report)")
                    (before, term, epoch) = (report.leader, report.term, report.epoch)
                }
                // Nobody died: every write was made, or the client was asked to come back.
                #expect(load.tally.harsh.isEmpty, "\(load.tally.harsh.count): \(load.tally.harsh.prefix(5))")
                let held = reports.compactMap(\.writesHeldMilliseconds).map { Int($0) }
                print("underLoad: writes held for \(held) ms, longest answer \(load.tally.longest)")
                try await cluster.waitForOneTopology()
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)", audit: true)
            }
        }

        /// One of the two ends, by SIGTERM or SIGKILL, while the leadership moves. Whoever leads afterwards, all agree,
        /// and no acknowledged write is gone.
        @Test(.timeLimit(.minutes(5)))
        func interrupted() async throws {
            let seed = testSeed("interrupted")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "cut", acks: [nil, .quorum])
                try await load.running(writers: 4, seed: random.next()) {
                    var victims: [(leads: Bool, signal: Int32)] = []
                    for _ in 0..<testSetting("DISTRIBKV_TEST_ROUNDS", default: 1) {
                        victims += [(true, SIGTERM), (false, SIGTERM), (true, SIGKILL), (false, SIGKILL)]
                    }
                    for (leads, signal) in victims.shuffled(using: &random) {
                        try await load.waitForMore(40)
                        let leader = try cluster.index(of: cluster.topology.shards[0].leader)
                        let target = (leader + Int.random(in: 1...2, using: &random)) % 3
                        try await Self.interrupt(
                            cluster, leader, to: target, victim: leads ? leader : target, signal,
                            after: Int.random(in: 0...40, using: &random))
                    }
                    try await load.waitForMore(40)
                }
                #expect(ledger.losses.isEmpty)
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)", audit: true)
            }
        }

        /// - Parameter polls: requests to wait for before the signal, so that it comes anywhere in the handover.
        private static func interrupt(
            _ cluster: TestCluster, _ leader: Int, to target: Int, victim: Int, _ signal: Int32, after polls: Int
        ) async throws {
            let third = 3 - leader - target
            // Not by kv, which would take over by force from a leader that is gone.
            let body = try DocumentCoding.encode(HandoverRequest(to: cluster.nodes[target]))
            async let handover = Self.answer {
                try await HTTP.send(
                    .POST, APIPath.handover(shard: "shard-0"), to: cluster.listens[leader], body: body,
                    headers: [(name: "content-type", value: MediaType.json)])
            }
            for _ in 0..<polls { _ = try await HTTP.get(APIPath.healthz, from: cluster.listens[third]) }
            let process = try cluster.node(victim)
            process.signal(signal)
            let status = try await process.waitForExit()
            #expect(status == (signal == SIGTERM ? .exited(0) : .signalled(signal)))
            // Done, or refused with a reason, or cut off.
            if let answer = await handover {
                #expect(answer.status == 200 || answer.problem != nil, "\(answer.status) \(answer.text)")
                print("interrupted: \(answer.status) \(answer.problem ?? "")")
            }
            try await cluster.startNode(victim)
            try await cluster.waitUntilReady(cluster.listens[victim], cluster.node(victim))
            try await cluster.waitForOneTopology()
        }

        /// nil where there is none.
        private static func answer(_ request: () async throws -> NodeResponse) async -> NodeResponse? {
            do { return try await request() } catch { return nil }
        }
    }
}
