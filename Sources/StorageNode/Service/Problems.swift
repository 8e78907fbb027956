import Core
import Shard
import Wire

extension Problem {
    /// What a client is told whose read met damage: where and what is for who runs the cluster.
    static let damagedRead = Problem(
        .corrupted, "What is stored here is damaged and cannot be read: look at kv status, and read another replica.")

    /// Of a failed read.
    init(ofRead error: any Error) {
        guard let error = error as? KVError, error.code == .corrupted else {
            self.init(error)
            return
        }
        self = .damagedRead
    }

    init(_ refusal: WriteRefusal) {
        switch refusal {
        case .conditionFailed:
            self.init(
                .preconditionFailed,
                "What is stored under the key is not what If-Match or If-None-Match demands: read it again, then decide."
            )
        case .notAnInteger:
            self.init(
                .notAnInteger, "What is stored under the key is no 64-bit integer in decimal: put one, or delete it.")
        case .overflow:
            self.init(.counterOverflow, "The sum is outside of the 64-bit integers; the counter is as it was.")
        case .otherRefused:
            self.init(.failedDependency, "Another operation of this atomic batch was refused, so nothing was done.")
        case .tooMuchRead:
            self.init(
                .answerTooLarge, "The values that this batch reads are too large together: read this one in another.")
        case .unreadable(let error): self.init(ofRead: error)
        }
    }

    /// What a client is told about a failure inside the node.
    init(_ error: any Error) {
        if let problem = error as? Problem {
            self = problem
            return
        }
        if let failure = error as? PeerFailure {
            self.init(.replicaUnreachable, "\(failure)")
            return
        }
        guard let error = error as? KVError else {
            self.init(.internalError, "\(error)")
            return
        }
        let kind: Problem.Kind =
            switch error.code {
            case .overloaded: .overloaded
            case .invalidArgument: .badRequest
            case .notFound: .unknownShard
            case .corrupted: .corrupted
            case .storageFull: .storageFull
            case .storageFailed: .storageFailed
            case .unavailable, .cancelled, .timedOut: .unavailable
            case .notLeader: .notLeader
            case .staleTerm: .staleTerm
            case .logMismatch: .logMismatch
            case .logTruncated: .logTruncated
            case .diverged: .diverged
            case .unknownSnapshot: .unknownSnapshot
            case .snapshotBusy: .snapshotBusy
            case .snapshotMismatch: .snapshotMismatch
            default: .internalError
            }
        self.init(kind, error.description)
    }
}
