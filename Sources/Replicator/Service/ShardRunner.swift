import Core
import Logging
import Sharding
import Synchronization
import Wire

/// Runs the replication of one shard: takes events, lets ``ShardReplication`` decide, does what it says.
final class ShardRunner: Sendable {
    let shard: ShardTopology
    let limits: ReplicationLimits
    private let transport: any ReplicationTransport
    private let logger: Logger
    private let replication: Mutex<ShardReplication>
    private let events: AsyncStream<ShardReplication.Event>
    private let continuation: AsyncStream<ShardReplication.Event>.Continuation
    private let start = ContinuousClock.now

    init(
        shard: ShardTopology, limits: ReplicationLimits, transport: any ReplicationTransport,
        logger: Logger, seed: UInt64
    ) {
        self.shard = shard
        self.limits = limits
        self.transport = transport
        var logger = logger
        logger[metadataKey: "shard"] = "\(shard.name)"
        self.logger = logger
        self.replication = Mutex(
            ShardReplication(shard: shard, limits: limits, seed: seed))
        // Every event answers an action, and those are bounded; one more for the start.
        let bound = ShardReplication.outstandingMax(followers: shard.followers.count) + 1
        (events, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(bound))
    }

    func status() -> ReplicatorStatus.Shard { replication.withLock { $0.status() } }

    /// Runs until ``stop()`` or until the task is cancelled; what is in flight is then given up.
    func run() async {
        send(.start)
        await withDiscardingTaskGroup { group in
            for await event in events {
                let now = ContinuousClock.now - start
                for action in replication.withLock({ $0.handle(event, now: now) }) { perform(action, in: &group) }
            }
            group.cancelAll()
        }
    }

    func stop() { continuation.finish() }

    private func perform(_ action: ShardReplication.Action, in group: inout DiscardingTaskGroup) {
        switch action {
        case .feedNotice(let notice): log(notice)
        case .follower(let index, .notice(let notice)): log(notice, shard.followers[index])
        case .feed(let action):
            group.addTask { self.send(.feed(await self.perform(action))) }
        case .follower(let index, let action):
            group.addTask {
                guard let event = await self.perform(action, for: self.shard.followers[index]) else { return }
                self.send(.follower(index, event))
            }
        case .report(let report):
            group.addTask {
                self.send(
                    .reported(await self.transport.report(report, to: self.shard.leader, shard: self.shard.name)))
            }
        case .waitToReport(let duration):
            group.addTask {
                await ShardRunner.sleep(duration)
                self.send(.reportTimerFired)
            }
        }
    }

    private func perform(_ action: ShardFeed.Action) async -> ShardFeed.Event {
        switch action {
        case .read(let position):
            let outcome = await transport.tail(of: shard.leader, shard: shard.name, after: position, limits: limits)
            return .read(after: position, outcome)
        case .askPosition:
            return .position(await transport.position(of: shard.leader, shard: shard.name))
        case .wait(let duration, let timer):
            await ShardRunner.sleep(duration)
            return .timerFired(timer)
        }
    }

    private func perform(_ action: FollowerProgress.Action, for follower: NodeAddress) async -> FollowerProgress.Event?
    {
        switch action {
        case .probe:
            return .probed(await transport.position(of: follower, shard: shard.name))
        case .read(let position, let isDoubtful):
            let outcome = await transport.catchUp(
                from: shard.leader, shard: shard.name, after: position, isDoubtful: isDoubtful, limits: limits)
            return .read(after: position, outcome)
        case .push(let push):
            return .pushed(await transport.push(push, to: follower, shard: shard.name))
        case .wait(let duration):
            await ShardRunner.sleep(duration)
            return .timerFired
        case .notice:
            return nil
        }
    }

    private func send(_ event: ShardReplication.Event) {
        if case .dropped = continuation.yield(event) { preconditionFailure("more events than outstanding actions") }
    }

    /// Cancelled early, it only means that the loop ends: nobody reads the event that follows.
    private static func sleep(_ duration: Duration) async {
        try? await Task.sleep(for: duration, tolerance: .zero)
    }

    private func log(_ notice: ShardFeed.Notice) {
        switch notice {
        case .leaderLost(let text):
            logger.warning(
                "cannot read from the leader; trying again", metadata: ["node": "\(shard.leader)", "error": "\(text)"])
        case .leaderBack:
            logger.info("reading from the leader again", metadata: ["node": "\(shard.leader)"])
        }
    }

    private func log(_ notice: FollowerProgress.Notice, _ follower: NodeAddress) {
        switch notice {
        case .followerLost(let text):
            logger.warning(
                "cannot feed the follower; trying again", metadata: ["node": "\(follower)", "error": "\(text)"])
        case .followerBack:
            logger.info("feeding the follower again", metadata: ["node": "\(follower)"])
        case .needsSnapshot(let reason):
            logger.error(
                """
                the follower needs a snapshot: stop its node, copy the shard's directory of the stopped leader or of \
                another follower in place of its own, and start it again
                """, metadata: ["node": "\(follower)", "reason": "\(reason)"])
        case .canBeFedAgain:
            logger.info("the follower can be fed from the log again", metadata: ["node": "\(follower)"])
        }
    }
}
