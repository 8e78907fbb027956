import Configuration
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

private let me = NodeAddress(host: "127.0.0.1", port: 7_009)
private let seeds = [NodeAddress(host: "127.0.0.1", port: 8_080), NodeAddress(host: "127.0.0.1", port: 8_081)]
private func node(_ number: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: 7_000 + number) }

/// Two shards: `a` of nodes 1 and 2, `b` of nodes 2 and 1.
private func topology(cluster: String = "demo", epoch: UInt64 = 1) throws -> Topology {
    try Topology.placing(
        cluster: cluster, epoch: epoch,
        shards: [
            ShardPlacement(name: "a", index: 0, leader: node(1), followers: [node(2)]),
            ShardPlacement(name: "b", index: 1, leader: node(2), followers: [node(1)]),
        ])
}

private func joined(_ shards: String..., to topology: Topology) throws -> Topology {
    try shards.reduce(topology) { try #require(try $0.adding(me, to: $1)) }
}

private func progress(
    shards: [String] = ["a"], saved: Topology? = nil, address: NodeAddress = me, limits: JoinLimits = JoinLimits()
) -> JoinProgress {
    JoinProgress(
        node: address, settings: JoinSettings(seeds: seeds, shards: shards), known: saved, hasData: saved != nil,
        limits: limits, jitter: { 1 })
}

private func answer(_ topology: Topology) throws -> JoinProgress.Event {
    .answer(NodeResponse(status: 200, body: ByteBuffer(bytes: try topology.json())))
}

private func answer(_ problem: Problem, retryAfter: String? = nil) -> JoinProgress.Event {
    var headers = HTTPHeaders()
    if let retryAfter { headers.add(name: "retry-after", value: retryAfter) }
    return .answer(
        NodeResponse(status: problem.kind.status, headers: headers, body: ByteBuffer(string: problem.json)))
}

private func redirect(to location: String?) -> JoinProgress.Event {
    .answer(NodeResponse(status: 307, headers: HTTPHeaders(location.map { [("location", $0)] } ?? [])))
}

extension JoinProgress.Action {
    /// As one line to compare.
    fileprivate var text: String {
        switch self {
        case .fetchTopology(let seed): "fetch \(seed.port)"
        case .serve(let topology): "serve \(topology.epoch)"
        case .register(let shard, let leader, let target): "register \(shard) \(leader.port) \(target)"
        case .wait(let until):
            "wait \(until.components.seconds * 1_000 + until.components.attoseconds / 1_000_000_000_000_000)"
        case .joined(let topology): "joined \(topology.epoch)"
        case .unconfirmed(let topology, let reason): "unconfirmed \(topology.epoch): \(reason)"
        case .failed(let error): "failed: \(error.message)"
        }
    }
}

@Suite struct JoinProgressTests {
    @Test func aNewNodeServesFirstAndRegistersThen() throws {
        var join = progress()
        let old = try topology()
        #expect(join.next(at: .zero).text == "fetch 8080")
        join.receive(try answer(old), at: .zero)
        #expect(join.next(at: .zero).text == "serve 1")
        #expect(join.next(at: .zero).text == "register a 7001 /shards/a/replicas")
        join.receive(try answer(joined("a", to: old)), at: .zero)
        #expect(join.next(at: .zero).text == "joined 2")
        // The end is the end.
        #expect(join.next(at: .seconds(100)).text == "joined 2")
    }

    @Test func severalShardsOneAfterTheOther() throws {
        var join = progress(shards: ["b", "a"])
        let old = try topology()
        _ = join.next(at: .zero)
        join.receive(try answer(old), at: .zero)
        #expect(join.next(at: .zero).text == "serve 1")
        #expect(join.next(at: .zero).text == "register b 7002 /shards/b/replicas")
        let first = try joined("b", to: old)
        join.receive(try answer(first), at: .zero)
        #expect(join.next(at: .zero).text == "register a 7001 /shards/a/replicas")
        join.receive(try answer(joined("a", to: first)), at: .zero)
        #expect(join.next(at: .zero).text == "joined 3")
    }

    @Test func joiningAgainAsksNoLeader() throws {
        let member = try joined("a", to: topology())
        for saved in [nil, member, try topology()] {
            var join = progress(saved: saved)
            #expect(join.next(at: .zero).text == "fetch 8080")
            join.receive(try answer(member), at: .zero)
            #expect(join.next(at: .zero).text == "serve 2")
            #expect(join.next(at: .zero).text == "joined 2")
        }
        // The other shard is asked for.
        var join = progress(shards: ["a", "b"], saved: member)
        _ = join.next(at: .zero)
        join.receive(try answer(member), at: .zero)
        #expect(join.next(at: .zero).text == "serve 2")
        #expect(join.next(at: .zero).text == "register b 7002 /shards/b/replicas")
    }

    /// A router that was started with the first sharding.toml knows less than this node.
    @Test func theNewerTopologyCounts() throws {
        let member = try joined("a", to: topology())
        var join = progress(saved: member)
        _ = join.next(at: .zero)
        join.receive(try answer(topology()), at: .zero)
        #expect(join.next(at: .zero).text == "serve 2")
        #expect(join.next(at: .zero).text == "joined 2")

        // And one that knows of the removal of this node makes it ask again.
        let removed = try #require(try member.removing(me, from: "a"))
        join = progress(saved: member)
        _ = join.next(at: .zero)
        join.receive(try answer(removed), at: .zero)
        #expect(join.next(at: .zero).text == "serve 3")
        #expect(join.next(at: .zero).text == "register a 7001 /shards/a/replicas")
    }

    // MARK: Trouble on the way

    @Test func redirectsAreFollowedToTheLeader() throws {
        var join = progress()
        let old = try topology()
        _ = join.next(at: .zero)
        join.receive(try answer(old), at: .zero)
        _ = join.next(at: .zero)
        #expect(join.next(at: .zero).text == "register a 7001 /shards/a/replicas")
        join.receive(redirect(to: "http://127.0.0.1:7002/shards/a/replicas?hops=1"), at: .zero)
        #expect(join.next(at: .zero).text == "register a 7002 /shards/a/replicas?hops=1")
        join.receive(redirect(to: "/elsewhere"), at: .zero)
        #expect(join.next(at: .zero).text == "register a 7002 /elsewhere")
        join.receive(try answer(joined("a", to: old)), at: .zero)
        #expect(join.next(at: .zero).text == "joined 2")
    }

    @Test func redirectsThatLeadNowhereStartOver() throws {
        for location in [nil, "https://127.0.0.1:1/", "nowhere"] {
            var join = progress()
            _ = join.next(at: .zero)
            join.receive(try answer(topology()), at: .zero)
            _ = join.next(at: .zero)
            _ = join.next(at: .zero)
            join.receive(redirect(to: location), at: .zero)
            #expect(join.next(at: .zero).text == "wait 100")
        }
        var limits = JoinLimits()
        limits.redirectsMax = 2
        var join = progress(limits: limits)
        _ = join.next(at: .zero)
        join.receive(try answer(topology()), at: .zero)
        _ = join.next(at: .zero)
        for port in 1...2 {
            #expect(join.next(at: .zero).text.hasPrefix("register"))
            join.receive(redirect(to: "http://127.0.0.1:\(port)/"), at: .zero)
        }
        #expect(join.next(at: .zero).text == "register a 2 /")
        join.receive(redirect(to: "http://127.0.0.1:3/"), at: .zero)
        #expect(join.next(at: .zero).text == "wait 100")
        #expect(join.next(at: .milliseconds(100)).text == "fetch 8081")
    }

    @Test func theLeaderIsLookedUpAgainAfterAFailure() throws {
        let failures: [JoinProgress.Event] = [
            .failure("cannot connect to 127.0.0.1:7001: connection refused"),
            answer(Problem(.unavailable, "starting")), answer(Problem(.overloaded, "busy")),
            answer(Problem(.topologyConflict, "changed")), answer(Problem(.notLeader, "no")),
            answer(Problem(.unknownShard, "not here")), answer(Problem(.internalError, "oops")),
            // Not what was asked for.
            try answer(topology(epoch: 7)), .answer(NodeResponse(status: 200, body: ByteBuffer(string: "{}"))),
        ]
        for failure in failures {
            var join = progress()
            _ = join.next(at: .zero)
            join.receive(try answer(topology()), at: .zero)
            _ = join.next(at: .zero)
            _ = join.next(at: .zero)
            join.receive(failure, at: .seconds(1))
            #expect(join.next(at: .seconds(1)).text == "wait 1100")
            #expect(join.lastFailure != nil)
            #expect(join.next(at: .seconds(2)).text == "fetch 8081")
            // The second node leads meanwhile.
            let promoted = try topology().promoting(node(2), in: "a", above: 1)
            join.receive(try answer(promoted), at: .seconds(2))
            // Serving is said once.
            #expect(join.next(at: .seconds(2)).text == "register a 7002 /shards/a/replicas")
        }
    }

    @Test func waitsDoubleUpToTheLongest() throws {
        var join = progress()
        var (now, waits) = (Duration.zero, [Duration]())
        for _ in 0..<8 {
            #expect(join.next(at: now).text.hasPrefix("fetch"))
            join.receive(.failure("refused"), at: now)
            guard case .wait(let until) = join.next(at: now) else {
                Issue.record("no wait")
                return
            }
            // Too early changes nothing.
            #expect(join.next(at: until - .milliseconds(1)).text.hasPrefix("wait"))
            waits.append(until - now)
            now = until
        }
        #expect(waits == [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000].map { .milliseconds($0) })
    }

    @Test func retryAfterIsHeededWithinReason() throws {
        for (seconds, wait) in [("1", 1_000), ("3600", 2_000), ("soon", 100), ("-5", 100)] {
            var join = progress()
            _ = join.next(at: .zero)
            join.receive(try answer(topology()), at: .zero)
            _ = join.next(at: .zero)
            _ = join.next(at: .zero)
            join.receive(answer(Problem(.unavailable, "later"), retryAfter: seconds), at: .zero)
            #expect(join.next(at: .zero).text == "wait \(wait)", "Retry-After: \(seconds)")
        }
    }

    @Test func theJitterShortensWaits() {
        var join = JoinProgress(
            node: me, settings: JoinSettings(seeds: seeds, shards: ["a"]), known: nil, hasData: false,
            jitter: { 0.5 })
        _ = join.next(at: .zero)
        join.receive(.failure("refused"), at: .zero)
        #expect(join.next(at: .zero).text == "wait 50")
    }

    /// A sharding.toml that is ahead of the cluster must not have the node register in circles.
    @Test func aNewerTopologyWithoutThisNodeIsNotOverruled() throws {
        var join = progress(saved: try topology(epoch: 9))
        _ = join.next(at: .zero)
        join.receive(try answer(topology()), at: .zero)
        #expect(join.next(at: .zero).text == "serve 9")
        #expect(join.next(at: .zero).text == "register a 7001 /shards/a/replicas")
        join.receive(try answer(joined("a", to: topology())), at: .zero)
        #expect(join.next(at: .zero).text == "wait 100")
        #expect(
            join.lastFailure == "127.0.0.1:7001 goes by a topology of epoch 2, this node by one of epoch 9")
    }

    // MARK: Giving up

    @Test func aNewNodeGivesUpWithTheLastReason() throws {
        var join = progress()
        _ = join.next(at: .zero)
        join.receive(.failure("cannot connect to 127.0.0.1:8080: connection refused"), at: .zero)
        #expect(join.next(at: .milliseconds(59_999)).text.hasPrefix("fetch"))
        join.receive(.failure("cannot connect to 127.0.0.1:8081: connection refused"), at: .seconds(60))
        let action = join.next(at: .seconds(70))
        #expect(
            action.text
                == "failed: could not join a within 60 s: cannot connect to 127.0.0.1:8081: connection refused; "
                + "--join has to name a router or node of the cluster")
        #expect(join.next(at: .seconds(71)).text == action.text)
    }

    @Test func aLeaderThatIsAwayIsNamed() throws {
        var join = progress()
        _ = join.next(at: .zero)
        join.receive(try answer(topology()), at: .zero)
        _ = join.next(at: .zero)
        _ = join.next(at: .zero)
        join.receive(.failure("cannot connect to 127.0.0.1:7001: connection refused"), at: .seconds(60))
        #expect(
            join.next(at: .seconds(99)).text
                == "failed: could not join a within 60 s: cannot connect to 127.0.0.1:7001: connection refused; it "
                + "leads a")
    }

    @Test func aMemberGoesOnWithoutTheCluster() throws {
        var join = progress(saved: try joined("a", to: topology()))
        _ = join.next(at: .zero)
        join.receive(.failure("cannot connect"), at: .milliseconds(10))
        #expect(join.next(at: .seconds(1)).text.hasPrefix("fetch"))
        join.receive(.failure("cannot connect"), at: .seconds(1))
        #expect(
            join.next(at: .seconds(4)).text
                == "unconfirmed 2: cannot connect; --join has to name a router or node of the cluster")
    }

    /// A member of one shard that is to join another is no member of both.
    @Test func aMemberOfSomeShardsWaitsForTheOthers() throws {
        var join = progress(shards: ["a", "b"], saved: try joined("a", to: topology()))
        _ = join.next(at: .zero)
        join.receive(.failure("cannot connect"), at: .zero)
        #expect(join.next(at: .seconds(59)).text.hasPrefix("fetch"))
        join.receive(.failure("cannot connect"), at: .seconds(59))
        #expect(join.next(at: .seconds(61)).text.hasPrefix("failed: could not join a, b within 60 s"))
    }

    @Test func whatCannotWorkIsRefusedAtOnce() throws {
        let found = try topology()
        let leading = try joined("a", to: found).promoting(me, in: "a", above: 2)
        let remote = try Topology.placing(
            cluster: "demo", epoch: 1,
            shards: [
                ShardPlacement(
                    name: "a", index: 0, leader: NodeAddress(host: "10.0.0.1", port: 7_001), followers: [])
            ])
        let cases: [(JoinProgress, Topology, String)] = [
            (
                progress(shards: ["a", "nine"]), found,
                "there is no shard \"nine\" to join; name one of a, b with --shard"
            ),
            (
                progress(saved: try topology(cluster: "other")), found,
                "this node belongs to cluster \"other\", --join leads to cluster \"demo\": name another --data-dir or "
                    + "another --join"
            ),
            (
                progress(shards: ["b"]), leading,
                "127.0.0.1:7009 leads a, but its data directory is new: start it with the old one, or have another "
                    + "node lead first with kv failover a"
            ),
            (
                progress(), remote,
                "10.0.0.1:7001 and others cannot reach this node as 127.0.0.1:7009: say with --advertise host:port how "
                    + "they do"
            ),
        ]
        for (machine, found, message) in cases {
            var join = machine
            _ = join.next(at: .zero)
            join.receive(try answer(found), at: .zero)
            #expect(join.next(at: .zero).text == "failed: \(message)")
        }
        // The leader that comes back with its data is welcome.
        var join = progress(saved: leading)
        _ = join.next(at: .zero)
        join.receive(try answer(leading), at: .zero)
        #expect(join.next(at: .zero).text == "serve \(leading.epoch)")
        #expect(join.next(at: .zero).text == "joined \(leading.epoch)")
    }

    @Test func aRefusalIsShownAtOnce() throws {
        let refusals: [Problem] = [
            Problem(.badRequest, "This is wrong."), Problem(.unknownPath, "Nothing is here."),
            Problem(.methodNotAllowed, "No."),
        ]
        for refusal in refusals {
            var join = progress()
            _ = join.next(at: .zero)
            join.receive(try answer(topology()), at: .zero)
            _ = join.next(at: .zero)
            _ = join.next(at: .zero)
            join.receive(answer(refusal), at: .zero)
            #expect(
                join.next(at: .zero).text
                    == "failed: 127.0.0.1:7001 does not make 127.0.0.1:7009 a replica of a: \(refusal.detail)")
        }
    }

    /// Another web server, or none of ours.
    @Test func whatIsNoClusterIsSaid() throws {
        for response in [NodeResponse(status: 404), NodeResponse(status: 200, body: ByteBuffer(string: "<html>"))] {
            var join = progress()
            _ = join.next(at: .zero)
            join.receive(.answer(response), at: .zero)
            #expect(
                join.lastFailure
                    == "127.0.0.1:8080 answers GET /topology with status \(response.status) and no topology; --join "
                    + "has to name a router or node of the cluster")
            // The other one may know.
            #expect(join.next(at: .milliseconds(100)).text == "fetch 8081")
        }
    }

    // MARK: Schedules

    /// Whatever is answered, in whatever order: it ends in bounded time, registers only what is missing, and
    /// serves once and before it registers.
    @Test(arguments: 0..<10) func everyScheduleEnds(round: UInt64) throws {
        let seed = 0xD157 &+ round
        var random = SeededGenerator(seed: seed)
        for _ in 0..<10 {
            try oneSchedule(&random, "seed \(seed)")
        }
    }

    private func oneSchedule(_ random: inout SeededGenerator, _ seed: String) throws {
        var cluster = try topology()
        if Bool.random(using: &random) { cluster = try joined("a", to: cluster) }
        let saved = [nil, cluster, try topology()].randomElement(using: &random)!
        var join = progress(shards: ["a", "b"].shuffled(using: &random), saved: saved)
        var (now, served) = (Duration.zero, 0)
        for _ in 0..<10_000 {
            switch join.next(at: now) {
            case .serve:
                served += 1
                continue
            case .wait(let until):
                #expect(until > now, "\(seed)")
                now = until
                continue
            case .joined(let topology):
                #expect(topology == cluster && served == 1, "\(seed)")
                return
            case .failed(let error):
                #expect(now >= .seconds(60) && error.code == .timedOut, "\(seed): \(error)")
                return
            case .unconfirmed:
                Issue.record("it never was a member of both: \(seed)")
                return
            case .fetchTopology:
                now += .milliseconds(Int.random(in: 0...5_000, using: &random))
                join.receive(try drawn(Int.random(in: 0..<4, using: &random), cluster), at: now)
            case .register(let shard, _, _):
                #expect(served == 1, "\(seed)")
                #expect(cluster.shard(named: shard)?.replicas.contains(me) == false, "\(seed)")
                now += .milliseconds(Int.random(in: 0...5_000, using: &random))
                let draw = Int.random(in: 0..<7, using: &random)
                // Of 1 and 5 one is lost on the way there, the other on the way back.
                if [0, 5].contains(draw) { cluster = try joined(shard, to: cluster) }
                join.receive(try drawn(draw, cluster), at: now)
            }
        }
        Issue.record("it does not end: \(seed)")
    }

    private func drawn(_ draw: Int, _ cluster: Topology) throws -> JoinProgress.Event {
        switch draw {
        case 0: .answer(NodeResponse(status: 200, body: ByteBuffer(bytes: try cluster.json())))
        case 1, 5: .failure("lost")
        case 2: .answer(NodeResponse(status: 503))
        case 3: .answer(NodeResponse(status: 307, headers: ["location": "http://127.0.0.1:7002/"]))
        case 4: .answer(NodeResponse(status: 409))
        default: .answer(NodeResponse(status: 500))
        }
    }
}
