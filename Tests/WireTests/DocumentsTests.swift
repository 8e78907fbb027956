import Core
import Testing
import Wire

@Suite struct DocumentsTests {
    private let node = NodeAddress(host: "127.0.0.1", port: 7_001)
    private let position = LogPosition(term: 2, lsn: 41, version: Version(rawValue: 0xAB))

    /// The document is written as `golden`, and `golden` is read as the document.
    private func expect<Document: Codable & Equatable>(_ document: Document, is golden: String) throws {
        #expect(String(decoding: try DocumentCoding.encode(document), as: UTF8.self) == golden)
        #expect(try DocumentCoding.decode(Document.self, from: golden.utf8) == document)
    }

    @Test func positionDocument() throws {
        let document = PositionDocument(shard: "shard-0", role: .follower, position: position)
        try expect(
            document,
            is: """
                {"lsn":41,"role":"follower","shard":"shard-0","term":2,"version":"00000000000000ab"}
                """)
        #expect(try document.position == position)
        var broken = document
        broken.version = "xyz"
        #expect(throws: KVError.self) { try broken.position }
    }

    @Test func largePositionsKeepEveryDigit() throws {
        let largest = LogPosition(term: .max, lsn: .max - 1, version: Version(rawValue: .max))
        let document = PositionDocument(shard: "s", role: .leader, position: largest)
        let decoded = try DocumentCoding.decode(PositionDocument.self, from: DocumentCoding.encode(document))
        #expect(try decoded.position == largest)
        #expect(decoded.lsn == UInt64.max - 1)
    }

    @Test func storageNodeStatus() throws {
        let shard = StorageNodeStatus.Shard(
            name: "shard-0", role: .leader, position: position, keysEstimate: 7, diskBytes: 8, memtableBytes: 9,
            logFirstLsn: 3, failure: nil)
        try expect(
            StorageNodeStatus(
                version: "0.1.0", node: node, epoch: 4, uptimeSeconds: 1.5, durability: "always", shards: [shard]),
            is: """
                {"durability":"always","epoch":4,"node":"127.0.0.1:7001","role":"storage-node","shards":[\
                {"disk_bytes":8,"keys_estimate":7,"log_first_lsn":3,"lsn":41,"memtable_bytes":9,"name":"shard-0",\
                "role":"leader","term":2,"version":"00000000000000ab"}],"uptime_seconds":1.5,"version":"0.1.0"}
                """)
    }

    @Test func routerStatus() throws {
        let down = RouterStatus.Node(
            address: node, healthy: false, epoch: nil, lastAnswerSecondsAgo: nil, lastError: "refused")
        let up = RouterStatus.Node(address: node, healthy: true, epoch: 4, lastAnswerSecondsAgo: 0.25, lastError: nil)
        try expect(
            RouterStatus(version: "0.1.0", mode: "redirect", epoch: 4, uptimeSeconds: 2.5, nodes: [down, up]),
            is: """
                {"epoch":4,"mode":"redirect","nodes":[{"address":"127.0.0.1:7001","healthy":false,"last_error":"refused"},\
                {"address":"127.0.0.1:7001","epoch":4,"healthy":true,"last_answer_seconds_ago":0.25}],"role":"router",\
                "uptime_seconds":2.5,"version":"0.1.0"}
                """)
    }

    @Test func replicatorStatus() throws {
        let follower = ReplicatorStatus.Follower(
            address: node, state: .needsSnapshot, term: 1, lsn: 2, lagBatches: 39, bytesInFlight: 0, lastError: nil)
        let shard = ReplicatorStatus.Shard(
            name: "shard-0", leader: node, leaderLsn: 41, leaderError: nil, followers: [follower])
        try expect(
            ReplicatorStatus(version: "0.1.0", epoch: 4, uptimeSeconds: 2.5, shards: [shard]),
            is: """
                {"epoch":4,"role":"replicator","shards":[{"followers":[{"address":"127.0.0.1:7001","bytes_in_flight":0,\
                "lag_batches":39,"lsn":2,"state":"needs-snapshot","term":1}],"leader":"127.0.0.1:7001","leader_lsn":41,\
                "name":"shard-0"}],"uptime_seconds":2.5,"version":"0.1.0"}
                """)
    }

    @Test(arguments: [
        "", "{", "[]", "null", "{\"shard\":1}",
        "{\"lsn\":-1,\"role\":\"leader\",\"shard\":\"s\",\"term\":2,\"version\":\"0\"}",
        "{\"lsn\":1,\"role\":\"boss\",\"shard\":\"s\",\"term\":2,\"version\":\"0\"}",
    ]) func otherBytesAreRefused(text: String) {
        let error = #expect(throws: KVError.self) {
            try DocumentCoding.decode(PositionDocument.self, from: text.utf8)
        }
        #expect(error?.code == .invalidData)
    }
}
