import Core
import DistribKVClient
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import RouterService

/// Nodes whose answers a test gives, one by one; for one thread and an `EmbeddedEventLoop`.
///
/// Unchecked: the tests below use it from their own thread alone.
private final class ScriptedTransport: NodeTransport, @unchecked Sendable {
    struct Call {
        let target: String
        let address: NodeAddress
        let deadline: NIODeadline
        let promise: EventLoopPromise<NodeResponse>
    }

    private(set) var calls: [Call] = []

    func execute(
        _ request: NodeRequest, to address: NodeAddress, on eventLoop: any EventLoop, deadline: NIODeadline
    ) -> EventLoopFuture<NodeResponse> {
        let promise = eventLoop.makePromise(of: NodeResponse.self)
        calls.append(Call(target: request.target, address: address, deadline: deadline, promise: promise))
        return promise.futureResult
    }

    func takeCalls() -> [Call] {
        defer { calls.removeAll() }
        return calls
    }
}

private func unreachable(_ address: NodeAddress) -> NodeFailure {
    NodeFailure(address: address, delivery: .notSent, error: KVError(.unavailable, "cannot connect to \(address)"))
}

@Suite struct ClusterViewTests {
    private let nodes = addresses(3)
    private let loop = EmbeddedEventLoop()
    private let transport = ScriptedTransport()

    private func view(_ topology: Topology) throws -> ClusterView {
        try ClusterView(topology: topology, transport: transport, logger: quiet)
    }

    private func answer(_ topology: Topology) throws -> NodeResponse {
        NodeResponse(status: 200, body: ByteBuffer(bytes: try topology.json()))
    }

    @Test func aHigherEpochIsFetchedOnceAndTaken() throws {
        let view = try view(topology(epoch: 1, [nodes]))
        var tables: [RoutingTable] = []
        let box = NIOLoopBoundBox(tables, eventLoop: loop)
        view.subscribe(on: loop) { box.value.append($0) }
        view.saw(epoch: 1, of: nodes[0], on: loop)
        #expect(transport.calls.isEmpty)
        view.saw(epoch: 5, of: nodes[0], on: loop)
        view.saw(epoch: 5, of: nodes[1], on: loop)
        view.saw(epoch: 6, of: nodes[2], on: loop)
        let calls = transport.takeCalls()
        #expect(calls.map(\.target) == ["/topology"])
        #expect(calls.map(\.address) == [nodes[0]])
        calls[0].promise.succeed(try answer(topology(epoch: 5, [[nodes[1], nodes[0]]])))
        loop.run()
        #expect(view.table.topology.epoch == 5)
        #expect(view.table.topology.shards[0].leader == nodes[1])
        #expect(view.nodes.map(\.address) == [nodes[0], nodes[1]])
        tables = box.value
        #expect(tables.map(\.topology.epoch) == [5])
        // What was seen meanwhile is fetched at its next sight.
        view.saw(epoch: 6, of: nodes[2], on: loop)
        #expect(transport.takeCalls().count == 1)
    }

    @Test func theEpochNeverFalls() throws {
        let view = try view(topology(epoch: 4, [nodes]))
        #expect(try view.adopt(topology(epoch: 3, [[nodes[0]]]), from: nodes[0]) == false)
        #expect(try view.adopt(topology(epoch: 4, [nodes]), from: nodes[0]) == false)
        #expect(view.table.topology.epoch == 4)
        #expect(view.nodes.count == 3)
        #expect(try view.adopt(topology(epoch: 5, [[nodes[0]]]), from: nodes[0]) == true)
        #expect(view.nodes.count == 1)
    }

    /// Every router ends with the same, whichever it heard of first.
    @Test func ofTwoTopologiesOfOneEpochOneWins() throws {
        let (one, other) = (
            try topology(epoch: 4, [[nodes[0], nodes[1]]]), try topology(epoch: 4, [[nodes[1], nodes[0]]])
        )
        for (first, second) in [(one, other), (other, one)] {
            let view = try view(first)
            try view.adopt(second, from: nodes[0])
            #expect(try view.table.topology == (one.supersedes(other) ? one : other))
        }
    }

    @Test func anotherClustersTopologyIsRefused() throws {
        let view = try view(topology(epoch: 1, [nodes]))
        #expect(throws: KVError.self) { try view.adopt(topology(epoch: 9, cluster: "other", [nodes]), from: nodes[0]) }
        #expect(view.table.topology.epoch == 1)
    }

