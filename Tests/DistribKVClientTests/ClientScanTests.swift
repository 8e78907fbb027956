import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import TestSupport
import Testing
import Wire

/// The client's scans, over nodes that answer as a test says.
@Suite struct ClientScanTests {
    private static func value(_ name: String, in target: String) -> String? {
        target.split(separator: "?").last?.split(separator: "&").first { $0.hasPrefix("\(name)=") }
            .map { String($0.dropFirst(name.count + 1)) }
    }

    private static func frames(_ keys: [String], oversized: Bool = false) -> String {
        var frames = ByteBuffer()
        for key in keys {
            Array(key.utf8).withUnsafeBytes { bytes in
                ScanFrame.write(
                    key: bytes, oversized ? .oversized : .value(bytes), version: Version(rawValue: 5),
                    ttlMilliseconds: key == "b1" ? 90 : nil, into: &frames)
            }
        }
        return String(buffer: frames)
    }

    private static func page(_ keys: [String], next: String? = nil, oversized: Bool = false) -> ScriptedServer.Action {
        let headers = [("content-type", MediaType.scanFrames)] + (next.map { [(KVHeader.next, $0)] } ?? [])
        return .answer(.init(200, headers, body: frames(keys, oversized: oversized)))
    }

    /// Shard-0 has a1, b1, c1 in pages of one, shard-1 a2 and b2 in one.
    private static func answer(_ target: String) -> ScriptedServer.Action? {
        guard target.hasPrefix("/kv?") else { return nil }
        guard value("shard", in: target) == "shard-0" else { return page(["a2", "b2"]) }
        switch value("start", in: target) {
        case nil: return page(["a1"], next: "b")
        case "b": return page(["b1"], next: "b1%00")
        default: return page(["c1"])
        }
    }

    private func keys(_ scan: KVScan) async throws -> [String] {
        var keys: [String] = []
        for try await record in scan { keys.append(String(decoding: record.key, as: UTF8.self)) }
        return keys
    }

    @Test func pagesOfShardsAreMerged() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        cluster.override { _, request in Self.answer(request.target) }
        try await withClient(seeds: cluster.addresses) { client async throws in
            #expect(try await keys(client.scan()) == ["a1", "a2", "b1", "b2", "c1"])
            let asked = (0..<2).flatMap { cluster.requests($0, path: "/kv?") }
            #expect(asked.count == 4)
            #expect(asked.allSatisfy { $0.headers.first(name: "accept") == MediaType.scanFrames })
            var records: [KVRecord] = []
            for try await record in client.scan(limit: 3) { records.append(record) }
            #expect(records.map(\.ttl) == [nil, nil, .milliseconds(90)])
            #expect(records.allSatisfy { $0.version.rawValue == 5 && $0.value != nil })
            // It asked for no page that it did not need.
            let limited = (0..<2).flatMap { cluster.requests($0, path: "/kv?") }.count - asked.count
            #expect(limited == 3)
            #expect(try await keys(client.scan(start: "b".utf8, end: "a".utf8)).isEmpty)
        }
    }

    @Test func aRecordThatIsTooLargeIsFetchedByItself() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in
            guard request.target.hasPrefix("/kv?") else { return nil }
            if Self.value("prefix", in: request.target) == "big" { return Self.page(["big"]) }
            // Removed since the page was read.
            if Self.value("prefix", in: request.target) == "gone" { return Self.page([]) }
            return Self.page(["big", "gone"], oversized: true)
        }
        try await withClient(seeds: cluster.addresses) { client async throws in
            #expect(try await keys(client.scan()) == ["big"])
        }
    }

    @Test func whatAShardDoesNotAnswerIsAnError() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let answers: [(ScriptedServer.Action, KVError.Code)] = [
            (.answer(.init(503, body: Problem(.unavailable, "away").json)), .unavailable),
            (.answer(.init(404, body: Problem(.unknownShard, "not here").json)), .notFound),
            (.answer(.init(200, [("content-type", "text/plain")], body: "hello")), .invalidData),
            (.answer(.init(200, [("content-type", MediaType.scanFrames)], body: "\u{1}\u{0}damaged")), .invalidData),
        ]
        for (answer, code) in answers {
            cluster.override { _, request in request.target.hasPrefix("/kv?") ? answer : nil }
            try await withClient(seeds: cluster.addresses) {
                $0.attemptsMax = 2
            } _: { client async throws in
                let error = try await failure { () throws(KVError) in
                    var iterator = client.scan().makeAsyncIterator()
                    _ = try await iterator.next(isolation: nil)
                }
                #expect(error.code == code, "\(error)")
            }
        }
    }

    @Test func aScanEndsWithItsTask() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in request.target.hasPrefix("/kv?") ? .hold : nil }
        try await withClient(seeds: cluster.addresses) { client async throws in
            let task = Task {
                var iterator = client.scan().makeAsyncIterator()
                return try await iterator.next(isolation: nil)
            }
            try await eventually("the scan arrives") { cluster.requests(0, path: "/kv?").count == 1 }
            task.cancel()
            do {
                _ = try await task.value
                Issue.record("it was answered")
            } catch {
                #expect((error as? KVError)?.code == .cancelled)
            }
        }
    }

    @Test func boundsThatCannotBeAreRefused() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client async throws in
            let long = [UInt8](repeating: 1, count: 4_098)
            for scan in [
                client.scan(prefix: long), client.scan(start: long), client.scan(end: long, reverse: true),
                client.scan(options: ReadOptions(minVersion: Version(rawValue: 1))),
            ] {
                let error = try await failure { () throws(KVError) in
                    var iterator = scan.makeAsyncIterator()
                    _ = try await iterator.next(isolation: nil)
                }
                #expect(error.code == .invalidArgument)
            }
        }
    }
}
