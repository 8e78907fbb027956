import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import ServiceSupport
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

@Suite(.timeLimit(.minutes(2))) struct ReadGuaranteeTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 2) }

    private func withLeaderAndFollower(_ body: (NodeClient, NodeClient) async throws -> Void) async throws {
        try await shard.withNode(0) { leader in try await shard.withNode(1) { try await body(leader, $0) } }
    }

    private func leaderLocation(_ target: String) -> String { "http://\(shard.replicas[0])\(target)" }

    @Test func answersOfFollowersSayHowOldTheyMayBe() async throws {
        try await withLeaderAndFollower { leader, follower async throws in
            let written = try await leader.put("/kv/a", "1")
            #expect(try await follower.get("/kv/a").field("kv-lag") == nil)
            let log = try await leader.log()
            #expect(log.status == 200)
            let clock = try #require(log.field("kv-clock").flatMap { UInt64($0) })
            #expect(wallMilliseconds - min(wallMilliseconds, clock) < 60_000)
            #expect(log.field("kv-lsn") == "2")
            #expect(try await follower.push(log).status == 200)

            let found = try await follower.get("/kv/a")
            #expect(found.status == 200)
            #expect(found.version == written.version)
            #expect(found.field("kv-lag").flatMap { UInt64($0) } != nil)
            let missing = try await follower.get("/kv/none")
            #expect(missing.status == 404)
            #expect(missing.problem.type == "not-found")
            #expect(missing.field("kv-lag").flatMap { UInt64($0) } != nil)
            let etag = try #require(found.field("etag"))
            let unchanged = try await follower.send(.GET, "/kv/a", [(name: "If-None-Match", value: etag)])
            #expect(unchanged.status == 304)
            #expect(unchanged.field("kv-lag").flatMap { UInt64($0) } != nil)
            #expect(try await leader.get("/kv/a").field("kv-lag") == nil)
            #expect(try await follower.status().lagMilliseconds != nil)
            let shown = try await follower.metric("distribkv_shard_lag_milliseconds")
            #expect(shown == shown.rounded() && shown < 60_000)
            #expect(try await leader.status().lagMilliseconds == nil)
            #expect(try await leader.status().followers == [])
        }
    }

    /// Without writes a follower knows its age from heartbeats alone.
    @Test func heartbeatsRenewTheAgeAndLateOnesDoNot() async throws {
        try await withLeaderAndFollower { leader, follower async throws in
            #expect(try await follower.push(try await leader.log()).status == 200)
            let here = try await follower.position()
            let hour: UInt64 = 3_600_000
            #expect(try await follower.get("/kv/a?max_staleness=1h").status == 404)
            let answer = try await follower.heartbeat(term: 1, lsn: 1, clockMilliseconds: wallMilliseconds + hour)
            #expect(answer.status == 200)
            #expect(
                try DocumentCoding.decode(PositionDocument.self, from: answer.body.readableBytesView).position == here)
            let lag = try #require(try await follower.status().lagMilliseconds)
            #expect(try await follower.heartbeat(term: 1, lsn: 1, clockMilliseconds: 5).status == 200)
            let later = try #require(try await follower.status().lagMilliseconds)
            #expect(lag < hour && later < hour)
        }
    }

    @Test func aFollowerThatDoesNotKnowItsAgeSendsOn() async throws {
        try await shard.withNode(1) { follower async throws in
            let response = try await follower.get("/kv/a%2Fb?max_staleness=1h")
            #expect(response.status == 307)
            #expect(response.field("location") == leaderLocation("/kv/a%2Fb?max_staleness=1h&hops=1"))
            // It is new, and has nothing to answer from.
            #expect(try await follower.get("/kv/a").status == 307)
            #expect(try await follower.status().state == .joining)
            // The leader is at lsn 7, and this replica at none: it still does not know.
            #expect(try await follower.heartbeat(term: 1, lsn: 7, clockMilliseconds: wallMilliseconds).status == 200)
            #expect(try await follower.get("/kv/a?max_staleness=1h").status == 307)
        }
    }

    @Test func onlyTheLeaderAnswersWhatOnlyTheLeaderMay() async throws {
        try await withLeaderAndFollower { leader, follower async throws in
            #expect(try await follower.push(try await leader.log()).status == 200)
            #expect(try await follower.status().state == .following)
            for method in [HTTPMethod.GET, .HEAD] {
                let response = try await follower.send(method, "/kv/a?consistency=leader&hops=2")
                #expect(response.status == 307)
                #expect(response.field("location") == leaderLocation("/kv/a?consistency=leader&hops=3"))
                #expect(try await leader.send(method, "/kv/a?consistency=leader&max_staleness=0ms").status == 404)
                #expect(try await follower.send(method, "/kv/a?consistency=eventual").status == 404)
            }
        }
    }

    @Test func aFollowerWithoutTheVersionWaitsAndSendsOn() async throws {
        try await withLeaderAndFollower { leader, follower async throws in
            let version = try #require(try await leader.put("/kv/a").version)
            let response = try await follower.get("/kv/a", minVersion: version)
            #expect(response.status == 307)
            #expect(response.field("location") == leaderLocation("/kv/a?hops=1"))
            #expect(try await leader.get("/kv/a", minVersion: version).status == 200)
            #expect(try await follower.push(try await leader.log()).status == 200)
            #expect(try await follower.get("/kv/a", minVersion: version).status == 200)
        }
    }

    /// The read is on its way before the write is on the follower, and finds it nevertheless.
    @Test func aFollowerAnswersWhenTheVersionCameInTime() async throws {
        try await withLeaderAndFollower { leader, follower async throws in
            var position = LogPosition.start
            for attempt in 0..<50 {
                let version = try #require(try await leader.put("/kv/a", "\(attempt)").version)
                let log = try await leader.log(after: position)
                async let read = follower.get("/kv/a", minVersion: version)
                // Behind the read on the follower's only event loop, most of the time.
                await Task.yield()
                let pushed = try await follower.push(log)
                #expect(pushed.status == 200)
                position = try DocumentCoding.decode(PositionDocument.self, from: pushed.body.readableBytesView)
                    .position
                let response = try await read
                guard response.status == 200 else {
                    #expect(response.status == 307)
                    continue
                }
                #expect(response.version == version)
                #expect(String(buffer: response.body) == "\(attempt)")
                return
            }
            Issue.record("no read waited with success")
        }
    }

    @Test func aLeaderRefusesAVersionThatItDoesNotHave() async throws {
        try await shard.withNode(0) { leader async throws in
            let version = try #require(try await leader.put("/kv/a").version)
            let response = try await leader.get("/kv/a", minVersion: Version(rawValue: version.rawValue + 1))
            #expect(response.status == 409)
            #expect(response.problem.type == "version-unknown")
        }
    }

    @Test(arguments: [
        ("consistency=strong", "eventual or leader"), ("consistency=", "eventual or leader"),
        ("max_staleness=5", "as in 500ms"), ("max_staleness=-1s", "as in 500ms"), ("ack=all", "for writes"),
        ("timeout=1s", "for writes"), ("consistenc=leader", "known are"),
    ])
    func refuses(query: String, saying: String) async throws {
        try await shard.withNode(1) { follower async throws in
            let response = try await follower.get("/kv/a?\(query)")
            #expect(response.status == 400)
            #expect(response.problem.detail.contains(saying), "\(response.problem.detail)")
        }
    }

    @Test(arguments: ["1", "000000000000000g", "0000000000000001 "]) func refusesWhatIsNoVersion(text: String)
        async throws
    {
        try await shard.withNode(1) { follower async throws in
            let response = try await follower.send(.GET, "/kv/a", [(name: "kv-min-version", value: text)])
            #expect(response.status == 400)
            #expect(response.problem.detail.contains("16 hex digits"))
        }
    }

    @Test func heartbeatsCarryTheTerm() async throws {
        try await shard.withNode(1) { follower async throws in
            #expect(try await follower.heartbeat(term: 5, lsn: 0, clockMilliseconds: 1).status == 200)
            #expect(try await follower.status().newestTerm == 5)
            let stale = try await follower.heartbeat(term: 4, lsn: 9, clockMilliseconds: wallMilliseconds)
            #expect(stale.status == 409)
            #expect(stale.problem.type == "stale-term")
            #expect(try await follower.heartbeat(term: 5, lsn: 0, clockMilliseconds: 2).status == 200)
            let nonsense = try await follower.send(
                .POST, APIPath.batches(shard: "s0"), [(name: "kv-term", value: "5"), (name: "kv-lsn", value: "x")])
            #expect(nonsense.status == 400)
        }
        try await shard.withNode(0) { leader async throws in
            let response = try await leader.heartbeat(term: 1, lsn: 1, clockMilliseconds: 1)
            #expect(response.status == 409)
            #expect(response.problem.type == "stale-term")
        }
    }
}

