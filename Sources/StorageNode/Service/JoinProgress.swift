import Configuration
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// Bounds of a ``JoinProgress``.
struct JoinLimits: Sendable {
    /// After which a node that is not yet a member gives up.
    var timeout = Duration.seconds(60)
    /// After which a node that is one by what it knows goes on with that.
    var memberTimeout = Duration.seconds(3)
    /// Of one registration, before the topology is asked for again.
    var redirectsMax = 5
    /// Between attempts: the first wait, which doubles up to the longest.
    var waitMin = Duration.milliseconds(100)
    var waitMax = Duration.seconds(2)
}

/// How a node asks a running cluster to be made a replica of shards: the decisions, without I/O.
///
/// Ask for ``next(at:)``, do what it says, report with ``receive(_:at:)``, and ask again until it ends. First the
/// topology is asked for, then the leader of each shard. Whatever goes wrong on the way starts over with the topology,
/// because another node may lead by then. A shard that has the node as a replica already is not asked.
struct JoinProgress: Sendable {
    /// Times are since the start.
    enum Action: Sendable {
        /// `GET /topology` there.
        case fetchTopology(NodeAddress)
        /// Begin to serve by this topology; nothing to report. Once, before the first registration, because the
        /// replicator may come right after it.
        case serve(Topology)
        /// POST a ``MembershipRequest`` there.
        case register(shard: String, at: NodeAddress, target: String)
        case wait(until: Duration)
        /// The end: the node is a replica of every shard asked for.
        case joined(Topology)
        /// The end: it was one before, and nobody could be asked whether it still is.
        case unconfirmed(Topology, reason: String)
        /// The end.
        case failed(KVError)
    }

    enum Event {
        case answer(NodeResponse)
        /// No answer, and why.
        case failure(String)
    }

    private enum Phase: Sendable {
        case finding
        /// The topology is known.
        case found
        case registering(Registration)
        case waiting(until: Duration)
        case ended(Action)
    }

    private struct Registration: Sendable {
        var shard: String
        var leader: NodeAddress
        var target: String
        var redirects = 0
    }

    private let node: NodeAddress
    private let settings: JoinSettings
    private let limits: JoinLimits
    /// Answers 0.5 to 1, so that those who failed together do not return together.
    private let jitter: @Sendable () -> Double
    private var phase = Phase.finding
    /// The newest one seen.
    private var topology: Topology?
    private let hasData: Bool
    private var isServing = false
    private var failures = 0
    /// Why the last attempt came to nothing.
    private(set) var lastFailure: String?

    /// - Parameters:
    ///   - known: the topology of the data directory or of sharding.toml; nil where there is neither.
    ///   - hasData: whether this node has served from its data directory before.
    init(
        node: NodeAddress, settings: JoinSettings, known: Topology?, hasData: Bool, limits: JoinLimits = JoinLimits(),
        jitter: @escaping @Sendable () -> Double
    ) {
        self.node = node
        self.settings = settings
        self.topology = known
        self.hasData = hasData
        self.limits = limits
        self.jitter = jitter
    }

    // MARK: Actions

    mutating func next(at now: Duration) -> Action {
        switch phase {
        case .ended(let action): return action
        case .waiting(let until) where now < until: return .wait(until: until)
        case .waiting: phase = .finding
        case .finding, .found, .registering: break
        }
        if case .found = phase, let topology {
            guard isServing else {
                isServing = true
                return .serve(topology)
            }
            guard let shard = missing(in: topology) else { return end(.joined(topology)) }
            phase = .registering(
                Registration(shard: shard.name, leader: shard.leader, target: APIPath.replicas(shard: shard.name)))
        }
        if let timeout = expired(at: now) { return end(giveUp(after: timeout)) }
        if case .registering(let registration) = phase {
            return .register(shard: registration.shard, at: registration.leader, target: registration.target)
        }
        return .fetchTopology(settings.seeds[failures % settings.seeds.count])
    }

    /// The first shard asked for of which the node is no replica.
    private func missing(in topology: Topology) -> ShardTopology? {
        settings.shards.lazy.compactMap { topology.shard(named: $0) }.first { !$0.replicas.contains(node) }
    }

    /// Whether the node is a replica of every shard asked for, by what is known.
    private var isMember: Bool {
        guard let topology else { return false }
        return settings.shards.allSatisfy { topology.shard(named: $0)?.replicas.contains(node) ?? false }
    }

    private func expired(at now: Duration) -> Duration? {
        let timeout = isMember ? limits.memberTimeout : limits.timeout
        return now >= timeout ? timeout : nil
    }

    private mutating func end(_ action: Action) -> Action {
        phase = .ended(action)
        return action
    }

    private func giveUp(after timeout: Duration) -> Action {
        let reason = lastFailure ?? "nobody has answered"
        if isMember, let topology { return .unconfirmed(topology, reason: reason) }
        let shards = settings.shards.joined(separator: ", ")
        return .failed(
            KVError(.timedOut, "could not join \(shards) within \(timeout.components.seconds) s: \(reason)"))
    }

    // MARK: Events

