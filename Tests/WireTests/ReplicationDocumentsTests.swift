import Core
import Testing
import Wire

@Suite struct ReplicationDocumentsTests {
    private let node = NodeAddress(host: "127.0.0.1", port: 7_001)
    private let other = NodeAddress(host: "127.0.0.1", port: 7_002)
    private let position = PositionDocument(
        shard: "shard-0", role: .follower, position: LogPosition(term: 2, lsn: 41, version: Version(rawValue: 0xAB)))
    private let positionJSON =
        #"{"lsn":41,"role":"follower","shard":"shard-0","term":2,"version":"00000000000000ab"}"#

    private func expect<Document: Codable & Equatable>(
        _ document: Document, is golden: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let encoded = String(decoding: try DocumentCoding.encode(document), as: UTF8.self)
        #expect(encoded == golden, sourceLocation: sourceLocation)
        let decoded = try DocumentCoding.decode(Document.self, from: golden.utf8)
        #expect(decoded == document, sourceLocation: sourceLocation)
    }

    @Test func historyDocument() throws {
        let history = TermHistory(
            starts: [
                TermStart(term: 1, firstLsn: 1, previousVersion: .zero),
                TermStart(term: 2, firstLsn: 30, previousVersion: Version(rawValue: 0x99)),
            ], end: LogPosition(term: 2, lsn: 41, version: Version(rawValue: 0xAB)))
        var document = HistoryDocument(
            position: position, history: history, newestTerm: 3,
            leaderLastSeen: HistoryDocument.LeaderSighting(lsn: 44, millisecondsAgo: 250))
        let terms =
            #"[{"first_lsn":1,"previous_version":"0000000000000000","term":1},"#
            + #"{"first_lsn":30,"previous_version":"0000000000000099","term":2}]"#
        try expect(
            document,
            is: #"{"leader_last_seen":{"lsn":44,"milliseconds_ago":250},"newest_term":3,"position":"# + positionJSON
                + #","terms":"# + terms + "}")
        #expect(try document.history == history)
        document.leaderLastSeen = nil
        try expect(document, is: #"{"newest_term":3,"position":"# + positionJSON + #","terms":"# + terms + "}")
        document.promisedTo = other
        try expect(
            document,
            is: #"{"newest_term":3,"position":"# + positionJSON + #","promised_to":"127.0.0.1:7002","terms":"# + terms
                + "}")
        document.terms[1].previousVersion = "99"
        #expect(throws: KVError.self) { try document.history }
    }

    @Test func requests() throws {
        try expect(FenceRequest(term: 7, candidate: node), is: #"{"candidate":"127.0.0.1:7001","term":7}"#)
        try expect(MembershipRequest(node: node), is: #"{"node":"127.0.0.1:7001"}"#)
        try expect(HandoverRequest(to: node), is: #"{"to":"127.0.0.1:7001"}"#)
        try expect(PromoteRequest(epoch: 4, force: true), is: #"{"epoch":4,"force":true}"#)
        try expect(
            DigestRequest(lsn: 41, boundaries: ["b", "c%20d"]), is: #"{"boundaries":["b","c%20d"],"lsn":41}"#)
        try expect(DigestRequest(lsn: nil, boundaries: nil), is: "{}")
    }

    @Test func snapshotDocuments() throws {
        let manifest = SnapshotManifest(
            shard: "shard-0", id: "0017", leaderTerm: 2, position: position,
            terms: [TermDocument(TermStart(term: 2, firstLsn: 1, previousVersion: .zero))],
            files: [
                SnapshotManifest.File(name: "000012.sst", bytes: 1_000, crc32c: "0badcafe"),
                SnapshotManifest.File(name: "CURRENT", bytes: 16, crc32c: "00000001"),
            ])
        try expect(
            manifest,
            is: #"{"files":[{"bytes":1000,"crc32c":"0badcafe","name":"000012.sst"},"#
                + #"{"bytes":16,"crc32c":"00000001","name":"CURRENT"}],"id":"0017","leader_term":2,"position":"#
                + positionJSON
                + #","shard":"shard-0","terms":[{"first_lsn":1,"previous_version":"0000000000000000","term":2}]}"#)
        #expect(manifest.bytesTotal == 1_016)
        #expect(try manifest.history.starts.count == 1 && manifest.history.end == position.position)
        try expect(
            SnapshotReceipt(id: "0017", files: [SnapshotReceipt.File(name: "CURRENT", received: 7)]),
            is: #"{"files":[{"name":"CURRENT","received":7}],"id":"0017"}"#)
    }

    @Test func failoverReport() throws {
        var report = FailoverReport(
            shard: "shard-0", epoch: 9, term: 9, leader: other, previousLeader: node, lsn: 41,
            version: "00000000000000ab", isComplete: true, leaderLastSeen: nil, unreachable: [],
            writesHeldMilliseconds: 12.5)
        try expect(
            report,
            is: #"{"epoch":9,"is_complete":true,"leader":"127.0.0.1:7002","lsn":41,"#
                + #""previous_leader":"127.0.0.1:7001","shard":"shard-0","term":9,"unreachable":[],"#
                + #""version":"00000000000000ab","writes_held_milliseconds":12.5}"#)
        report.isComplete = false
        report.writesHeldMilliseconds = nil
        report.leaderLastSeen = HistoryDocument.LeaderSighting(lsn: 50, millisecondsAgo: 900)
        report.unreachable = [node]
        report.previousTerm = 7
        try expect(
            report,
            is: #"{"epoch":9,"is_complete":false,"leader":"127.0.0.1:7002","#
                + #""leader_last_seen":{"lsn":50,"milliseconds_ago":900},"lsn":41,"#
                + #""previous_leader":"127.0.0.1:7001","previous_term":7,"shard":"shard-0","term":9,"#
                + #""unreachable":["127.0.0.1:7001"],"version":"00000000000000ab"}"#)
    }

    @Test func digestDocument() throws {
        try expect(
            DigestDocument(
                position: position, expiringAfter: 1_300_000,
                ranges: [
                    DigestDocument.Range(start: "", keys: 2, crc32c: "00000000"),
                    DigestDocument.Range(start: "c%20d", keys: 0, crc32c: "ffffffff"),
                ]),
            is: #"{"expiring_after":1300000,"position":"# + positionJSON
                + #","ranges":[{"crc32c":"00000000","keys":2,"start":""},"#
                + #"{"crc32c":"ffffffff","keys":0,"start":"c%20d"}]}"#)
    }

    @Test func compactionDocument() throws {
        var document = CompactionDocument(shard: "shard-0", number: 3, isRunning: true)
        try expect(document, is: #"{"is_running":true,"milliseconds":0,"number":3,"shard":"shard-0"}"#)
        document.isRunning = false
        document.tableBytesBefore = 700
        document.tableBytesAfter = 70
        document.milliseconds = 15
        try expect(
            document,
            is: #"{"is_running":false,"milliseconds":15,"number":3,"shard":"shard-0","table_bytes_after":70,"#
                + #""table_bytes_before":700}"#)
    }

    @Test func scrubDocument() throws {
        var document = ScrubDocument(shard: "shard-0", number: 3, isRunning: true)
        try expect(
            document,
            is: #"{"bytes_done":0,"bytes_total":0,"damage":[],"is_running":true,"milliseconds":0,"number":3,"#
                + #""shard":"shard-0"}"#)
        document.isRunning = false
        document.damage = ["a"]
        document.failure = "b"
        document.lastWholeMilliseconds = 7
        document.difference = "c"
        try expect(
            document,
            is: #"{"bytes_done":0,"bytes_total":0,"damage":["a"],"difference":"c","failure":"b","is_running":false,"#
                + #""last_whole_milliseconds":7,"milliseconds":0,"number":3,"shard":"shard-0"}"#)
    }

    @Test func statusOfAReplica() throws {
        var shard = StorageNodeStatus.Shard(
            name: "shard-0", role: .follower, position: LogPosition(term: 2, lsn: 41, version: Version(rawValue: 0xAB)),
            keysEstimate: 7, diskBytes: 8, memtableBytes: 9, logFirstLsn: nil, failure: nil)
        shard.state = .installing
        shard.newestTerm = 3
        shard.lagMilliseconds = 12
        shard.followers = [FollowerAck(address: other, lsn: 40, millisecondsAgo: 5)]
        shard.snapshot = SnapshotProgress(bytesDone: 1, bytesTotal: 4, bytesPerSecond: 2, secondsLeft: 1.5)
        shard.diverged = [
            DivergedWrites(
                file: "/data/diverged/shard-0.ndjson", shard: "shard-0", firstLsn: 5, lastLsn: 6, writes: 3,
                isComplete: true)
        ]
        try expect(
            shard,
            is: #"{"disk_bytes":8,"diverged":[{"file":"/data/diverged/shard-0.ndjson","first_lsn":5,"#
                + #""is_complete":true,"last_lsn":6,"shard":"shard-0","writes":3}],"followers":["#
                + #"{"address":"127.0.0.1:7002","lsn":40,"milliseconds_ago":5}],"keys_estimate":7,"#
                + #""lag_milliseconds":12,"lsn":41,"memtable_bytes":9,"name":"shard-0","newest_term":3,"#
                + #""role":"follower","snapshot":{"bytes_done":1,"bytes_per_second":2,"bytes_total":4,"#
                + #""seconds_left":1.5},"state":"installing","term":2,"version":"00000000000000ab"}"#)
        // Older nodes say less.
        let old =
            #"{"disk_bytes":8,"keys_estimate":7,"lsn":41,"memtable_bytes":9,"name":"shard-0","role":"leader","#
            + #""term":2,"version":"00000000000000ab"}"#
        let decoded = try DocumentCoding.decode(StorageNodeStatus.Shard.self, from: old.utf8)
        #expect(decoded.state == nil && decoded.followers == nil && decoded.newestTerm == nil)
    }

    @Test func otherTextIsNoDocument() {
        for text in [
            "", "[]", "{}", #"{"term":7}"#, #"{"candidate":"nowhere","term":7}"#, #"{"candidate":"a:1","term":-7}"#,
        ] {
            let error = #expect(throws: KVError.self) { try DocumentCoding.decode(FenceRequest.self, from: text.utf8) }
            #expect(error?.code == .invalidData, "\(text)")
        }
    }
}
