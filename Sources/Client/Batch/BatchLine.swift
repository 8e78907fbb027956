package import Core
package import NIOCore
import NIOHTTP1
package import Wire

/// What became of one operation, as it is passed on: a line that a node wrote, or what was found out here.
package enum BatchLine: Sendable {
    /// Without its LF.
    case raw(ByteBuffer)
    case result(BatchResult)

    /// Appends it with its LF.
    package func write(into buffer: inout ByteBuffer) {
        switch self {
        case .raw(let line):
            buffer.writeImmutableBuffer(line)
            buffer.writeStaticString("\n")
        case .result(let result): result.write(into: &buffer)
        }
    }

    /// Throws `KVError(.invalidData)` where a node wrote no result.
    package func result() throws(KVError) -> BatchResult {
        switch self {
        case .raw(let line): try BatchResult(line)
        case .result(let result): result
        }
    }

    /// The name of the problem where the operation failed with one that a node states before it does anything.
    package func states(_ kind: Problem.Kind) -> Bool {
        switch self {
        case .raw(let line):
            // Just as BatchResult writes it.
            line.readableBytesView.starts(with: "{\"status\":\(kind.status),\"type\":\"\(kind.name)\"".utf8)
        case .result(.failed(let failure)): failure.is(kind)
        case .result: false
        }
    }

    /// Whether it holds a value.
    package var hasValue: Bool {
        switch self {
        case .raw(let line): line.readableBytesView.starts(with: BatchLine.foundStart)
        case .result(.found): true
        case .result: false
        }
    }

    /// The line with bytes of its own, so that it does not keep those it came with.
    package var detached: BatchLine {
        guard case .raw(let line) = self else { return self }
        return .raw(ByteBuffer(bytes: line.readableBytesView))
    }

    private static let foundStart = Array("{\"status\":200,\"value".utf8)

    /// Whether its operation failed, judged by the first digit of the status.
    var isFailure: Bool {
        switch self {
        case .raw(let line): line.getInteger(at: line.readerIndex + BatchLine.statusOffset, as: UInt8.self) != 0x32
        case .result(.failed): true
        case .result: false
        }
    }

    private static let statusOffset = "{\"status\":".utf8.count
}

/// What came of sending a part of a batch to a node.
package enum BatchAnswer: Sendable {
    /// One for each operation of the part, in their order.
    case lines([BatchLine])
    /// The node refused the part as a whole: nothing of it was done.
    case refused(BatchResult.Failure)
    /// There is no proper answer.
    /// - Parameter maybeDone: false where the node cannot have begun.
    case failed(BatchResult.Failure, maybeDone: Bool)

    /// Reads a node's answer to a part of `count` operations.
    package init(_ response: NodeResponse, count: Int, from address: NodeAddress) {
        guard response.status == 200 else {
            guard let problem = Answers.failure(response) else {
                self = .failed(
                    BatchResult.Failure(
                        Problem(
                            .badGateway,
                            "\(address) answered \(response.status), which is no answer to a batch: is it a node?")),
                    maybeDone: true)
                return
            }
            self = .refused(problem)
            return
        }
        let body = response.body
        let lines = body.withUnsafeReadableBytes { bytes in
            NDJSONLines(bytes).compactMap { line in
                body.getSlice(at: body.readerIndex + line.lowerBound, length: line.count).map(BatchLine.raw)
            }
        }
        guard lines.count == count else {
            self = .failed(
                BatchResult.Failure(
                    Problem(.badGateway, "\(address) answered \(count) operations with \(lines.count) lines.")),
                maybeDone: true)
            return
        }
        self = .lines(lines)
    }

    /// What a request that got no answer comes to.
    package init(_ error: any Error, from address: NodeAddress) {
        guard let failure = error as? NodeFailure else {
            self = .failed(
                BatchResult.Failure(Problem(.internalError, "The request to \(address) failed: \(error).")),
                maybeDone: true)
            return
        }
        let kind: Problem.Kind =
            switch failure.error.code {
            case .timedOut: .upstreamTimeout
            case .overloaded: .overloaded
            case .unavailable where failure.delivery == .notSent: .unavailable
            case .cancelled: .unavailable
            default: .badGateway
            }
        self = .failed(
            BatchResult.Failure(Problem(kind, "\(failure.error.message).")),
            maybeDone: failure.delivery == .possiblySent)
    }
}

extension Answers {
    /// The problem that a node refuses a whole request with; nil where the answer is none.
    static func failure(_ response: NodeResponse) -> BatchResult.Failure? {
        struct Document: Decodable {
            var type: String
            var detail: String?
        }
        guard response.status >= 400,
            let document = try? DocumentCoding.decode(Document.self, from: response.body.readableBytesView)
        else { return nil }
        return BatchResult.Failure(
            status: response.status, type: document.type, detail: document.detail ?? document.type)
    }
}

extension NodeRequest {
    /// A part of a batch whose lines are passed on as they came.
    /// - Parameters:
    ///   - lines: where they stand in the readable bytes of `body`, without their LFs.
    ///   - operations: which of them.
    package init(batch target: String, lines: [Range<Int>], of body: ByteBuffer, _ operations: [Int]) {
        var part = ByteBuffer()
        part.reserveCapacity(operations.reduce(0) { $0 + lines[$1].count + 1 })
        body.withUnsafeReadableBytes { bytes in
            for operation in operations {
                part.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[lines[operation]]))
                part.writeStaticString("\n")
            }
        }
        self.init(method: .POST, target: target, headers: [("content-type", MediaType.ndjson)], body: part)
    }
}
