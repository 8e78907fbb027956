import Core
import DistribKVClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Scans of a running cluster: through the router, a node, and the client.
    @Suite struct Scans {
        private struct Line: Decodable {
            var key: String?
            var keyBase64: Data?
            enum CodingKeys: String, CodingKey {
                case key
                case keyBase64 = "key_base64"
            }
            var bytes: [UInt8] { key.map { Array($0.utf8) } ?? keyBase64.map(Array.init) ?? [] }
        }

        private static func keys(_ response: NodeResponse) throws -> [[UInt8]] {
            guard response.status == 200 else { throw UnexpectedAnswer("a scan", response) }
            return try response.body.readableBytesView.split(separator: UInt8(ascii: "\n")).map {
                try JSONDecoder().decode(Line.self, from: Data($0)).bytes
            }
        }

        /// All keys that pages of a scan have.
        private static func pages(_ query: String, at address: NodeAddress) async throws -> [[UInt8]] {
            var keys: [[UInt8]] = []
            var start = ""
            while true {
                let page = try await HTTP.get("/kv?\(query)\(start)", from: address)
                keys += try self.keys(page)
                guard let next = page.headers.first(name: KVHeader.next) else { return keys }
                start = "&start=\(next)"
            }
        }

        private static func withClient(
            _ cluster: TestCluster, _ body: (KVClient) async throws -> Void
        ) async throws {
            var configuration = KVClientConfiguration()
            configuration.scanPageBytes = 2_000
            let client = KVClient(seeds: [cluster.router], configuration: configuration)
            do {
                try await body(client)
                await client.shutdown()
            } catch {
                await client.shutdown()
                throw error
            }
        }

        private static func sorted(_ keys: some Sequence<[UInt8]>) -> [[UInt8]] {
            keys.sorted { $0.lexicographicallyPrecedes($1) }
        }

        @Test(.timeLimit(.minutes(3)))
        func everyKeyInOrder() async throws {
            try await TestCluster.running(.ring(shards: 3, nodes: 3, replicas: 2)) { cluster in
                let seed = UInt64.random(in: 0 ... .max)
                var random = SeededGenerator(seed: seed)
                var keys: Set<[UInt8]> = []
                for number in 0..<600 {
                    let binary = number % 3 == 0
                    keys.insert(
                        binary
                            ? random.bytes(Int.random(in: 1...12, using: &random))
                            : Array("p/\(Int.random(in: 0..<100_000, using: &random))".utf8))
                }
                for number in 0..<30 { keys.insert(Array("{cart:7}/\(number)".utf8)) }
                let all = Self.sorted(keys)
                try await Self.withClient(cluster) { client in
                    let results = await client.writeAll(all.map { KVWrite(key: $0, value: ByteBuffer(bytes: $0)) })
                    for result in results { _ = try result.get() }
                    #expect(
                        try await Self.pages("limit=70&consistency=leader", at: cluster.router) == all, "seed \(seed)")
                    #expect(
                        try await Self.pages("limit=70&consistency=leader&reverse=true", at: cluster.nodes[1])
                            == all.reversed(), "seed \(seed)")
                    let tagged = all.filter { $0.starts(with: "{cart:7}".utf8) }
                    #expect(
                        try await Self.pages("prefix=%7Bcart:7%7D&limit=9&consistency=leader", at: cluster.router)
                            == tagged)
                    #expect(tagged.count == 30)
                    // The client reads what it wrote, of any replica, in small pages.
                    var seen: [[UInt8]] = []
                    for try await record in client.scan() {
                        #expect(record.value.map { Array($0.readableBytesView) } == record.key)
                        seen.append(record.key)
                    }
                    #expect(seen == all, "seed \(seed)")
                    seen = []
                    for try await record in client.scan(prefix: "p/".utf8, limit: 150, reverse: true, keysOnly: true) {
                        #expect(record.value == nil)
                        seen.append(record.key)
                    }
                    let expected = all.filter { $0.starts(with: "p/".utf8) }.reversed().prefix(150)
                    #expect(seen == Array(expected), "seed \(seed)")
                    // Larger than a page of the client's.
                    let large = ByteBuffer(repeating: 7, count: 100_000)
                    try await client.put("p/5".utf8, large)
                    let range = client.scan(start: "p/5".utf8, end: "p/5\0".utf8)
                    for try await record in range { #expect(record.value == large) }
                }
            }
        }

        /// Half of the keys stay; the others come and go while scans run. Every scan has every key that stays, once.
        @Test(.timeLimit(.minutes(3)))
        func writesGoOn() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 1), replicator: false) { cluster in
                try await Self.withClient(cluster) { client in
                    let stable = (0..<1_000).map { Array("s/\($0)".utf8) }
                    for result in await client.writeAll(stable.map { KVWrite(key: $0, value: ByteBuffer(bytes: $0)) }) {
                        _ = try result.get()
                    }
                    let expected = Self.sorted(stable)
                    let writer = Task {
                        var round = 0
                        while !Task.isCancelled {
                            round += 1
                            let writes = (0..<200).map { number in
                                KVWrite(
                                    key: Array("s/\(number * 5)/x".utf8),
                                    value: round % 2 == 0 ? nil : ByteBuffer(string: "\(round)"))
                            }
                            for result in await client.writeAll(writes) {
                                do throws(KVError) {
                                    _ = try result.get()
                                } catch {
                                    // The last of them ends with its task.
                                    guard error.code == .cancelled, Task.isCancelled else { throw error }
                                }
                            }
                        }
                        return round
                    }
                    for pass in 0..<6 {
                        let seen =
                            switch pass % 3 {
                            case 0: try await Self.pages("limit=90&keys_only=true", at: cluster.router)
                            case 1:
                                Array(
                                    try await Self.pages("limit=90&keys_only=true&reverse=true", at: cluster.nodes[0])
                                        .reversed())
                            default:
                                try await client.scan(keysOnly: true).reduce(into: [[UInt8]]()) { $0.append($1.key) }
                            }
                        #expect(seen == Self.sorted(Set(seen)), "keys twice or out of order in pass \(pass)")
                        let kept = seen.filter { !$0.suffix(2).elementsEqual("/x".utf8) }
                        #expect(kept == expected, "pass \(pass)")
                    }
                    writer.cancel()
                    #expect(try await writer.value > 0)
                }
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func aShardIsDown() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 1), replicator: false) { cluster in
                let keys = (0..<40).map { Array("k\($0)".utf8) }
                for key in keys {
                    let put = try await HTTP.following(.PUT, APIPath.key(key), to: cluster.router, body: [1])
                    #expect(put.response.status == 204)
                }
                let dead = try #require(cluster.topology.shards.first { $0.leader == cluster.nodes[1] })
                let alive = keys.filter { cluster.shard(of: $0).name != dead.name }
                try await cluster.node(1).killHard()
                for address in [cluster.router, cluster.nodes[0]] {
                    let failed = try await HTTP.get("/kv?limit=1000", from: address)
                    #expect(failed.status == 503 && failed.problem == "unavailable")
                    #expect(failed.text.contains(dead.name))
                    let partial = try await HTTP.get("/kv?limit=1000&partial=true", from: address)
                    #expect(partial.headers.first(name: KVHeader.missingShards) == dead.name)
                    #expect(try Self.keys(partial) == Self.sorted(alive))
                }
            }
        }
    }
}

