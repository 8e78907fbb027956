import Core
import DistribKVClient
import ImportPipeline
import NIOCore
import NIOHTTP1
import Synchronization
import TestSupport
import Testing
import Wire

private final class TextSource: ImportSource {
    private let chunks: Mutex<[ByteBuffer]>
    init(_ text: String) { chunks = Mutex([ByteBuffer(string: text)]) }
    func next() async throws(KVError) -> ByteBuffer? { chunks.withLock { $0.popLast() } }
}

/// The import with the real client, pipelined, against nodes in memory.
@Suite struct ImportOverHTTPTests {
    private func run(_ cluster: FakeCluster, _ text: String, resumeFrom: UInt64) async -> (ImportCounts, ImportStop?) {
        var configuration = KVClientConfiguration()
        configuration.requestTimeout = .seconds(30)
        configuration.attemptsMax = 2
        configuration.backoffMin = .milliseconds(1)
        configuration.connections.connectionsPerNodeMax = 2
        configuration.connections.pipeliningDepthMax = 128
        let client = KVClient(seeds: cluster.addresses, configuration: configuration)
        var options = ImportOptions(format: .tsv)
        options.resumeFrom = resumeFrom
        let progress = ImportProgress()
        let importer = Importer(options: options, source: TextSource(text), sink: client, progress: progress)
        var stop: ImportStop?
        do throws(ImportStop) { try await importer.run() } catch { stop = error }
        await client.shutdown()
        return (progress.counts, stop)
    }

    @Test func aNodeThatFailsAtOneKeyStopsTheImportThereAndItResumes() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 4)
        let text = (1...3_000).map { "key-\($0)\tvalue-\($0)" }.joined(separator: "\n")
        cluster.refuse("key-1700", Problem(.storageFailed, "the disk is gone"))
        let (counts, stop) = await run(cluster, text, resumeFrom: 1)
        let failed = try #require(stop)
        #expect(failed.reason == .unavailable)
        #expect(failed.line == 1_700)
        #expect(failed.error.message == "the disk is gone")
        #expect(counts.failed == 1, "\(failed)")
        #expect(counts.written == UInt64(cluster.keys.count))
        #expect((1..<1_700).allSatisfy { cluster.value("key-\($0)") == "value-\($0)" })
        #expect(cluster.value("key-1700") == nil)

        cluster.refuse("key-1700", nil)
        let (rest, again) = await run(cluster, text, resumeFrom: failed.line)
        #expect(again == nil)
        #expect(rest.read == 1_301)
        #expect(rest.written == 1_301)
        #expect(cluster.keys.count == 3_000)
    }

    @Test func droppedConnectionsInMidPipelineLoseNothing() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        let requests = Counter()
        cluster.override { _, request in
            request.target.hasPrefix(APIPath.batch) && requests.next() == 3 ? .close : nil
        }
        let text = (1...2_000).map { "key-\($0)\tvalue-\($0)" }.joined(separator: "\n")
        let (counts, stop) = await run(cluster, text, resumeFrom: 1)
        #expect(stop == nil)
        #expect(counts.written == 2_000)
        #expect(cluster.keys.count == 2_000)
    }
}
