import Core
import DistribKVClient
import NIOCore
import TestSupport
import Testing
import Wire

/// Batches over nodes that fail, refuse and change leaders, by seeds.
@Suite struct BatchProgressTests {
    /// What nodes hold together: a list of what was appended, for each key. Tells lost, doubled and swapped operations.
    private final class Cluster {
        var generator: SeededGenerator
        let shards: Int
        let nodes: Int
        /// By shard: who really leads, and who is believed to.
        var leaders: [Int]
        var believed: [Int]
        var histories: [Int: [Int]] = [:]

        init(seed: UInt64, shards: Int, nodes: Int) {
            generator = SeededGenerator(seed: seed)
            self.shards = shards
            self.nodes = nodes
            leaders = (0..<shards).map { $0 % nodes }
            believed = leaders
        }

        static func address(_ node: Int) -> NodeAddress { NodeAddress(host: "node", port: 1 + node) }
    }

    private struct Item {
        var key: Int
        var kind: BatchProgress.Operation.Kind
    }

    private static func operation(_ item: Item) -> BatchProgress.Operation {
        let key = ByteBuffer(string: "\(item.key)")
        return switch item.kind {
        case .read: .init(BatchOperation(key: key, action: .get))
        case .plainWrite: .init(BatchOperation(key: key, action: .put(ByteBuffer(string: "v"))))
        case .otherWrite: .init(BatchOperation(key: key, action: .increment(by: 1)))
        }
    }

    private static let policies = [
        BatchProgress.Policy.service,
        BatchProgress.Policy(
            partOperationsMax: 3, partBytesMax: 9, attemptsMax: 4, repeatsPlainWrites: true, repeatsOverloaded: true),
    ]

    /// A read's result is how many writes of its key it saw; a write's the place it has in its key's history.
    @Test(arguments: 0..<200) func everyOperationIsDoneInItsOrderOrAnsweredAsFailed(seed: Int) throws {
        let policy = Self.policies[seed % 2]
        let cluster = Cluster(seed: UInt64(seed), shards: 1 + seed % 5, nodes: 1 + seed % 3)
        let kinds: [BatchProgress.Operation.Kind] = [.read, .plainWrite, .otherWrite]
        let items = (0..<Int.random(in: 0...60, using: &cluster.generator)).map { _ in
            Item(
                key: Int.random(in: 0..<8, using: &cluster.generator),
                kind: kinds.randomElement(using: &cluster.generator) ?? .read)
        }
        var progress = BatchProgress(items.map(Self.operation), policy: policy)
        var underWay: [BatchProgress.Part] = []
        /// Operations that a node did without anybody hearing of it.
        var unheard: Set<Int> = []
        var steps = 0
        while progress.step != .complete {
            steps += 1
            try #require(steps < 10_000, "it never ends")
            if case .wait = progress.step, Bool.random(using: &cluster.generator) || underWay.isEmpty {
                cluster.believed = cluster.leaders
                progress.resume()
                continue
            }
            if progress.step == .send {
                let leaders = cluster.believed.map { node -> BatchProgress.Leader in
                    Int.random(in: 0..<10, using: &cluster.generator) == 0
                        ? .none(Problem(.unavailable, "dead")) : .node(Cluster.address(node))
                }
                let parts = progress.nextParts(leaders: leaders) { items[$0].key % cluster.shards }
                for part in parts {
                    #expect(part.operations == part.operations.sorted() && !part.operations.isEmpty)
                    #expect(part.operations.count <= policy.partOperationsMax)
                    #expect(!underWay.contains { $0.node == part.node }, "a node has one part at a time")
                }
                underWay += parts
                if !parts.isEmpty { continue }
            }
            guard let place = underWay.indices.randomElement(using: &cluster.generator) else { continue }
            let part = underWay.remove(at: place)
            let answer = answer(to: part, items, cluster, &unheard)
            progress.received(answer, of: part)
            if Int.random(in: 0..<6, using: &cluster.generator) == 0 {
                let shard = Int.random(in: 0..<cluster.shards, using: &cluster.generator)
                cluster.leaders[shard] = Int.random(in: 0..<cluster.nodes, using: &cluster.generator)
            }
        }
        try check(progress.results, items, cluster, unheard, policy)
    }

    private func answer(
        to part: BatchProgress.Part, _ items: [Item], _ cluster: Cluster, _ unheard: inout Set<Int>
    ) -> BatchAnswer {
        switch Int.random(in: 0..<10, using: &cluster.generator) {
        case 0: return .refused(.init(Problem(.overloaded, "full")))
        case 1: return .failed(.init(Problem(.unavailable, "refused")), maybeDone: false)
        case 2:
            if Bool.random(using: &cluster.generator) {
                for (operation, line) in zip(part.operations, carryOut(part, items, cluster))
                where !line.states(.notLeader) {
                    unheard.insert(operation)
                }
            }
            return .failed(.init(Problem(.upstreamTimeout, "silent")), maybeDone: true)
        default: return .lines(carryOut(part, items, cluster))
        }
    }

    private func carryOut(_ part: BatchProgress.Part, _ items: [Item], _ cluster: Cluster) -> [BatchLine] {
        part.operations.map { operation in
            let item = items[operation]
            guard Cluster.address(cluster.leaders[item.key % cluster.shards]) == part.node else {
                return .result(.failed(Problem(.notLeader, "another")))
            }
            if item.kind != .read { cluster.histories[item.key, default: []].append(operation) }
            let seen = cluster.histories[item.key]?.count ?? 0
            return .result(.counted(Int64(seen), Version(rawValue: 1)))
        }
    }

