import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Batches over real processes.
    @Suite struct Batches {
        private final class Progress: Sendable {
            let stop = Atomic<Bool>(false)
            let acknowledged = Atomic<Int>(0)
        }

        /// Random batches, sent to the router and to nodes in turn, against a model.
        @Test(.timeLimit(.minutes(3)))
        func randomBatchesDoWhatAModelDoes() async throws {
            let seed = testSeed("randomBatches")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2)) { cluster in
                let doors = [cluster.router] + cluster.nodes
                var model: [String: String] = [:]
                for round in 0..<40 {
                    var (lines, expected): (ByteBuffer, [String]) = (ByteBuffer(), [])
                    for _ in 0..<Int.random(in: 1...120, using: &random) {
                        let operation = Self.operation(using: &random)
                        operation.write(into: &lines)
                        expected.append(Self.answer(operation, &model))
                    }
                    let door = doors[round % doors.count]
                    let results = try await Self.batch(Array(lines.readableBytesView), to: door)
                    #expect(results.map(Self.text) == expected, "round \(round) of seed \(seed)")
                }
                try await cluster.waitForConvergence()
                for (key, value) in model {
                    for node in cluster.nodes {
                        let copy = try await HTTP.get(APIPath.key(key.utf8), from: node)
                        #expect(String(decoding: copy.bytes, as: UTF8.self) == value)
                    }
                }
            }
        }

        private static func operation(using random: inout SeededGenerator) -> BatchOperation {
            let key = ByteBuffer(string: "k\(Int.random(in: 0..<12, using: &random))")
            let action: BatchOperation.Action =
                switch Int.random(in: 0..<6, using: &random) {
                case 0, 1: .get
                case 2: .delete
                case 3: .increment(by: Int64.random(in: -9...9, using: &random))
                default: .put(ByteBuffer(string: "\(Int.random(in: 0..<100, using: &random))"))
                }
            let condition: WriteCondition? =
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where action != .get: WriteCondition(match: .any)
                case 1 where action != .get: WriteCondition(noneMatch: .any)
                default: nil
                }
            return BatchOperation(key: key, action: action, condition: condition)
        }

        private static func answer(_ operation: BatchOperation, _ model: inout [String: String]) -> String {
            let key = String(buffer: operation.key)
            if let condition = operation.condition, !condition.holds(for: model[key] == nil ? nil : .zero) {
                return "412"
            }
            switch operation.action {
            case .get: return model[key] ?? "404"
            case .put(let value, _):
                model[key] = String(buffer: value)
                return "204"
            case .delete:
                model[key] = nil
                return "204"
            case .increment(let amount):
                let sum = (Int64(model[key] ?? "0") ?? 0) + amount
                model[key] = "\(sum)"
                return "\(sum)"
            }
        }

        /// Writers of the same three keys, all or nothing, while their leader is killed again and again: nobody ever
        /// sees a part, and nothing that was acknowledged is lost.
        @Test(.timeLimit(.minutes(4)))
        func atomicBatchesAreWholeThroughKills() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2)) { cluster in
                let tag = try cluster.tag(for: cluster.topology.shards[0].name)
                let leader = cluster.nodes[0]
                let progress = Progress()
                try await withThrowingTaskGroup { group in
                    for writer in 0..<4 {
                        group.addTask {
                            let door = writer % 2 == 0 ? cluster.router : leader
                            while !progress.stop.load(ordering: .relaxed) {
                                let lines = (0..<3).map { "{\"op\":\"incr\",\"key\":\"\(tag)\($0)\"}" }
                                let results = try? await Self.batch(
                                    Array(lines.joined(separator: "\n").utf8), to: door, "?atomic=true")
                                guard let results else { continue }
                                #expect(Set(results.map(Self.text)).count == 1, "a part is done: \(results)")
                                if !Self.isFailure(results[0]) { progress.acknowledged.add(1, ordering: .relaxed) }
                            }
                        }
                    }
                    for _ in 0..<3 {
                        let before = progress.acknowledged.load(ordering: .relaxed)
                        try await eventually("more batches") {
                            progress.acknowledged.load(ordering: .relaxed) > before + 50
                        }
                        try await cluster.node(0).killHard()
                        try await cluster.startNode(0)
                    }
                    progress.stop.store(true, ordering: .relaxed)
                    try await group.waitForAll()
                }
                let acknowledged = progress.acknowledged.load(ordering: .relaxed)
                try await cluster.waitForConvergence()
                for node in cluster.nodes {
                    var numbers: Set<String> = []
                    for number in 0..<3 {
                        let copy = try await HTTP.get(APIPath.key("\(tag)\(number)".utf8), from: node)
                        numbers.insert(String(decoding: copy.bytes, as: UTF8.self))
                    }
                    #expect(numbers.count == 1, "\(node) has a part: \(numbers)")
                    let number = Int(numbers.first ?? "") ?? 0
                    #expect(number >= acknowledged)
                }
            }
        }

        private static func batch(
            _ body: [UInt8], to address: NodeAddress, _ query: String = ""
        ) async throws -> [BatchResult] {
            let response = try await HTTP.send(.POST, APIPath.batch + query, to: address, body: body)
            guard response.status == 200 else { throw UnexpectedAnswer(APIPath.batch, response) }
            return try response.bytes.split(separator: UInt8(ascii: "\n")).map {
                try BatchResult(ByteBuffer(bytes: $0))
            }
        }

        private static func isFailure(_ result: BatchResult) -> Bool {
            if case .failed = result { true } else { false }
        }

        /// The value, the number or the status.
        private static func text(_ result: BatchResult) -> String {
            switch result {
            case .written: "204"
            case .counted(let number, _): "\(number)"
            case .found(let value, _, _): String(buffer: value)
            case .failed(let failure): "\(failure.status)"
            }
        }
    }
}