@Suite struct ReadDecisionTests {
    private func guarantees(_ query: String) throws -> Guarantees {
        try Guarantees(QueryParameters(query[...]))
    }

    private func decide(
        _ query: String = "", _ minVersion: UInt64? = nil, leads: Bool = false, isLeader: Bool? = nil,
        isJoining: Bool = false, lag: UInt64? = 100, mayWait: Bool = true
    ) throws -> ReadDecision {
        ReadDecision(
            try guarantees(query), minVersion: minVersion.map { Version(rawValue: $0) },
            at: ReadDecision.Situation(
                leads: leads, isLeader: isLeader ?? leads, isJoining: isJoining, lagMilliseconds: lag,
                mayWait: mayWait), newest: Version(rawValue: 10))
    }

    @Test func followers() throws {
        #expect(try decide() == .answer)
        #expect(try decide(lag: nil) == .answer)
        #expect(try decide("consistency=eventual") == .answer)
        #expect(try decide("consistency=leader") == .redirectToLeader)
        #expect(try decide("max_staleness=100ms") == .answer)
        #expect(try decide("max_staleness=99ms") == .redirectToLeader)
        #expect(try decide("max_staleness=1h", lag: nil) == .redirectToLeader)
        #expect(try decide("", 10) == .answer)
        #expect(try decide("", 11) == .waitForVersion(Version(rawValue: 11)))
        #expect(try decide("", 11, mayWait: false) == .redirectToLeader)
        #expect(try decide("max_staleness=99ms", 11) == .redirectToLeader)
        #expect(try decide(isJoining: true) == .redirectToLeader)
        #expect(try decide("", 3, isJoining: true) == .redirectToLeader)
    }

    @Test func leaders() throws {
        #expect(try decide(leads: true, lag: nil) == .answer)
        #expect(try decide("consistency=leader&max_staleness=0ms", 10, leads: true, lag: nil) == .answer)
        #expect(try decide("", 11, leads: true) == .refuseVersion(Version(rawValue: 11)))
        #expect(try decide("consistency=leader", leads: true, isLeader: false) == .leaderIsChanging)
        #expect(try decide(leads: true, isLeader: false) == .answer)
        // It was to lead and has less than a follower: what is not here may be there.
        #expect(try decide(leads: true, isLeader: false, isJoining: true) == .leaderIsChanging)
        #expect(try decide("max_staleness=1h", leads: true, isLeader: false, isJoining: true) == .leaderIsChanging)
    }

    @Test func fieldsAreFoundInAnyCase() throws {
        let fields = try ReadFields([
            "Accept": "x", "IF-none-MATCH": "*", "kv-MIN-version": "0000000000000002",
            "KV-Min-Version": "0000000000000001",
            "Content-Length": "0",
        ])
        #expect(fields.hasCondition)
        #expect(fields.minVersion == Version(rawValue: 2))
        #expect(try ReadFields(["Accept": "x"]).minVersion == nil)
    }
}
