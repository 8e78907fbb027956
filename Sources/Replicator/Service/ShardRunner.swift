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
    let logger: Logger
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

    func status() -> ReplicatorStatus.Shard {
        let now = ContinuousClock.now - start
        return replication.withLock { $0.status(now: now) }
    }

    /// Runs until ``stop()`` or until the task is cancelled; what is in flight is then given up.
    func run() async {
        send(.start)
        await withDiscardingTaskGroup { group in
            for await event in events {
                let now = ContinuousClock.now - start
                for action in replication.withLock({ $0.handle(event, now: now, isTight: transport.budget.isTight) }) {
                    perform(action, in: &group)
                }
            }
            group.cancelAll()
        }
    }

    func stop() { continuation.finish() }

    private func perform(_ action: ShardReplication.Action, in group: inout DiscardingTaskGroup) {
        switch action {
        case .feedNotice(let notice): log(notice)
        case .follower(let index, .notice(let notice)): log(notice, shard.followers[index])
        case .follower(let index, .snapshot(.notice(let notice))): log(notice, shard.followers[index])
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
            return .pushed(await transport.push(push, to: follower, shard: shard.name, limits: limits))
        case .wait(let duration):
            await ShardRunner.sleep(duration)
            return .timerFired
        case .snapshot(let action):
            return await perform(action, for: follower).map { .snapshot($0) }
        case .notice:
            return nil
        }
    }

    private func perform(_ action: SnapshotTransfer.Action, for follower: NodeAddress) async -> SnapshotTransfer.Event?
    {
        switch action {
        case .awaitTurn:
            return .turn(await transport.snapshotTurn())
        case .open(let lsn):
            return .opened(await transport.openSnapshot(of: shard.leader, shard: shard.name, atLeast: lsn))
        case .offer(let manifest):
            return .offered(await transport.offer(manifest, to: follower, shard: shard.name))
        case .fetch(let range):
            return .fetched(range, await transport.fetch(range, from: shard.leader, shard: shard.name))
        case .send(let chunk):
            return .sent(chunk.range, await transport.send(chunk, to: follower, shard: shard.name))
        case .install(let manifest, let isDiverged):
            return .installed(
                await transport.install(manifest, isDiverged: isDiverged, at: follower, shard: shard.name))
        case .probe:
            return .probed(await transport.position(of: follower, shard: shard.name))
        case .waitToRetry(let duration):
            await ShardRunner.sleep(duration)
            return .retryTimerFired
        case .waitToTouch(let duration):
            await ShardRunner.sleep(duration)
            return .touchTimerFired
        case .release(let id):
            await transport.releaseSnapshot(id: id, at: shard.leader, shard: shard.name)
            return .released
        case .discard(let id):
            await transport.discardSnapshot(id: id, at: follower, shard: shard.name)
            return .released
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
}
