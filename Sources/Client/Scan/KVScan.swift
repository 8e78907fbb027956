public import Core
public import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// A key with what is stored under it.
public struct KVRecord: Sendable, Hashable {
    public var key: [UInt8]
    /// nil where only keys were asked for.
    public var value: ByteBuffer?
    public var version: Version
    /// What is left of its life; nil where it has no end.
    public var ttl: TimeAmount?

    public init(key: [UInt8], value: ByteBuffer?, version: Version, ttl: TimeAmount? = nil) {
        self.key = key
        self.value = value
        self.version = version
        self.ttl = ttl
    }
}

extension KVClient {
    /// The records of a range of keys, in byte order over all shards.
    ///
    ///     for try await record in client.scan(prefix: "user/".utf8, limit: 1_000) { … }
    ///
    /// Read in pages, straight from the nodes of the shards, with the next page of each shard on its way while one is
    /// read: at most two pages of ``KVClientConfiguration/scanPageBytes`` of each shard are held, and one record where
    /// that is larger. A page of a shard is of one moment; a record that exists throughout is returned exactly once, one
    /// that is written or removed meanwhile once at most.
    ///
    /// Each iterator scans anew.
    /// - Parameters:
    ///   - prefix: what the keys begin with, up to 4,096 bytes.
    ///   - start: where the scan begins; empty for the end of the range. Upwards the key itself belongs to it, in
    ///     reverse it does not.
    ///   - end: where it ends; empty for the end of the range. Upwards the key itself does not belong to it, in reverse
    ///     it does.
    ///   - limit: records at the most; nil for all.
    ///   - reverse: from the greatest key down.
    ///   - keysOnly: leaves the values out.
    ///   - options: of the read; a `minVersion` is of one shard, and so not taken here.
    public func scan(
        prefix: some Sequence<UInt8> = [UInt8](), start: some Sequence<UInt8> = [UInt8](),
        end: some Sequence<UInt8> = [UInt8](), limit: Int? = nil, reverse: Bool = false, keysOnly: Bool = false,
        options: ReadOptions = .init()
    ) -> KVScan {
        KVScan(
            client: self,
            range: ScanRange(prefix: Array(prefix), start: Array(start), end: Array(end), isReverse: reverse),
            limit: limit, keysOnly: keysOnly, options: options)
    }
}

/// The records of a range of keys; see ``KVClient/scan(prefix:start:end:limit:reverse:keysOnly:options:)``.
///
/// An iterator throws `KVError`: `.invalidArgument` for bounds that are too long, `.unavailable` or `.timedOut` where a
/// shard does not answer in the client's `requestTimeout`, `.versionUnknown` where a change of leader has lost what the
/// session has seen.
public struct KVScan: AsyncSequence, Sendable {
    public typealias Element = KVRecord
    public typealias Failure = KVError

    let client: KVClient
    let range: ScanRange
    let limit: Int?
    let keysOnly: Bool
    let options: ReadOptions

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(scan: self) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        private let scan: KVScan
        private var remaining: Int
        /// nil before the first record was asked for.
        private var reader: ShardsReader?

        init(scan: KVScan) {
            self.scan = scan
            remaining = scan.limit ?? .max
        }

        public mutating func next(
            isolation actor: isolated (any Actor)? = #isolation
        ) async throws(KVError) -> KVRecord? {
            guard remaining > 0, !scan.range.isEmpty else { return nil }
            if reader == nil { reader = try await ShardsReader(scan) }
            let record = try await reader?.next(isolation: actor)
            remaining = record == nil ? 0 : remaining - 1
            return record
        }
    }
}

/// Merges the shards of one scan, and fetches their pages ahead.
private struct ShardsReader {
    private let scan: KVScan
    private let fetcher: ShardPageFetcher
    private var merge: ScanMerge
    /// By shard: the page that is on its way.
    private var pages: [EventLoopFuture<ScanPage>?]

    init(_ scan: KVScan) async throws(KVError) {
        guard scan.range.prefix.count <= Limits.keyBytesMax,
            max(scan.range.start.count, scan.range.end.count) <= ScanRange.boundBytesMax
        else {
            throw KVError(
                .invalidArgument,
                "a prefix has at most \(Limits.keyBytesMax) bytes, start and end one more at most")
        }
        guard scan.options.minVersion == nil else {
            throw KVError(
                .invalidArgument, "a version is of one shard and a scan goes over all: use consistency .leader")
        }
        self.scan = scan
        let topology = try await scan.client.topology()
        let positions = scan.range.slot.map { [topology.position(of: $0)] } ?? Array(topology.shards.indices)
        // A shard without slots has no keys.
        let shards = positions.map { topology.shards[$0] }.filter { !$0.slots.isEmpty }
        fetcher = ShardPageFetcher(
            scan: scan, shards: shards, eventLoop: scan.client.group.any())
        merge = ScanMerge(shards: shards.count, isReverse: scan.range.isReverse)
        pages = shards.indices.map { [fetcher] in fetcher.page(of: $0, from: nil) }
    }

