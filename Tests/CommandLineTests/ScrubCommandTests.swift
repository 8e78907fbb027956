import Core
import Sharding
import Synchronization
import TestSupport
import Testing
import Wire

@testable import kv

@Suite struct ScrubCommandTests {
    private func document(
        _ number: UInt64, isRunning: Bool = false, damage: [String] = [], failure: String? = nil
    ) -> ScriptedServer.Answer {
        var document = ScrubDocument(shard: "s", number: number, isRunning: isRunning)
        (document.bytesDone, document.bytesTotal) = (isRunning ? 10 : 20, 20)
        (document.damage, document.failure) = (damage, failure)
        var answer = answer(document)
        if isRunning { answer.status = 202 }
        return answer
    }

    @Test func followersComeFirst() async throws {
        let nodes = try await FakeNodes(3)
        let topology = try nodes.topology(epoch: 1)
        let asked = Mutex<[String]>([])
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": return answer(topology)
            case "POST /shards/s/scrub":
                asked.withLock { $0.append("\(node) POST") }
                return document(4, isRunning: true)
            case "GET /shards/s/scrub":
                asked.withLock { $0.append("\(node) GET") }
                return document(4)
            default: return nil
            }
        }
        try await nodes.run(["scrub", "s"])
        #expect(asked.withLock { $0 } == ["1 POST", "1 GET", "2 POST", "2 GET", "0 POST", "0 GET"])
        try await nodes.run(["scrub", "s", "--node", "\(nodes.nodes[2].address)", "--json"])
        #expect(asked.withLock { $0.suffix(2) } == ["2 POST", "2 GET"])
        let refused = try await nodes.failure(["scrub", "s", "--node", "127.0.0.1:1"])
        #expect(refused.status == .usage)
    }

    /// Damage weighs more than a replica that cannot be read, wherever it is found.
    @Test func endsWithWhatWasFound() async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        let leader = Mutex("whole")
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": return answer(topology)
            case "POST /shards/s/scrub" where node == 1:
                return .init(503, body: Problem(.unavailable, "it is not open").json)
            case "POST /shards/s/scrub": return document(1, isRunning: true)
            case "GET /shards/s/scrub":
                return leader.withLock { $0 } == "whole"
                    ? document(1) : document(1, damage: ["000007.sst is damaged"], failure: "it was ended")
            default: return nil
            }
        }
        #expect(try await nodes.failure(["scrub", "s"]).status == .unavailable)
        leader.withLock { $0 = "damaged" }
        #expect(try await nodes.failure(["scrub", "s"]).status == .conditionFailed)
    }

    /// A replica that found damage is rebuilt, and does not answer meanwhile.
    @Test func aSilentNodeIsWaitedFor() async throws {
        let nodes = try await FakeNodes(1)
        let topology = try nodes.topology(epoch: 1)
        let looks = Mutex(0)
        nodes.answer { _, request, _ in
            switch request {
            case "GET /topology": return answer(topology)
            case "POST /shards/s/scrub": return document(1, isRunning: true)
            case "GET /shards/s/scrub":
                let look = looks.withLock { looks in
                    looks += 1
                    return looks
                }
                return look == 1
                    ? .init(503, body: Problem(.unavailable, "it is being rebuilt").json)
                    : document(1, damage: ["000007.sst is damaged"], failure: "the replica was closed meanwhile")
            default: return nil
            }
        }
        #expect(try await nodes.failure(["scrub", "s"]).status == .conditionFailed)
        #expect(looks.withLock { $0 } == 2)
    }

    @Test func oneThatIsForgottenIsNoSuccess() async throws {
        let nodes = try await FakeNodes(1)
        let topology = try nodes.topology(epoch: 1)
        nodes.answer { _, request, _ in
            switch request {
            case "GET /topology": answer(topology)
            case "POST /shards/s/scrub": document(3, isRunning: true)
            case "GET /shards/s/scrub": document(0)
            default: nil
            }
        }
        #expect(try await nodes.failure(["scrub", "s"]).status == .unavailable)
    }

    @Test func theBarSaysHowFarItIs() throws {
        var display = ScrubDisplay(node: NodeAddress(host: "n", port: 1))
        var scrub = ScrubDocument(shard: "s", number: 1, isRunning: true)
        (scrub.bytesDone, scrub.bytesTotal, scrub.milliseconds) = (0, 4 << 20, 0)
        _ = display.bar(scrub, width: 80)
        (scrub.bytesDone, scrub.milliseconds, scrub.damage) = (1 << 20, 1_000, ["a"])
        let bar = display.bar(scrub, width: 80)
        #expect(bar.count <= 80)
        #expect(bar.hasSuffix("]   25%  n:1  1.0 MiB  1.0 MiB/s  1 damaged  ETA 0:03"), "\(bar)")
    }
}
