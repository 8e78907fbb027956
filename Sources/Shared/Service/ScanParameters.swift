import Core
public import HTTPServer
public import NIOCore
import NIOHTTP1
public import Wire

/// What the query of `GET /kv` asks for.
public struct ScanParameters: Sendable, Hashable {
    public static let allowedMethods = "GET, HEAD"

    public var range: ScanRange
    public var limit = ScanQuery.limitDefault
    public var keysOnly = false
    /// Goes on without shards that do not answer.
    public var isPartial = false
    public var guarantees: Guarantees
    /// Of one shard only; for who merges.
    public var shard: String?
    /// What a page of that shard may have; nil where the query does not say.
    public var shardBytesMax: Int?
    /// How often the request was redirected.
    public var hops = 0

    /// Whether the request is a scan, of whatever method.
    public static func names(_ request: HTTPRequest) -> Bool { request.path == APIPath.scan }

    /// - Throws: `bad-request` with what is allowed, for a parameter that is unknown, stands twice or does not take its
    ///   value, and for a `KV-Min-Version` where the scan goes over more than a shard; `redirect-loop`.
    public init(_ request: HTTPRequest) throws(Problem) {
        let parameters = try QueryParameters(request.query)
        try parameters.allowOnly(ScanParameters.names)
        guarantees = try Guarantees(parameters)
        range = ScanRange(
            prefix: try ScanParameters.bound(ScanQuery.prefix, Limits.keyBytesMax, parameters),
            start: try ScanParameters.bound(ScanQuery.start, ScanRange.boundBytesMax, parameters),
            end: try ScanParameters.bound(ScanQuery.end, ScanRange.boundBytesMax, parameters),
            isReverse: try parameters.flag(ScanQuery.reverse) ?? false)
        limit = try parameters.integer(ScanQuery.limit, in: 1...ScanQuery.limitMax) ?? limit
        keysOnly = try parameters.flag(ScanQuery.keysOnly) ?? false
        isPartial = try parameters.flag(ScanQuery.partial) ?? false
        shard = try parameters.text(ScanQuery.shard)
        shardBytesMax = try parameters.integer(ScanQuery.bytes, in: 1...Int(Int32.max))
        // Accepted as everywhere, and without effect: a scan is never redirected by a router.
        _ = try parameters.flag("proxy")
        hops = try parameters.integer(redirectHopsParameter, in: 0...1_000) ?? 0
        guard hops < Limits.redirectsMax else {
            throw Problem(
                .redirectLoop,
                "The scan was redirected \(hops) times: the nodes disagree about the topology; compare their /topology "
                    + "documents.")
        }
        guard shard == nil || !isPartial else {
            throw Problem(.badRequest, "partial is for scans over all shards: leave it or shard out.")
        }
        guard shard != nil || shardBytesMax == nil else {
            throw Problem(.badRequest, "bytes is for a scan of one shard: leave it out or name the shard.")
        }
        guard shard != nil || request.headers.first(name: KVHeader.minVersion) == nil else {
            throw Problem(
                .badRequest,
                "\(KVHeader.minVersion) is about one shard and a scan goes over all: use consistency=leader instead.")
        }
    }

    private static let names =
        [
            ScanQuery.prefix, ScanQuery.start, ScanQuery.end, ScanQuery.limit, ScanQuery.reverse, ScanQuery.keysOnly,
            ScanQuery.partial, ScanQuery.shard, ScanQuery.bytes, "proxy", redirectHopsParameter,
        ] + Guarantees.readParameterNames

    private static func bound(
        _ name: String, _ bytesMax: Int, _ parameters: QueryParameters
    ) throws(Problem) -> [UInt8] {
        let bytes = parameters.bytes(name) ?? []
        guard bytes.count <= bytesMax else {
            throw Problem(.badRequest, "\(name) has \(bytes.count) bytes: at most \(bytesMax) are allowed.")
        }
        return bytes
    }

    /// What the read demands, as parameters of the query to a shard.
    public var demands: [String] {
        var demands: [String] = []
        if let consistency = guarantees.consistency { demands.append("consistency=\(consistency.rawValue)") }
        if let staleness = guarantees.maxStalenessMilliseconds { demands.append("max_staleness=\(staleness)ms") }
        return demands
    }
}

extension HTTPResponse {
    /// A page of a scan.
    /// - Parameters:
    ///   - next: where the next one begins; nil where there is no more.
    ///   - missing: names of shards that are not in it.
    public init(scanned lines: ByteBuffer, next: [UInt8]?, missing: [String]) {
        var headers = [(name: "content-type", value: MediaType.ndjson)]
        if let next { headers.append((name: KVHeader.next, value: PercentCoding.encode(next))) }
        if !missing.isEmpty { headers.append((name: KVHeader.missingShards, value: missing.joined(separator: ","))) }
        self.init(status: 200, headers: headers, body: lines)
    }
}

extension Problem {
    /// No replica of a shard answers a scan.
    /// - Parameter reason: one line.
    public static func scanUnavailable(shard: String, reason: String) -> Problem {
        Problem(
            .unavailable,
            "Shard \(shard) does not answer the scan: \(reason). Try again, or ask with \(ScanQuery.partial)=true for what "
                + "the other shards have.",
            members: ["shard": shard])
    }
}
