import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Compares every replica with its leader, at one position, by checksums of ranges of keys.",
        discussion: """
            Each replica reads its whole shard once, the leader twice. The shard's writes wait for 0.1 s, in which
            everyone takes a snapshot of the same position; where one was asked later, once more for 0.4 s, and for 1 s.

            Exits with 4 where replicas differ, else with 3 where one could not be compared.
            """)

    @OptionGroup var cluster: ClusterOptions
    @Argument(help: "The shard's name; every shard where none is given.")
    var shard: String?
    @OptionGroup var output: OutputOptions

    func run() async throws {
        // Reading a large shard takes its time.
        let timeout = cluster.requestTimeout(default: 600)
        let report = try await cluster.withClient { client in
            let topology = try await client.refreshTopology()
            let shards = try shard.map { [try topology.shardForCommand($0)] } ?? topology.shards
            var report = VerifyReport(shards: [])
            for shard in shards {
                let answers = await ShardVerification(client: client, shard: shard, timeout: timeout).run()
                report.shards.append(VerifyReport.Shard(shard, answers))
            }
            return report
        }
        try await output.write(
            json: report, table: VerifyText.render(report), raw: TextTable.raw(VerifyText.rows(report) { String($0) }))
        guard report.status == .done else { throw CommandFailure(status: report.status, message: nil) }
    }
}

/// Has all replicas of a shard read what they hold at one position.
struct ShardVerification {
    /// How long writes wait, so that every replica is asked while all stand at one position. Nobody says when a replica
    /// has its snapshot, so they wait for all of that; where one was asked too late and had gone on, for the next.
    private static let holdsMilliseconds: [Int64] = [100, 400, 1_000]

    let client: KVClient
    let shard: ShardTopology
    /// For a replica to read its shard.
    let timeout: TimeAmount

    func run() async -> [NodeAddress: VerifyReport.Shard.Answer] {
        do throws(KVError) {
            // Where the ranges lie; also takes the time out of the hold that the leader needs to find them.
            let since = NIODeadline.now()
            let first = try await digest(of: shard.leader, DigestRequest(lsn: nil, boundaries: nil))
            let boundaries = first.ranges.dropFirst().map(\.start)
            var answers: [NodeAddress: VerifyReport.Shard.Answer] = [:]
            for milliseconds in Self.holdsMilliseconds {
                // The leader's moment is as far ahead as when it was asked, however long it has read.
                let elapsed = UInt64(max(0, (NIODeadline.now() - since).nanoseconds / 1_000_000))
                let request = DigestRequest(
                    lsn: nil, boundaries: boundaries, expiringAfter: first.expiringAfter.map { $0 + elapsed })
                answers = try await compare(request, holding: milliseconds)
                guard answers.values.contains(where: Self.hasGonePast) else { break }
            }
            return answers
        } catch {
            return [shard.leader: .failure(error)].merging(
                shard.followers.map { ($0, .failure(KVError(.unavailable, "the leader cannot be asked"))) }
            ) { leader, _ in leader }
        }
    }

    private static func hasGonePast(_ answer: VerifyReport.Shard.Answer) -> Bool {
        if case .failure(let error) = answer { error.code == .logMismatch } else { false }
    }

    private func compare(
        _ request: DigestRequest, holding milliseconds: Int64
    ) async throws(KVError) -> [NodeAddress: VerifyReport.Shard.Answer] {
        let held = NodeRequest(
            method: .POST, target: "\(APIPath.hold(shard: shard.name))?milliseconds=\(milliseconds)")
        let since = NIODeadline.now()
        var request = request
        request.lsn = try await client.ask(shard.leader, held, for: PositionDocument.self, timeout: timeout).lsn
        let answers = await digests(request)
        if .now() < since + .milliseconds(milliseconds) {
            let release = NodeRequest(method: .DELETE, target: APIPath.hold(shard: shard.name))
            do throws(KVError) {
                _ = try await client.ask(shard.leader, release, timeout: timeout)
            } catch {
                // It ends by itself, in less than the time it was asked for.
            }
        }
        return answers
    }

    private func digests(_ request: DigestRequest) async -> [NodeAddress: VerifyReport.Shard.Answer] {
        await withTaskGroup(of: (NodeAddress, VerifyReport.Shard.Answer).self) { group in
            for address in shard.replicas {
                group.addTask {
                    do throws(KVError) {
                        // Bound first: returned from within the tuple it crashes programs built with -O (Swift 6.3.1).
                        let document = try await digest(of: address, request)
                        return (address, .success(document))
                    } catch {
                        return (address, .failure(error))
                    }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    private func digest(
        of address: NodeAddress, _ digest: DigestRequest
    ) async throws(KVError) -> DigestDocument {
        let request = try NodeRequest.post(APIPath.digest(shard: shard.name), digest)
        return try await client.ask(address, request, for: DigestDocument.self, timeout: timeout)
    }
}
