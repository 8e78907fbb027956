import Core
import NIOCore
import NIOHTTP1
import Wire

/// Reads the answers of nodes.
enum Answers {
    /// The members of a problem document that a client acts on.
    private struct Document: Decodable {
        var type: String
        var detail: String?
    }

    /// The error that an unsuccessful answer stands for.
    static func error(_ response: NodeResponse) -> KVError {
        guard let problem = problem(response) else {
            return KVError(.invalidData, "the answer has status \(response.status) and does not say why")
        }
        let code = code(of: problem.type)
        return KVError(code, problem.detail ?? problem.type, version: code == .ackTimeout ? response.version : nil)
    }

    /// The error that a failed operation of a batch stands for.
    static func error(_ failure: BatchResult.Failure, _ operation: BatchOperation) -> KVError {
        let isLost = failure.is(.upstreamTimeout) || failure.is(.badGateway)
        if isLost, case .otherWrite = BatchProgress.Operation(operation).kind {
            return KVError(.outcomeUnknown, failure.detail)
        }
        let code = failure.is(.failedDependency) ? .batchRefused : code(of: failure.type)
        return KVError(code, failure.detail, version: failure.version)
    }

    /// The kind of problem that an answer names, where a client acts on it.
    static func problemType(_ response: NodeResponse, to method: HTTPMethod) -> String? {
        guard response.status == 409 || response.status >= 500 else { return nil }
        // The answer to HEAD has no document, and a read is refused with 409 for this reason only.
        if method == .HEAD { return response.status == 409 ? Problem.Kind.versionUnknown.name : nil }
        return problem(response)?.type
    }

    /// Whether a 404 means that the key is not there, and not that this is no node or router of distribKV.
    static func isMissingKey(_ response: NodeResponse) -> Bool {
        guard response.status == 404 else { return false }
        // The answer to HEAD has no document.
        guard response.body.readableBytes > 0 else { return response.epoch != nil }
        return problem(response)?.type == Problem.Kind.notFound.name
    }

    private static func problem(_ response: NodeResponse) -> Document? {
        // Not every error answer is a problem document: a proxy on the way writes its own.
        try? DocumentCoding.decode(Document.self, from: response.body.readableBytesView)
    }

    private static func code(of type: String) -> KVError.Code {
        switch type {
        case Problem.Kind.notFound.name: .notFound
        case Problem.Kind.badRequest.name, Problem.Kind.valueTooLarge.name, Problem.Kind.targetTooLong.name,
            Problem.Kind.headersTooLarge.name, Problem.Kind.methodNotAllowed.name, Problem.Kind.unsupported.name,
            Problem.Kind.batchTooLarge.name, Problem.Kind.answerTooLarge.name:
            .invalidArgument
        case Problem.Kind.overloaded.name: .overloaded
        case Problem.Kind.unavailable.name, Problem.Kind.redirectLoop.name, Problem.Kind.badGateway.name: .unavailable
        case Problem.Kind.upstreamTimeout.name, Problem.Kind.requestTimeout.name: .timedOut
        case Problem.Kind.storageFull.name: .storageFull
        case Problem.Kind.storageFailed.name: .storageFailed
        case Problem.Kind.corrupted.name: .corrupted
        case Problem.Kind.notLeader.name: .notLeader
        case Problem.Kind.versionUnknown.name: .versionUnknown
        case Problem.Kind.ackTimeout.name: .ackTimeout
        case Problem.Kind.preconditionFailed.name: .preconditionFailed
        case Problem.Kind.notAnInteger.name: .notAnInteger
        case Problem.Kind.counterOverflow.name: .counterOverflow
        case Problem.Kind.unknownShard.name: .notFound
        case Problem.Kind.logMismatch.name: .logMismatch
        case Problem.Kind.staleTerm.name: .staleTerm
        case Problem.Kind.diverged.name: .diverged
        case Problem.Kind.topologyConflict.name, Problem.Kind.followerBehind.name,
            Problem.Kind.replicaUnreachable.name, Problem.Kind.snapshotBusy.name:
            .conflict
        default: .internalError
        }
    }
}