    mutating func next(isolation actor: isolated (any Actor)?) async throws(KVError) -> KVRecord? {
        while true {
            switch merge.next() {
            case .end: return nil
            case .needsPage(let shard, let from): try await load(shard, from: from, isolation: actor)
            case .record(let shard, let frame):
                let record = merge.withBytes(of: shard) { KVRecord(frame, of: $0) }
                guard frame.isOversized else { return record }
                if let whole = try await fetcher.whole(record.key, of: shard) { return whole }
            }
        }
    }

    private mutating func load(
        _ shard: Int, from: [UInt8]?, isolation actor: isolated (any Actor)?
    ) async throws(KVError) {
        let coming = pages[shard] ?? fetcher.page(of: shard, from: from)
        pages[shard] = nil
        let page: ScanPage
        do {
            page = try await fetcher.cancellable(coming)
        } catch {
            throw KVClient.kvError(error)
        }
        merge.supply(page, for: shard)
        // A short scan mostly ends before it would need another.
        if let next = page.next, scan.limit.map({ $0 > ScanQuery.limitMax }) ?? true {
            pages[shard] = fetcher.page(of: shard, from: next)
        }
    }
}

/// Fetches pages of single shards, each as any other read of the client is routed and tried again.
private struct ShardPageFetcher: Sendable {
    let scan: KVScan
    let shards: [ShardTopology]
    let eventLoop: any EventLoop

    /// - Parameter start: nil for where the scan begins.
    func page(of shard: Int, from start: [UInt8]?) -> EventLoopFuture<ScanPage> {
        let range = start.map { scan.range.from($0) } ?? scan.range
        let limit = min(ScanQuery.limitMax, scan.limit ?? .max)
        return fetch(
            shard,
            ShardScanRequest(
                range: range, limit: limit, bytesMax: scan.client.scanPageBytes, keysOnly: scan.keysOnly))
    }

    /// Waits for a page, or for the cancellation of the task: the request then ends by itself, at its deadline.
    func cancellable(_ page: EventLoopFuture<ScanPage>) async throws -> ScanPage {
        let promise = eventLoop.makePromise(of: ScanPage.self)
        // The first of the two counts.
        page.cascade(to: promise)
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(KVError(.cancelled, "the scan was cancelled"))
        }
    }

    /// A record that is too large for a page; nil where it is gone.
    func whole(_ key: [UInt8], of shard: Int) async throws(KVError) -> KVRecord? {
        let request = ShardScanRequest(
            range: ScanRange(prefix: key), limit: 1, bytesMax: Int(Int32.max), keysOnly: scan.keysOnly)
        let page: ScanPage
        do {
            page = try await cancellable(fetch(shard, request))
        } catch {
            throw KVClient.kvError(error)
        }
        return page.frames.withUnsafeReadableBytes { bytes in
            ScanFrame(in: bytes, at: 0).map { KVRecord($0, of: bytes) }.flatMap { $0.key == key ? $0 : nil }
        }
    }

    private func fetch(_ shard: Int, _ request: ShardScanRequest) -> EventLoopFuture<ScanPage> {
        let target = ScanQuery.target(
            shard: shards[shard].name, request.range, limit: request.limit, bytesMax: request.bytesMax,
            keysOnly: request.keysOnly, demands: scan.options.query)
        let routed = KeyRequest(
            request: NodeRequest(method: .GET, target: target, headers: [("accept", MediaType.scanFrames)]),
            slot: shards[shard].slots[0].first, needsLeader: scan.options.consistency == .leader, minVersion: nil,
            patience: .nanoseconds(0))
        let (context, eventLoop) = (scan.client.context, eventLoop)
        let deadline = NIODeadline.now() + (scan.options.timeout ?? scan.client.requestTimeout)
        return eventLoop.flatSubmit {
            RoutedRequest.start(routed, deadline: deadline, context: context, on: eventLoop)
        }.flatMapThrowing { response in
            guard response.status == 200 else { throw Answers.error(response) }
            return try ScanPage(response)
        }
    }
}

extension KVRecord {
    fileprivate init(_ frame: ScanFrame, of bytes: UnsafeRawBufferPointer) {
        self.init(
            key: Array(bytes[frame.key]),
            // A copy, as a slice would keep the whole page.
            value: frame.value.map { ByteBuffer(bytes: UnsafeRawBufferPointer(rebasing: bytes[$0])) },
            version: frame.version, ttl: frame.ttlMilliseconds.map { .milliseconds(Int64(clamping: $0)) })
    }
}
