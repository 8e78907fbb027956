import Core
import Curl
import NIOCore
import Wire

/// The requests of docs/snapshots.md.
extension CurlTransport {
    /// A manifest, and a receipt of every file in it: those of 50,000 files are smaller.
    private static let manifestBytesMax = 4 << 20

    func snapshotTurn() async -> Turn? { try? await snapshotTurns.pass() }

    func openSnapshot(of leader: NodeAddress, shard: String, atLeast lsn: UInt64) async -> SnapshotOpening {
        do {
            let response = try await request(
                .post, leader, "\(APIPath.snapshots(shard: shard))?lsn=\(lsn)",
                answerBytesMax: CurlTransport.manifestBytesMax,
                timeout: limits.snapshotWorkTimeout)
            guard response.status == 200 else {
                let isDamaged = ProblemReading(response.body).type == Problem.Kind.corrupted.name
                return isDamaged ? .damaged(failure(response)) : .failed(failure(response))
            }
            return .opened(try DocumentCoding.decode(SnapshotManifest.self, from: response.body.readableBytesView))
        } catch {
            return .failed(failure(error))
        }
    }

    func offer(_ manifest: SnapshotManifest, to follower: NodeAddress, shard: String) async -> SnapshotOffering {
        do {
            let response = try await request(
                .post, follower, APIPath.receivedSnapshot(shard: shard),
                headers: [("content-type", MediaType.json)],
                body: ByteBuffer(bytes: try DocumentCoding.encode(manifest)),
                answerBytesMax: CurlTransport.manifestBytesMax, timeout: limits.pushTimeout)
            if response.status == 200 {
                return .receipt(try DocumentCoding.decode(SnapshotReceipt.self, from: response.body.readableBytesView))
            }
            let text = CurlTransport.explain(response)
            switch ProblemReading(response.body).type {
            case Problem.Kind.snapshotBusy.name: return .busy(text)
            case Problem.Kind.snapshotMismatch.name, Problem.Kind.staleTerm.name: return .useless(text)
            default: return .failed(failure(response))
            }
        } catch {
            return .failed(failure(error))
        }
    }

    func fetch(_ range: SnapshotRange, from leader: NodeAddress, shard: String) async -> SnapshotFetching {
        do {
            try await snapshotPacer.pass(range.length)
            let path = APIPath.snapshotFile(shard: shard, id: range.id, file: range.file)
            let response = try await request(
                .get, leader, "\(path)?offset=\(range.offset)&length=\(range.length)",
                answerBytesMax: max(range.length, CurlTransport.documentBytesMax), timeout: limits.pushTimeout)
            guard response.status == 200 else {
                let isGone = ProblemReading(response.body).type == Problem.Kind.unknownSnapshot.name
                return isGone ? .gone(CurlTransport.explain(response)) : .failed(failure(response))
            }
            let checksum = response.header(KVHeader.checksum) ?? ""
            guard response.body.readableBytes == range.length,
                checksum.count == 8, UInt32(checksum, radix: 16) == CurlTransport.checksum(response.body)
            else {
                metrics.snapshotFailed()
                return .failed(
                    "the \(response.body.readableBytes) bytes at \(range.offset) are not what its checksum says")
            }
            return .chunk(SnapshotChunk(range: range, bytes: response.body, checksum: checksum))
        } catch {
            return .failed(failure(error))
        }
    }

    func send(_ chunk: SnapshotChunk, to follower: NodeAddress, shard: String) async -> SnapshotSending {
        do {
            let range = chunk.range
            let path = APIPath.receivedFile(shard: shard, file: range.file)
            let response = try await request(
                .put, follower, "\(path)?id=\(range.id)&offset=\(range.offset)",
                headers: [("content-type", MediaType.bytes), (KVHeader.checksum, chunk.checksum)], body: chunk.bytes,
                answerBytesMax: CurlTransport.documentBytesMax, timeout: limits.pushTimeout)
            guard response.status == 200 else {
                switch ProblemReading(response.body).type {
                case Problem.Kind.snapshotBusy.name, Problem.Kind.snapshotMismatch.name:
                    return .overtaken(CurlTransport.explain(response))
                default: return .failed(failure(response))
                }
            }
            let receipt = try DocumentCoding.decode(SnapshotReceipt.self, from: response.body.readableBytesView)
            guard let file = receipt.files.first(where: { $0.name == range.file }) else {
                return .failed("its receipt does not name \(range.file)")
            }
            metrics.snapshotSent(bytes: range.length)
            return .taken(file.received)
        } catch {
            return .failed(failure(error))
        }
    }

    func install(
        _ manifest: SnapshotManifest, isDiverged: Bool, at follower: NodeAddress, shard: String
    ) async -> SnapshotInstalling {
        let query = "?id=\(manifest.id)" + (isDiverged ? "&diverged=true" : "")
        let work = Duration.seconds(Double(manifest.bytesTotal) / Double(limits.snapshotWorkBytesPerSecondMin))
        do {
            let response = try await request(
                .post, follower, APIPath.installSnapshot(shard: shard) + query,
                answerBytesMax: CurlTransport.documentBytesMax, timeout: limits.snapshotWorkTimeout + work)
            if response.status == 200 {
                let document = try DocumentCoding.decode(PositionDocument.self, from: response.body.readableBytesView)
                let position = try document.position
                metrics.snapshotInstalled()
                return .installed(position)
            }
            let text = failure(response)
            switch ProblemReading(response.body).type {
            case Problem.Kind.snapshotBusy.name: return .busy(text)
            case Problem.Kind.snapshotMismatch.name: return .incomplete(text)
            case Problem.Kind.staleTerm.name: return .useless(text)
            case Problem.Kind.storageFailed.name, Problem.Kind.corrupted.name: return .broken(text)
            default: return .failed(text)
            }
        } catch {
            return .failed(failure(error))
        }
    }

    func releaseSnapshot(id: String, at leader: NodeAddress, shard: String) async {
        await end(leader, APIPath.snapshot(shard: shard, id: id))
    }

    func discardSnapshot(id: String, at follower: NodeAddress, shard: String) async {
        await end(follower, "\(APIPath.receivedSnapshot(shard: shard))?id=\(id)")
    }

    private func end(_ node: NodeAddress, _ path: String) async {
        // Whatever comes of it: the node removes by itself what nobody uses.
        _ = try? await request(
            .delete, node, path, answerBytesMax: CurlTransport.manifestBytesMax, timeout: limits.answerTimeout)
    }

    private func request(
        _ method: CurlRequest.Method, _ node: NodeAddress, _ path: String,
        headers: [(name: String, value: String)] = [], body: ByteBuffer = ByteBuffer(), answerBytesMax: Int,
        timeout: Duration
    ) async throws -> CurlResponse {
        try await perform(
            node,
            CurlRequest(
                method, "http://\(node)\(path)", headers: headers, body: body, responseBytesMax: answerBytesMax,
                timeout: timeout, connectTimeout: limits.connectTimeout))
    }

    private func failure(_ response: CurlResponse) -> String {
        metrics.snapshotFailed()
        return CurlTransport.explain(response)
    }

    private func failure(_ error: any Error) -> String {
        metrics.snapshotFailed()
        return "\(error)"
    }

    private static func checksum(_ bytes: ByteBuffer) -> UInt32 {
        bytes.withUnsafeReadableBytes { CRC32C.checksum($0) }
    }
}