    @Test func aNodeThatClaimsWhatItDoesNotHaveIsNotAskedWithoutEnd() throws {
        let view = try view(topology(epoch: 1, [nodes]))
        for body in ["", "{}", "garbage", "{\"cluster\":\"test\",\"epoch\":9,\"shards\":[]}"] {
            view.saw(epoch: 9, of: nodes[0], on: loop)
            let call = try #require(transport.takeCalls().first)
            call.promise.succeed(NodeResponse(status: 200, body: ByteBuffer(string: body)))
            loop.run()
            view.saw(epoch: 9, of: nodes[0], on: loop)
            #expect(transport.takeCalls().isEmpty)
            loop.advanceTime(by: ClusterView.fetchPause)
        }
        view.saw(epoch: 9, of: nodes[0], on: loop)
        transport.takeCalls().first?.promise.fail(unreachable(nodes[0]))
        loop.advanceTime(by: ClusterView.fetchPause)
        view.saw(epoch: 9, of: nodes[1], on: loop)
        let last = try #require(transport.takeCalls().first)
        #expect(last.address == nodes[1])
        last.promise.succeed(try answer(topology(epoch: 9, [nodes])))
        loop.run()
        #expect(view.table.topology.epoch == 9)
    }

    @Test func healthIsKeptAcrossTopologies() throws {
        let view = try view(topology(epoch: 1, [nodes]))
        for _ in 0..<NodeHealth.failuresUntilDead { view.failed(nodes[1], reason: "refused") }
        try view.adopt(topology(epoch: 2, [[nodes[1], nodes[2]]]), from: nodes[0])
        #expect(view.table.shards[0].leader == nil)
        #expect(view.table.shards[0].readers == [1])
        view.answered(nodes[1], ready: true, epoch: 2, at: .now())
        #expect(view.table.shards[0].leader == 0)
        // Of a node that is not in the topology nothing is kept.
        view.failed(nodes[0], reason: "refused")
        #expect(view.nodes.map(\.address) == [nodes[1], nodes[2]])
    }
}

@Suite struct HealthPollerTests {
    private let nodes = addresses(2)
    private let loop = EmbeddedEventLoop()
    private let transport = ScriptedTransport()
    private let interval = TimeAmount.milliseconds(500)

    private func poller(_ cluster: ClusterView) -> HealthPoller {
        HealthPoller(
            eventLoop: loop, cluster: cluster, transport: transport, interval: interval, timeout: .seconds(1),
            random: SeededGenerator(seed: 1))
    }

    private func answer(_ status: Int, epoch: UInt64? = nil) -> NodeResponse {
        NodeResponse(status: status, headers: epoch.map { ["kv-epoch": "\($0)"] } ?? [:])
    }

    @Test func everyNodeIsLookedAtAgainAndAgain() throws {
        let cluster = try ClusterView(topology: topology([nodes]), transport: transport, logger: quiet)
        let poller = poller(cluster)
        poller.watch(cluster.table)
        for round in 0..<20 {
            // Both are due within 600 ms, give or take their fifth; none before 400 ms are over.
            loop.advanceTime(by: .milliseconds(round == 0 ? 0 : 201))
            let calls = transport.takeCalls()
            #expect(Set(calls.map(\.address)) == Set(nodes) && calls.count == 2, "round \(round)")
            for call in calls {
                #expect(call.target == "/readyz")
                let left = call.deadline - loop.now
                #expect(left <= .seconds(1) && left >= .milliseconds(round == 0 ? 1_000 : 799))
            }
            // Nothing more while a look is under way, however long it takes.
            loop.advanceTime(by: .seconds(5))
            #expect(transport.calls.isEmpty)
            for call in calls { call.promise.succeed(answer(round % 2 == 0 ? 200 : 503, epoch: 1)) }
            loop.run()
            #expect(cluster.nodes.allSatisfy { $0.health.isPreferredForReads == (round % 2 == 0) })
            loop.advanceTime(by: .milliseconds(399))
            #expect(transport.calls.isEmpty)
        }
    }

    @Test func manyNodesShareTheLooksOfASecond() throws {
        let many = addresses(1_000)
        let shards = stride(from: 0, to: many.count, by: 10).map { Array(many[$0..<$0 + 10]) }
        let cluster = try ClusterView(topology: topology(shards), transport: transport, logger: quiet)
        let poller = poller(cluster)
        poller.watch(cluster.table)
        var looks = 0
        for second in 0..<40 {
            for call in transport.takeCalls() {
                if second >= 10 { looks += 1 }
                call.promise.succeed(answer(200))
            }
            loop.run()
            loop.advanceTime(by: .seconds(1))
        }
        // Of the last thirty seconds: 3,000, and none of the nodes forgotten.
        #expect((2_500...3_500).contains(looks), "\(looks)")
        for call in transport.takeCalls() { call.promise.succeed(answer(200)) }
        #expect(cluster.nodes.allSatisfy { $0.health.condition == .ready })
    }

