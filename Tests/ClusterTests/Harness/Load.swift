import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import TestSupport
import Testing
import Wire

/// What the cluster has acknowledged, as the writers saw it.
///
/// A key belongs to one writer, and after a write of unknown outcome it is written no more: so its content is either
/// what was acknowledged last or what that one write meant to leave.
final class Ledger: Sendable {
    struct Write: Sendable, Hashable {
        /// nil for a removal.
        var value: [UInt8]?
        /// nil where the outcome is not known.
        var version: Version?
    }

    struct Entry: Sendable {
        var acknowledged: Write?
        var uncertain: Write?
    }

    private let entries = Mutex<[String: Entry]>([:])
    private let counts = Atomic<Int>(0)

    /// Acknowledged writes.
    var acknowledgedCount: Int { counts.load(ordering: .relaxed) }
    var all: [String: Entry] { entries.withLock { $0 } }

    func acknowledge(_ key: String, _ value: [UInt8]?, _ version: Version) {
        entries.withLock { $0[key, default: Entry()].acknowledged = Write(value: value, version: version) }
        counts.add(1, ordering: .relaxed)
    }

    func doubt(_ key: String, _ value: [UInt8]?) {
        entries.withLock { $0[key, default: Entry()].uncertain = Write(value: value, version: nil) }
    }

