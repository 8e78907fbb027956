package import NIOCore
package import NIOPosix
package import Wire

/// A page of one shard, to be asked for.
package struct ShardScanRequest: Sendable, Hashable {
    package var range: ScanRange
    package var limit: Int
    package var bytesMax: Int
    package var keysOnly: Bool

    package init(range: ScanRange, limit: Int, bytesMax: Int, keysOnly: Bool) {
        self.range = range
        self.limit = limit
        self.bytesMax = bytesMax
        self.keysOnly = keysOnly
    }
}

/// Nobody answers for a shard.
package struct ShardScanFailure: Error, Sendable, Hashable {
    package var shard: String
    /// One line, with the nodes that were asked.
    package var reason: String

    package init(shard: String, reason: String) {
        self.shard = shard
        self.reason = reason
    }
}

/// One page of a scan over several shards: asks them at once, merges what they answer.
package struct ScanRun: Sendable {
    /// Names of the shards that may hold keys of the range.
    package var shards: [String]
    package var range: ScanRange
    package var paging: ScanPaging
    package var keysOnly: Bool
    /// Goes on without shards that fail, as long as there is one that does not.
    package var isPartial: Bool
    /// The largest record that is fetched, in bytes.
    package var recordBytesMax: Int

    package init(
        shards: [String], range: ScanRange, paging: ScanPaging, keysOnly: Bool, isPartial: Bool, recordBytesMax: Int
    ) {
        self.shards = shards
        self.range = range
        self.paging = paging
        self.keysOnly = keysOnly
        self.isPartial = isPartial
        self.recordBytesMax = recordBytesMax
    }

    package struct Result: Sendable, Hashable {
        package var page: ScannedPage
        /// Names of the shards that are not in it.
        package var missing: [String] = []
    }

    /// Confined to the event loop, which completes the result.
    /// - Parameters:
    ///   - merging: threads that large pages are merged on, so that they do not hold up the loop.
    ///   - fetch: asks a shard, by its position in ``shards``. Fails with ``ShardScanFailure``.
    ///
    /// Fails with what `fetch` fails with.
    package func start(
        on eventLoop: any EventLoop, merging: NIOThreadPool,
        fetch: @escaping (Int, ShardScanRequest) -> EventLoopFuture<ScanPage>
    ) -> EventLoopFuture<Result> {
        guard !range.isEmpty else { return eventLoop.makeSucceededFuture(Result(page: ScannedPage())) }
        let request = ShardScanRequest(
            range: range, limit: paging.limit(ofEach: shards.count), bytesMax: paging.bytesMax(ofEach: shards.count),
            keysOnly: keysOnly)
        let answers = shards.indices.map { fetch($0, request) }
        return EventLoopFuture.whenAllComplete(answers, on: eventLoop).assumeIsolated().flatMap { answers in
            merge(answers, on: eventLoop, merging: merging, fetch: fetch)
        }.nonisolated()
    }

    private func merge(
        _ answers: [Swift.Result<ScanPage, any Error>], on eventLoop: any EventLoop, merging: NIOThreadPool,
        fetch: @escaping (Int, ShardScanRequest) -> EventLoopFuture<ScanPage>
    ) -> EventLoopFuture<Result> {
        var pages: [ScanPage] = []
        /// Positions in ``shards``.
        var positions: [Int] = []
        var failure: (any Error)?
        for (position, answer) in answers.enumerated() {
            switch answer {
            case .success(let page):
                pages.append(page)
                positions.append(position)
            case .failure(let error): failure = failure ?? error
            }
        }
        if let failure, !isPartial || pages.isEmpty { return eventLoop.makeFailedFuture(failure) }
        let missing = shards.indices.filter { !positions.contains($0) }.map { shards[$0] }
        return merged(pages, on: eventLoop, merging: merging).assumeIsolated().flatMap { outcome in
            switch outcome {
            case .page(let page): return eventLoop.makeSucceededFuture(Result(page: page, missing: missing))
            case .oversized(let index, let key):
                return fetchWhole(key, of: positions[index], fetch: fetch).map { Result(page: $0, missing: missing) }
            }
        }.nonisolated()
    }

    /// Pages up to this size are merged at once.
    private static let mergedAtOnceBytesMax = 32 << 10

    private func merged(
        _ pages: [ScanPage], on eventLoop: any EventLoop, merging: NIOThreadPool
    ) -> EventLoopFuture<ScannedPage.Outcome> {
        let (paging, isReverse) = (paging, range.isReverse)
        guard pages.reduce(0, { $0 + $1.frames.readableBytes }) > ScanRun.mergedAtOnceBytesMax else {
            return eventLoop.makeSucceededFuture(ScannedPage.merge(pages, paging, isReverse: isReverse))
        }
        return merging.runIfActive(eventLoop: eventLoop) { ScannedPage.merge(pages, paging, isReverse: isReverse) }
    }

    /// A page of the one record that is too large to be fetched together with others.
    private func fetchWhole(
        _ key: [UInt8], of position: Int, fetch: (Int, ShardScanRequest) -> EventLoopFuture<ScanPage>
    ) -> EventLoopFuture<ScannedPage> {
        let (shard, isReverse) = (shards[position], range.isReverse)
        // No other key with that prefix comes before it.
        let request = ShardScanRequest(
            range: ScanRange(prefix: key), limit: 1, bytesMax: recordBytesMax, keysOnly: keysOnly)
        return fetch(position, request).flatMapThrowing { page in
            guard let single = ScannedPage.single(page, key: key, isReverse: isReverse) else {
                throw ShardScanFailure(
                    shard: shard, reason: "a record is larger than the \(request.bytesMax) bytes that fit in a page")
            }
            return single
        }
    }
}
