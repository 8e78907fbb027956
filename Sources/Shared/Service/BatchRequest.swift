import Core
public import HTTPServer
public import NIOCore
import NIOHTTP1
public import Wire

/// What `POST /batch` asks for besides its operations.
public struct BatchRequest: Sendable {
    /// All of its operations are done, or none.
    public private(set) var isAtomic = false
    /// Operations on shards that other nodes lead go there. False in what a node, router or client sends on: the node
    /// then answers `not-leader` for them, so that a batch never goes in circles.
    public private(set) var forwards = true
    public private(set) var guarantees = Guarantees()

    private static let parameterNames = ["atomic", "forward", "proxy"] + Guarantees.writeParameterNames

    public init(guarantees: Guarantees = Guarantees()) { self.guarantees = guarantees }

    /// nil where the path is another.
    /// - Throws: `bad-request` where the query is not one of a batch.
    public init?(_ request: HTTPRequest) throws(Problem) {
        guard request.path == APIPath.batch else { return nil }
        let parameters = try QueryParameters(request.query)
        try parameters.allowOnly(BatchRequest.parameterNames)
        isAtomic = try parameters.flag("atomic") ?? false
        forwards = try parameters.flag("forward") ?? true
        guarantees = try Guarantees(parameters)
    }

    /// Path and query of what goes to a leader.
    public var forwardedTarget: String {
        APIPath.batch(
            isAtomic: isAtomic, ack: guarantees.ack, timeoutMilliseconds: guarantees.timeoutMilliseconds)
    }

    /// How much longer than otherwise a node may take for an answer.
    public var waitsForMilliseconds: UInt64 {
        guarantees.timeoutMilliseconds ?? (guarantees.ack == nil ? 0 : Guarantees.timeoutMillisecondsDefault)
    }

    /// Whether a request is one for a batch, by its target alone.
    public static func isBatch(_ target: String) -> Bool {
        target.utf8.starts(with: APIPath.batch.utf8)
            && (target.utf8.count == APIPath.batch.utf8.count
                || target.utf8.dropFirst(APIPath.batch.utf8.count).first == UInt8(ascii: "?"))
    }

    /// Checks what an atomic batch can be.
    /// - Parameter shard: the position of an operation's shard, and that one's name.
    /// - Throws: `bad-request` that names two keys of different shards, `batch-too-large`.
    public static func checkAtomic(
        _ operations: [BatchOperation], shard: (BatchOperation) -> (position: Int, name: String)
    ) throws(Problem) {
        var bytes = 0
        var first: (position: Int, name: String)?
        for operation in operations {
            bytes += operation.contentBytes
            let place = shard(operation)
            guard let known = first else {
                first = place
                continue
            }
            guard place.position == known.position else {
                throw Problem(
                    .badRequest,
                    "An atomic batch has keys of one shard: \(shown(operations[0].key)) is in \(known.name), "
                        + "\(shown(operation.key)) in \(place.name). Keys with the same {tag} share a shard.")
            }
        }
        guard bytes <= Limits.atomicBatchBytesMax else {
            throw Problem(
                .batchTooLarge,
                "An atomic batch has at most \(Limits.atomicBatchBytesMax) bytes of keys and values, this one \(bytes)."
            )
        }
    }

    /// A key as text for people, shortened.
    private static func shown(_ key: ByteBuffer) -> String {
        let text = String(decoding: key.readableBytesView.prefix(64), as: UTF8.self)
        return JSONText.quote(key.readableBytes > 64 ? text + "…" : text)
    }
}

extension BatchOperation {
    /// Why the operation cannot be done whatever is stored; nil where it can.
    public func defect(valueBytesMax: Int) -> Problem? {
        guard (Limits.keyBytesMin...Limits.keyBytesMax).contains(key.readableBytes) else {
            return Problem(
                .badRequest,
                "A key has \(Limits.keyBytesMin) to \(Limits.keyBytesMax) bytes, this one \(key.readableBytes).")
        }
        guard case .put(let value, let ttl) = action else { return nil }
        if value.readableBytes > valueBytesMax {
            return Problem(
                .valueTooLarge, "The value has \(value.readableBytes) bytes, at most \(valueBytesMax) are allowed.")
        }
        if let ttl, !(1...Limits.ttlMillisecondsMax).contains(ttl) {
            return Problem(.badRequest, "A ttl is at most \(Limits.ttlMillisecondsMax / 86_400_000)d.")
        }
        return nil
    }
}

extension HTTPResponse {
    /// The answer to a batch.
    public init(ndjson body: ByteBuffer) {
        self.init(status: 200, headers: [(name: "content-type", value: MediaType.ndjson)], body: body)
    }
}