    /// Reads every key that was ever written from `address` and says what is wrong, at most a few sentences.
    /// - Parameter shard: only keys of this one; nil for all.
    func discrepancies(
        at address: NodeAddress, in cluster: TestCluster, shard: String? = nil
    ) async throws -> [String] {
        let topology = cluster.topology
        let keys = all.filter { shard == nil || topology.shard(of: HashSlot(key: Array($0.key.utf8))).name == shard }
        let chunks = Array(keys).chunked(into: max(1, keys.count / 16))
        return try await withThrowingTaskGroup(of: [String].self) { group in
            for chunk in chunks {
                group.addTask {
                    var wrong: [String] = []
                    for (key, entry) in chunk {
                        let response = try await HTTP.get(APIPath.key(key.utf8), from: address)
                        if let sentence = Ledger.compare(key, entry, response) { wrong.append(sentence) }
                        if wrong.count >= 5 { break }
                    }
                    return wrong
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
    }

    private static func compare(_ key: String, _ entry: Entry, _ response: NodeResponse) -> String? {
        let found = response.status == 200 ? response.bytes : nil
        guard response.status == 200 || response.status == 404 else {
            return "\(key): answered \(response.status) \(response.text.prefix(200))"
        }
        if let uncertain = entry.uncertain, uncertain.value == found { return nil }
        let acknowledged = entry.acknowledged
        if acknowledged?.value == found, found == nil || acknowledged?.version == response.version { return nil }
        let expected = acknowledged.map { "\($0.value?.count ?? -1) bytes of version \($0.version?.hexDigits ?? "-")" }
        return "\(key): acknowledged \(expected ?? "nothing"), found \(found?.count ?? -1) bytes of version "
            + "\(response.version?.hexDigits ?? "-")"
    }
}

/// Writers that go on through failures until they are stopped.
struct Load: Sendable {
    /// How a writer reaches the cluster.
    enum Route: CaseIterable {
        /// To the shard's leader.
        case direct
        /// To the router, following redirects.
        case redirected
        /// Through the router.
        case proxied
    }

    let cluster: TestCluster
    let ledger: Ledger
    let name: String
    var routes: [Route] = Route.allCases
    /// Bytes of the largest value.
    var valueBytesMax = 600

    /// Runs `writers` writers beside `body`; they are stopped when it returns.
    func running(writers: Int, seed: UInt64, _ body: () async throws -> Void) async throws {
        let stop = StopFlag()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<writers {
                group.addTask {
                    await write(writer, SeededGenerator(seed: seed &+ UInt64(writer) &* 7_919), until: stop)
                }
            }
            defer { stop.raise() }
            try await body()
        }
    }

    /// Writes at least `count` more acknowledged writes, then returns.
    func writeMore(_ count: Int, writers: Int = 6, seed: UInt64) async throws {
        try await running(writers: writers, seed: seed) { try await waitForMore(count) }
    }

    /// Waits until `count` more writes are acknowledged.
    func waitForMore(_ count: Int) async throws {
        let target = ledger.acknowledgedCount + count
        try await eventually("\(count) acknowledged writes") { ledger.acknowledgedCount >= target }
    }

    private func write(_ writer: Int, _ seed: SeededGenerator, until stop: StopFlag) async {
        var random = seed
        var number = 0
        var own: [String] = []
        let prefix = "\(name)/w\(writer)/"
        while !stop.isRaised {
            let isNew = own.isEmpty || Int.random(in: 0..<10, using: &random) < 6
            let place = isNew ? own.count : Int.random(in: 0..<own.count, using: &random)
            let removes = !isNew && Int.random(in: 0..<3, using: &random) == 0
            if isNew {
                own.append(prefix + "\(number)")
                number += 1
            }
            let key = own[place]
            let value = removes ? nil : random.bytes(Int.random(in: 0...valueBytesMax, using: &random))
            let route = routes[Int.random(in: 0..<routes.count, using: &random)]
            switch await send(key, value, route) {
            case .acknowledged(let version): ledger.acknowledge(key, value, version)
            case .unknown:
                ledger.doubt(key, value)
                own.remove(at: place)
                await pause()
            case .notApplied:
                if isNew { own.remove(at: place) }
                await pause()
            }
        }
    }

    /// Whoever could not write lets others run; nothing depends on how long this is.
    private func pause() async {
        // Only cancellation ends it early, and then the writer ends too.
        try? await Task.sleep(for: .milliseconds(5))
    }

    private enum Outcome {
        case acknowledged(Version)
        case unknown
        case notApplied
    }

    private func send(_ key: String, _ value: [UInt8]?, _ route: Route) async -> Outcome {
        let path = APIPath.key(key.utf8)
        let method: HTTPMethod = value == nil ? .DELETE : .PUT
        do {
            let response: NodeResponse
            switch route {
            case .direct:
                response = try await HTTP.send(method, path, to: cluster.leader(of: Array(key.utf8)), body: value)
            case .redirected:
                response = try await HTTP.following(method, path, to: cluster.router, body: value).response
            case .proxied:
                response = try await HTTP.send(method, path + "?proxy=true", to: cluster.router, body: value)
            }
            if response.status == 204, let version = response.version { return .acknowledged(version) }
            return .unknown
        } catch let failure as NodeFailure where failure.delivery == .notSent {
            return .notApplied
        } catch {
            return .unknown
        }
    }
}

final class StopFlag: Sendable {
    private let flag = Atomic<Bool>(false)
    var isRaised: Bool { flag.load(ordering: .relaxed) }
    func raise() { flag.store(true, ordering: .relaxed) }
}

extension Array {
    func chunked(into size: Int) -> [[Element]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
    }
}

extension TestCluster {
    /// Waits until every follower stands where its leader stands. Nobody may be writing.
    func waitForConvergence() async throws {
        for shard in topology.shards {
            for follower in shard.followers {
                try await eventually("\(follower) to catch up on \(shard.name)") {
                    let leader = try await HTTP.position(of: shard.name, at: shard.leader)
                    return try await HTTP.position(of: shard.name, at: follower) == leader
                }
            }
        }
    }

    /// Every replica of every shard holds exactly what the ledger says.
    func expectContent(_ ledger: Ledger, _ comment: String, sourceLocation: SourceLocation = #_sourceLocation)
        async throws
    {
        for shard in topology.shards {
            for replica in shard.replicas {
                let wrong = try await ledger.discrepancies(at: replica, in: self, shard: shard.name)
                #expect(
                    wrong.isEmpty, "\(comment): \(shard.name) at \(replica): \(wrong.prefix(5))",
                    sourceLocation: sourceLocation)
            }
            try await expectSameContent(shard, ledger, comment, sourceLocation: sourceLocation)
        }
    }

    /// Also keys of unknown outcome are the same on every replica.
    private func expectSameContent(
        _ shard: ShardTopology, _ ledger: Ledger, _ comment: String, sourceLocation: SourceLocation
    ) async throws {
        let doubtful = ledger.all.filter { $0.value.uncertain != nil && self.shard(of: Array($0.key.utf8)) == shard }
        for key in doubtful.keys {
            let path = APIPath.key(key.utf8)
            let leader = try await HTTP.get(path, from: shard.leader)
            for follower in shard.followers {
                let copy = try await HTTP.get(path, from: follower)
                #expect(
                    copy.status == leader.status && copy.bytes == leader.bytes && copy.version == leader.version
                        || copy.status == 404 && leader.status == 404,
                    "\(comment): \(key) differs at \(follower)", sourceLocation: sourceLocation)
            }
        }
    }
}