    @Test func aSecondLookComesSoonerAndDecides() throws {
        let cluster = try ClusterView(topology: topology([[nodes[0]]]), transport: transport, logger: quiet)
        let poller = poller(cluster)
        poller.watch(cluster.table)
        func fail() throws {
            let call = try #require(transport.takeCalls().first)
            call.promise.fail(unreachable(nodes[0]))
            loop.run()
        }
        try fail()
        #expect(cluster.table.shards[0].leader == 0)
        loop.advanceTime(by: .milliseconds(150))
        try fail()
        #expect(cluster.table.shards[0].leader == nil)
        // From then on at the usual pace.
        for _ in 0..<5 {
            loop.advanceTime(by: .milliseconds(399))
            #expect(transport.calls.isEmpty)
            loop.advanceTime(by: .milliseconds(201))
            try fail()
        }
        loop.advanceTime(by: .milliseconds(600))
        transport.takeCalls().first?.promise.succeed(answer(200))
        loop.run()
        #expect(cluster.table.shards[0].leader == 0)
    }

    @Test func whatIsNoNodeIsDead() throws {
        let cluster = try ClusterView(topology: topology([[nodes[0]]]), transport: transport, logger: quiet)
        let poller = poller(cluster)
        poller.watch(cluster.table)
        for _ in 0..<2 {
            try #require(transport.takeCalls().first).promise.succeed(answer(404))
            loop.run()
            loop.advanceTime(by: .milliseconds(600))
        }
        #expect(cluster.nodes[0].health.condition == .dead)
        #expect(cluster.nodes[0].health.lastError?.contains("404") == true)
    }

    @Test func anEpochSeenInALookIsFetched() throws {
        let cluster = try ClusterView(topology: topology([[nodes[0]]]), transport: transport, logger: quiet)
        let poller = poller(cluster)
        let box = NIOLoopBound(poller, eventLoop: loop)
        cluster.subscribe(on: loop) { box.value.watch($0) }
        poller.watch(cluster.table)
        try #require(transport.takeCalls().first).promise.succeed(answer(200, epoch: 2))
        loop.run()
        let fetch = try #require(transport.takeCalls().first)
        #expect(fetch.target == "/topology")
        let next = try topology(epoch: 2, [[nodes[1]]])
        fetch.promise.succeed(NodeResponse(status: 200, body: ByteBuffer(bytes: try next.json())))
        loop.run()
        // The new node is looked at at once, the one that left no more.
        #expect(transport.takeCalls().map(\.address) == [nodes[1]])
        loop.advanceTime(by: .seconds(10))
        #expect(transport.calls.isEmpty)
    }

    @Test func aLookAtANodeThatLeftSaysNothingAboutTheOneThatCameBack() throws {
        let cluster = try ClusterView(topology: topology(epoch: 1, [[nodes[0]]]), transport: transport, logger: quiet)
        let poller = poller(cluster)
        poller.watch(cluster.table)
        let old = try #require(transport.takeCalls().first)
        try cluster.adopt(topology(epoch: 2, [[nodes[1]]]), from: nodes[0])
        poller.watch(cluster.table)
        try cluster.adopt(topology(epoch: 3, [[nodes[0]]]), from: nodes[0])
        poller.watch(cluster.table)
        let new = try #require(transport.takeCalls().last)
        #expect(new.address == nodes[0])
        old.promise.fail(unreachable(nodes[0]))
        new.promise.succeed(answer(200))
        loop.run()
        #expect(cluster.nodes[0].health.condition == .ready)
        // One watch, not two.
        loop.advanceTime(by: .milliseconds(600))
        #expect(transport.takeCalls().count == 1)
    }

    @Test func stopEndsIt() throws {
        let cluster = try ClusterView(topology: topology([nodes]), transport: transport, logger: quiet)
        let poller = poller(cluster)
        poller.watch(cluster.table)
        let calls = transport.takeCalls()
        calls[0].promise.succeed(answer(200))
        loop.run()
        poller.stop()
        calls[1].promise.succeed(answer(200))
        loop.run()
        loop.advanceTime(by: .seconds(10))
        #expect(transport.calls.isEmpty)
        poller.watch(cluster.table)
        #expect(transport.calls.isEmpty)
    }
}
