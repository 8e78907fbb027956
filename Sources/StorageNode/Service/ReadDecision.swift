import Core
import NIOHTTP1
import ServiceSupport
import Wire

/// What a replica does with a read, by what the read demands and where the replica stands.
enum ReadDecision: Equatable {
    case answer
    /// A follower lacks the version, perhaps only for a moment.
    case waitForVersion(Version)
    case redirectToLeader
    /// The leader itself lacks the version.
    case refuseVersion(Version)
    /// This node leads for its clients, but its replica has stepped down.
    case leaderIsChanging

    /// Where a replica stands.
    struct Situation {
        /// Whether this node leads the shard for its clients, and whether the replica still does.
        var leads: Bool
        var isLeader: Bool
        /// New, and never caught up.
        var isJoining: Bool
        /// Of a follower; nil where it does not know.
        var lagMilliseconds: UInt64?
        /// False where the read has waited already.
        var mayWait: Bool
    }

    /// - Parameter newest: the replica's newest version; asked only where the read demands one.
    init(
        _ guarantees: Guarantees, minVersion: Version?, at situation: Situation, newest: @autoclosure () -> Version
    ) {
        if situation.leads {
            // One that is joining was to lead and has less than a follower: it would answer that keys are not there.
            if situation.isJoining || (guarantees.consistency == .leader && !situation.isLeader) {
                self = .leaderIsChanging
            } else if let minVersion, minVersion > newest() {
                self = .refuseVersion(minVersion)
            } else {
                self = .answer
            }
            return
        }
        guard !situation.isJoining, guarantees.consistency != .leader else {
            self = .redirectToLeader
            return
        }
        if let max = guarantees.maxStalenessMilliseconds {
            guard let lag = situation.lagMilliseconds, lag <= max else {
                self = .redirectToLeader
                return
            }
        }
        guard let minVersion, minVersion > newest() else {
            self = .answer
            return
        }
        self = situation.mayWait ? .waitForVersion(minVersion) : .redirectToLeader
    }
}

/// The header fields of a read that matter here, found in one pass.
struct ReadFields {
    private(set) var hasCondition = false
    private(set) var minVersion: Version?

    /// - Throws: `bad-request` where the version is none.
    init(_ headers: HTTPHeaders) throws(Problem) {
        for (name, value) in headers {
            switch name.utf8.count {
            case 13: if name.lowercased() == "if-none-match" { hasCondition = true }
            case 14: if name.lowercased() == KVHeader.minVersion { try demand(value) }
            default: break
            }
        }
    }

    private mutating func demand(_ value: String) throws(Problem) {
        guard let version = Version(hexDigits: value) else {
            throw Problem(
                .badRequest,
                "\(KVHeader.minVersion): \(value.prefix(64)) is no version: give the 16 hex digits of a \(KVHeader.version)."
            )
        }
        minVersion = max(minVersion ?? .zero, version)
    }
}
