import Core
import DistribKVClient
import Glibc
import NIOCore
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Followers that cannot keep up cost nobody else anything.
    @Suite struct SlowFollowers {
        /// Resident memory of a replicator at its peak, whatever the backlog; see docs/replication-protocol.md.
        private static let replicatorBytesMax = 100 << 20

        /// Two replicators, one follower behind a slow network and then standing still: the other follower has
        /// everything all the time, and what is missing is nowhere in memory.
        @Test(.timeLimit(.minutes(5)))
        func twoReplicators() async throws {
            let seed = testSeed("twoReplicators")
            var layout = Layout.ring(shards: 1, nodes: 3, replicas: 3)
            layout.proxied = true
            try await TestCluster.running(layout) { cluster in
                let second = try #require(Loopback.freeAddresses(1).first)
                try await cluster.startReplicator("second", at: second)
                let ledger = Ledger()
                let load = Load(
                    cluster: cluster, ledger: ledger, name: "slow", routes: [.direct], acks: [nil, .quorum],
                    ackTimeout: "60s", valueBytesMax: 200_000)
                let fault = NetworkProxy.Fault.slow(delay: .milliseconds(20), bytesPerSecond: 400_000)
                for name in ["replicator", "second"] { try await cluster.proxy(2).set(fault, from: name) }
                for (round, isFrozen) in [false, true].enumerated() {
                    if isFrozen { try await cluster.node(2).freeze() }
                    try await load.writeMore(150, writers: 4, seed: seed &+ UInt64(round) &* 100)
                    let leader = try await HTTP.position(of: "shard-0", at: cluster.listens[0])
                    try await eventually("the other follower to have everything") {
                        try await HTTP.position(of: "shard-0", at: cluster.listens[1]) == leader
                    }
                    guard !isFrozen else { continue }
                    #expect(try await HTTP.position(of: "shard-0", at: cluster.listens[2]) < leader)
                }
                // Nobody who wants two of three waited for the third.
                #expect(load.tally.harsh.isEmpty && load.tally.count(504) == 0, "\(load.tally.statuses)")
                try cluster.node(2).thaw()
                try await cluster.healNetwork()
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)")
                for name in ["replicator", "second"] {
                    let peak = try Self.peakMemory(of: #require(cluster.process(name)))
                    print("twoReplicators: \(name) took \(peak >> 20) MiB at its peak")
                    #expect(peak < Self.replicatorBytesMax, "\(name): \(peak)")
                }
            }
        }

        /// `VmHWM` of /proc.
        private static func peakMemory(of process: ChildProcess) throws -> Int {
            let pid = try #require(process.pid)
            let line = kernelText("/proc/\(pid)/status").split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
            let number = line?.split(separator: " ").compactMap { Int($0) }.first
            return try #require(number) * 1_024
        }
    }
}
