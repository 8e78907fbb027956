import Core
import Sharding
import Wire

/// Decides how the leadership of a shard is moved, from what its replicas say of themselves. Does nothing itself, and
/// decides nothing that the nodes would not check again.
struct FailoverPlan {
    enum Decision: Equatable {
        /// The one asked for leads already.
        case leadsAlready(NodeAddress)
        /// The leader hands over: nothing is lost.
        case handOver(to: NodeAddress)
        /// The leader is gone: this one takes over.
        case promote(NodeAddress)
        case refuse(CommandFailure)
    }

    typealias Answer = Result<HistoryDocument, KVError>

    let shard: ShardTopology
    /// Who is to lead; nil for the most complete follower.
    let target: NodeAddress?
    let force: Bool

    /// - Parameter answers: of every replica to the question for its history.
    func decide(_ answers: [NodeAddress: Answer]) -> Decision {
        if let target, !shard.replicas.contains(target) {
            let known = shard.replicas.map(\.description).joined(separator: ", ")
            return refuse("\(target) holds no replica of \(shard.name): there are \(known)", .usage)
        }
        let standings = shard.replicas.compactMap { Standing($0, answers[$0]) }
        if let leader = standings.first(where: { $0.address == shard.leader }), leader.isLeading {
            return plannedChange(standings)
        }
        return forcedChange(standings, answers)
    }

    // MARK: The leader leads

    private func plannedChange(_ standings: [Standing]) -> Decision {
        if let target, target == shard.leader { return .leadsAlready(target) }
        let followers = standings.filter { $0.address != shard.leader }
        if let target { return .handOver(to: target) }
        guard let best = mostComplete(followers) else { return noFollower() }
        return .handOver(to: best.address)
    }

    private func noFollower() -> Decision {
        guard !shard.followers.isEmpty else {
            return refuse("\(shard.name) has no follower that could lead it: add a replica first")
        }
        let followers = shard.followers.map(\.description).joined(separator: ", ")
        return refuse("no follower of \(shard.name) answers that could lead it (\(followers)): start one")
    }

    // MARK: Nobody leads

    /// - Parameter standings: of the replicas that answer; the leader of the topology among them where it answers and
    ///   does not lead.
    private func forcedChange(_ standings: [Standing], _ answers: [NodeAddress: Answer]) -> Decision {
        guard let best = mostComplete(standings) else {
            return refuse(
                "no replica of \(shard.name) answers: \(silence(shard.replicas, answers)); start at least one of them")
        }
        var candidate = best
        if let target {
            guard let standing = standings.first(where: { $0.address == target }) else {
                return refuse(
                    "\(silence([target], answers)): start it, or let another lead with kv failover \(shard.name)")
            }
            // Not even by force: nobody is better off with less.
            guard !(standing.position < best.position) else {
                return refuse(
                    "\(best.address) has more of \(shard.name) (\(place(best))) than \(target) (\(place(standing))): "
                        + "use kv failover \(shard.name) --to \(best.address)")
            }
            candidate = standing
        }
        let silent = shard.followers.filter { address in !standings.contains { $0.address == address } }
        guard force || silent.isEmpty else {
            return refuse(
                "the leader of \(shard.name) is gone (\(silence([shard.leader], answers))), and who may have more of it "
                    + "than \(candidate.address) (\(place(candidate))) does not answer: \(silence(silent, answers)); "
                    + "start that, or accept to lose what only it has with kv failover \(shard.name) --force")
        }
        return .promote(candidate.address)
    }

    // MARK: Parts

    private struct Standing {
        let address: NodeAddress
        let position: LogPosition
        let isLeading: Bool

        /// nil where it does not answer, or not in this version's words.
        init?(_ address: NodeAddress, _ answer: Answer?) {
            guard case .success(let document)? = answer, let version = Version(hexDigits: document.position.version)
            else { return nil }
            self.address = address
            position = LogPosition(term: document.position.term, lsn: document.position.lsn, version: version)
            isLeading = document.position.role == .leader
        }
    }

    /// By term, then lsn; of equal ones the first in the topology.
    private func mostComplete(_ standings: [Standing]) -> Standing? {
        standings.reduce(nil) { best, next in
            guard let best else { return next }
            return best.position < next.position ? next : best
        }
    }

    private func place(_ standing: Standing) -> String {
        "term \(standing.position.term), lsn \(standing.position.lsn)"
    }

    private func silence(_ addresses: [NodeAddress], _ answers: [NodeAddress: Answer]) -> String {
        addresses.map { address in
            switch answers[address] {
            case .failure(let error)?:
                let reason = error.message
                return reason.contains("\(address)") ? reason : "\(address): \(reason)"
            case .success?: return "\(address) does not lead"
            case nil: return "\(address) was not asked"
            }
        }.joined(separator: "; ")
    }

    private func refuse(_ message: String, _ status: CommandStatus = .unavailable) -> Decision {
        .refuse(CommandFailure(status: status, message: message))
    }
}