    mutating func receive(_ event: Event, at now: Duration) {
        switch (phase, event) {
        case (.finding, .failure(let reason)):
            retry("\(reason); --join has to name a router or node of the cluster", at: now)
        case (.finding, .answer(let response)):
            guard response.status == 200, let found = try? Topology(json: response.body.readableBytesView) else {
                let seed = settings.seeds[failures % settings.seeds.count]
                return retry(
                    "\(seed) answers GET \(APIPath.topology) with status \(response.status) and no topology; --join "
                        + "has to name a router or node of the cluster", at: now)
            }
            take(found)
        case (.registering(let registration), .failure(let reason)):
            retry("\(reason); it leads \(registration.shard)", at: now)
        case (.registering(let registration), .answer(let response)):
            registered(response, registration, at: now)
        case (.found, _), (.waiting, _), (.ended, _):
            preconditionFailure("an event that no action has asked for")
        }
    }

    /// Starts over, later. `reason` is lost where the next attempt succeeds, so nothing depends on it.
    private mutating func retry(_ reason: String, after atLeast: Duration = .zero, at now: Duration) {
        let doublings = min(failures, 16)
        let wait = min(limits.waitMin * (1 << doublings), limits.waitMax) * jitter()
        failures += 1
        lastFailure = reason
        phase = .waiting(until: now + max(wait, min(atLeast, limits.waitMax)))
    }

    private mutating func take(_ found: Topology) {
        do throws(KVError) {
            if let topology { try check(found, isOf: topology) }
            let newest = try JoinProgress.newer(topology, found)
            try check(newest)
            topology = newest
            phase = .found
        } catch {
            phase = .ended(.failed(error))
        }
    }

    private static func newer(_ known: Topology?, _ found: Topology) throws(KVError) -> Topology {
        do {
            return try known.flatMap { try $0.supersedes(found) ? $0 : nil } ?? found
        } catch {
            throw KVError(.internalError, "two topologies cannot be compared", cause: error)
        }
    }

    private func check(_ found: Topology, isOf known: Topology) throws(KVError) {
        guard found.cluster == known.cluster else {
            throw KVError(
                .invalidConfiguration,
                "this node belongs to cluster \"\(known.cluster)\", --join leads to cluster \"\(found.cluster)\": "
                    + "name another --data-dir or another --join")
        }
    }

    /// Whether the node can be taken in at all.
    private func check(_ topology: Topology) throws(KVError) {
        if let unknown = settings.shards.first(where: { topology.shard(named: $0) == nil }) {
            let known = topology.shards.map(\.name).joined(separator: ", ")
            throw KVError(
                .invalidArgument,
                "there is no shard \"\(unknown.prefix(64))\" to join; name one of \(known) with --shard")
        }
        if !hasData, let led = topology.shards.first(where: { $0.leader == node }) {
            throw KVError(
                .invalidConfiguration,
                "\(node) leads \(led.name), but its data directory is new: start it with the old one, or have another "
                    + "node lead first with kv failover \(led.name)")
        }
        if node.isLoopback, let remote = topology.nodes.first(where: { !$0.isLoopback }) {
            throw KVError(
                .invalidArgument,
                "\(remote) and others cannot reach this node as \(node): say with --advertise host:port how they do")
        }
    }

    private mutating func registered(_ response: NodeResponse, _ registration: Registration, at now: Duration) {
        let (shard, leader) = (registration.shard, registration.leader)
        if response.status == 200 {
            guard let answered = try? Topology(json: response.body.readableBytesView),
                answered.shard(named: shard)?.replicas.contains(node) == true
            else { return retry("\(leader) was asked to take \(node) into \(shard) and answered otherwise", at: now) }
            take(answered)
            if case .found = phase, let topology, topology.shard(named: shard)?.replicas.contains(node) != true {
                retry(
                    "\(leader) goes by a topology of epoch \(answered.epoch), this node by one of epoch "
                        + "\(topology.epoch)", at: now)
            }
            return
        }
        if response.isRedirect {
            guard registration.redirects < limits.redirectsMax,
                let location = response.headers.first(name: "location"),
                let redirect = Redirect(location: location, from: leader)
            else { return retry("\(leader) does not say who leads \(shard)", at: now) }
            var next = registration
            next.redirects += 1
            next.leader = redirect.address
            next.target = redirect.target
            phase = .registering(next)
            return
        }
        let problem = JoinProgress.problem(in: response)
        let reason = problem.detail ?? "status \(response.status)"
        if JoinProgress.isFinal(response.status, problem.type) {
            let refusal = "\(leader) does not make \(node) a replica of \(shard): \(reason)"
            phase = .ended(.failed(KVError(.invalidArgument, refusal)))
            return
        }
        let seconds = response.headers.first(name: "retry-after").flatMap { Int($0) } ?? 0
        retry("\(leader), which leads \(shard): \(reason)", after: .seconds(max(0, min(seconds, 60))), at: now)
    }

    /// Whether asking again would be answered the same.
    private static func isFinal(_ status: Int, _ type: String?) -> Bool {
        switch status {
        case 408, 429: false
        case 404: type != Problem.Kind.unknownShard.name  // Asked a node that does not know of its shard yet.
        case 409: false
        default: (400..<500).contains(status)
        }
    }

    private static func problem(in response: NodeResponse) -> (type: String?, detail: String?) {
        struct Document: Decodable {
            var type: String?
            var detail: String?
        }
        // A proxy on the way answers in its own words.
        let document = try? DocumentCoding.decode(Document.self, from: response.body.readableBytesView)
        return (document?.type, document?.detail)
    }
}
