import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// More than a node holds at once: the excess is refused and told when to come again, the rest is served.
    @Suite struct Overload {
        private static let valueBytes = 8 << 20
        /// The node holds 256 MiB of bodies: about 32 of these.
        private static let clients = 80

        @Test(.timeLimit(.minutes(5)))
        func excessIsRefusedAndNothingElse() async throws {
            try await TestCluster.running(.single(), router: false, replicator: false) { cluster in
                let node = cluster.nodes[0]
                let (accepted, refused) = try await offer(to: node)
                #expect(accepted.count >= 1 && refused.count >= Overload.clients / 2, "\(accepted.count) are accepted")
                // Who asks for little is served meanwhile.
                #expect(try await HTTP.get(APIPath.healthz, from: node).status == 200)
                #expect(try await HTTP.get("/kv/nothing", from: node).status == 404)

                var stored: [Int] = []
                for (number, client) in accepted.prefix(8) {
                    try await client.deliver(value(of: number))
                    let answer = try await client.answers(2)[1]
                    #expect([204, 503].contains(answer.status), "\(answer.text)")
                    if answer.status == 204 { stored.append(number) } else { #expect(answer["retry-after"] == "1") }
                }
                #expect(!stored.isEmpty)
                for (_, client) in accepted + refused { await client.close() }

                // With the load gone all is as before: what was acknowledged is there, what was refused is not.
                for number in 0..<Overload.clients {
                    let get = try await HTTP.get("/kv/value-\(number)", from: node)
                    let isStored = stored.contains(number)
                    #expect(get.status == (isStored ? 200 : 404) && (!isStored || get.bytes == value(of: number)))
                }
                for (number, _) in refused.prefix(4) {
                    try await eventually("there is room again") {
                        let put = try await HTTP.send(.PUT, "/kv/value-\(number)", to: node, body: value(of: number))
                        return put.status == 204
                    }
                }
                let memory = try residentMiB(of: cluster.node(0))
                #expect(memory < 1_024, "\(memory) MiB are in memory")
            }
        }

        private typealias Client = (number: Int, connection: RawClient)

        /// Every client asks whether its value is wanted, and hears yes or come again.
        private func offer(to node: NodeAddress) async throws -> (accepted: [Client], refused: [Client]) {
            var clients: [Client] = []
            for number in 0..<Overload.clients {
                let client = try await RawClient.connect(to: node)
                client.send(
                    "PUT /kv/value-\(number) HTTP/1.1\r\nhost: a\r\ncontent-length: \(Overload.valueBytes)\r\n"
                        + "expect: 100-continue\r\n\r\n")
                clients.append((number, client))
            }
            var (accepted, refused): ([Client], [Client]) = ([], [])
            for client in clients {
                let answer = try await client.connection.answers(1)[0]
                if answer.status == 100 {
                    accepted.append(client)
                } else {
                    #expect(answer.status == 503 && answer["retry-after"] == "1" && answer.closes, "\(answer.text)")
                    #expect(answer.text.hasPrefix("{\"type\":\"overloaded\""), "\(answer.text)")
                    refused.append(client)
                }
            }
            return (accepted, refused)
        }

        private func value(of number: Int) -> [UInt8] {
            Array(repeating: UInt8(number), count: Overload.valueBytes)
        }

        private func residentMiB(of process: ChildProcess) throws -> Int {
            let status = text(ofFile: "/proc/\(try #require(process.pid))/status")
            let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
            return try #require(line.split(separator: " ").dropFirst().first.flatMap { Int($0) }) / 1_024
        }
    }
}