extension ClusterTests.Scans {
    /// What `kv export` writes, `kv import` takes back: binary keys, and lives.
    @Test(.timeLimit(.minutes(3)))
    func exportAndImport() async throws {
        try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 1), replicator: false) { cluster in
            let keys = [[0xFF, 0], Array("a\tb".utf8), Array("plain".utf8), Array("ümlaut".utf8)] as [[UInt8]]
            for key in keys {
                let put = try await HTTP.following(.PUT, APIPath.key(key), to: cluster.router, body: [0x80] + key)
                #expect(put.response.status == 204)
            }
            let mortal = try await HTTP.following(.PUT, "/kv/mortal?ttl=1h", to: cluster.router, body: [1])
            #expect(mortal.response.status == 204)
            let path = "\(cluster.directory)/backup.ndjson"
            let export = try await cluster.kv(["export", path])
            #expect(export.status == .exited(0), "\(export)")
            #expect(export.output.contains("exported 5;"), "\(export.output)")
            #expect(text(ofFile: path).split(separator: "\n").count == 5)
            #expect(text(ofFile: path).contains(#""ttl":"3"#))
            for key in keys + [Array("mortal".utf8)] {
                let path = APIPath.key(key)
                #expect(try await HTTP.following(.DELETE, path, to: cluster.router).response.status == 204)
            }
            #expect(try await cluster.kv(["scan", "--output", "json"]).output.isEmpty)
            #expect(try await cluster.kv(["import", path]).status == .exited(0))
            for key in keys {
                let read = try await HTTP.following(.GET, APIPath.key(key), to: cluster.router)
                #expect(read.response.status == 200 && read.response.bytes == [0x80] + key)
            }
            let restored = try await HTTP.following(.GET, "/kv/mortal", to: cluster.router).response
            #expect(restored.headers.first(name: "kv-expires-in")?.hasPrefix("3") == true, "its life is kept")
            let scan = try await cluster.kv(["scan", "--keys-only", "--limit", "2", "--output", "raw"])
            #expect(scan.output == "a\tb\nmortal\n", "\(scan)")
            let reverse = try await cluster.kv(["scan", "p", "--reverse"])
            #expect(reverse.output.hasPrefix("KEY") && reverse.output.contains("plain"), "\(reverse)")
            // Records to standard output, all else to standard error.
            let piped = try await cluster.kv(["export", "-", "--prefix", "p"])
            #expect(piped.output.hasPrefix(#"{"key":"plain","#) && piped.log.contains("exported 1;"), "\(piped)")
            let refused = try await cluster.kv(["export", "\(cluster.directory)/all.tsv"])
            #expect(refused.status == .exited(2) && refused.log.contains("ndjson"), "\(refused)")
            #expect(!FileManager.default.fileExists(atPath: "\(cluster.directory)/all.tsv"))
            try await cluster.node(1).killHard()
            let failed = try await cluster.kv(["export", path, "--timeout", "1"])
            #expect(failed.status == .exited(3), "\(failed)")
            #expect(text(ofFile: path).split(separator: "\n").count == 5)
        }
    }
}