    private func check(
        _ results: [BatchLine], _ items: [Item], _ cluster: Cluster, _ unheard: Set<Int>, _ policy: BatchProgress.Policy
    ) throws {
        #expect(results.count == items.count)
        for (operation, line) in results.enumerated() {
            let item = items[operation]
            let times = cluster.histories[item.key]?.count { $0 == operation } ?? 0
            switch try line.result() {
            case .counted(let seen, _) where item.kind == .read:
                let before = cluster.histories[item.key]?.prefix(Int(seen)) ?? []
                #expect(!before.contains { $0 > operation }, "a get sees no write behind it")
            case .counted:
                #expect(times >= 1, "acknowledged and not done")
                // Twice only what may be: a plain write whose first answer was lost.
                #expect(
                    times == 1 || (item.kind == .plainWrite && policy.repeatsPlainWrites && unheard.contains(operation))
                )
            case .failed(let failure):
                // What was said to be undone is undone; of the rest nobody knows.
                if item.kind != .read, times > 0 { #expect(unheard.contains(operation), "\(failure)") }
            default: Issue.record("no such result")
            }
        }
        // Whatever was done of a key was done in its order, repeated plain writes aside.
        for (key, history) in cluster.histories where !policy.repeatsPlainWrites {
            #expect(history == history.sorted(), "key \(key)")
        }
    }

    @Test func nothingOvertakesWhatWaits() {
        let items = (0..<4).map { _ in Item(key: 0, kind: .plainWrite) }
        var progress = BatchProgress(
            items.map(Self.operation),
            policy: .init(
                partOperationsMax: 2, partBytesMax: .max, attemptsMax: 2, repeatsPlainWrites: false,
                repeatsOverloaded: false))
        let leaders = [BatchProgress.Leader.node(Cluster.address(0))]
        let first = progress.nextParts(leaders: leaders) { _ in 0 }
        #expect(first.map(\.operations) == [[0, 1]])
        #expect(progress.nextParts(leaders: leaders) { _ in 0 }.isEmpty)
        progress.received(
            .lines([.result(.written(.zero)), .raw(ByteBuffer(string: #"{"status":409,"type":"not-leader"}"#))]),
            of: first[0])
        #expect(progress.step == .wait(attempt: 1))
        #expect(progress.nextParts(leaders: leaders) { _ in 0 }.isEmpty)
        progress.resume()
        let second = progress.nextParts(leaders: leaders) { _ in 0 }
        #expect(second.map(\.operations) == [[1, 2]])
        progress.received(.refused(.init(Problem(.notLeader, "again"))), of: second[0])
        // That was the last attempt of everything: what is left goes once more and is then answered.
        let third = progress.nextParts(leaders: leaders) { _ in 0 }
        #expect(third.map(\.operations) == [[3]])
        progress.received(.failed(.init(Problem(.badGateway, "broken.")), maybeDone: true), of: third[0])
        #expect(progress.step == .complete)
        let types = progress.results.map { line -> String in
            if case .failed(let failure)? = try? line.result() { failure.type } else { "done" }
        }
        #expect(types[0] == "done" && types[2...] == ["not-leader", "bad-gateway"])
    }

    @Test func anOldLeaderMustAnswerBeforeANewOneIsAsked() {
        let items = (0..<2).map { _ in Item(key: 0, kind: .otherWrite) }
        var progress = BatchProgress(
            items.map(Self.operation),
            policy: .init(
                partOperationsMax: 1, partBytesMax: .max, attemptsMax: 2, repeatsPlainWrites: false,
                repeatsOverloaded: false))
        let first = progress.nextParts(leaders: [.node(Cluster.address(0))]) { _ in 0 }
        #expect(progress.nextParts(leaders: [.node(Cluster.address(1))]) { _ in 0 }.isEmpty)
        progress.received(.lines([.result(.written(.zero))]), of: first[0])
        #expect(progress.nextParts(leaders: [.node(Cluster.address(1))]) { _ in 0 }.map(\.operations) == [[1]])
    }

    @Test func givingUpAnswersWhatWasNotSent() throws {
        var progress = BatchProgress(
            [Self.operation(Item(key: 0, kind: .read)), Self.operation(Item(key: 1, kind: .read))], policy: .service)
        let parts = progress.nextParts(leaders: [.node(Cluster.address(0)), .none(Problem(.unavailable, "dead"))]) {
            $0
        }
        #expect(parts.count == 1 && progress.step == .wait(attempt: 1))
        progress.giveUp(Problem(.upstreamTimeout, "over"))
        #expect(progress.step == .receive)
        progress.received(.lines([.result(.missing)]), of: parts[0])
        guard case .failed(let failure) = try progress.results[1].result() else { throw KVError(.notFound, "") }
        #expect(failure.detail == "dead")
    }

    @Test func answersOfNodesAreRead() throws {
        let address = Cluster.address(0)
        func answer(_ status: Int, _ body: String, count: Int = 1) -> BatchAnswer {
            BatchAnswer(NodeResponse(status: status, body: ByteBuffer(string: body)), count: count, from: address)
        }
        guard case .lines(let lines) = answer(200, "{\"status\":204,\"version\":\"0190000000000001\"}\n") else {
            throw KVError(.invalidData, "no lines")
        }
        #expect(try lines[0].result() == .written(Version(rawValue: 0x0190_0000_0000_0001)))
        guard case .failed(_, maybeDone: true) = answer(200, "", count: 1),
            case .failed(_, maybeDone: true) = answer(200, "{}\n{}\n", count: 1),
            case .failed(_, maybeDone: true) = answer(502, "<html>"),
            case .refused(let refusal) = answer(503, #"{"type":"overloaded","detail":"x"}"#)
        else { throw KVError(.invalidData, "another answer was expected") }
        #expect(refusal.status == 503 && refusal.type == "overloaded")
    }
}
