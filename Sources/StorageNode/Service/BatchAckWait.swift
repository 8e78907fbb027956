import Core
import NIOCore
import Observability
import Shard
import Wire

/// The writes of one submission of a batch, which wait together for their followers: one wait, however many they are.
///
/// Belongs to its event loop.
final class BatchAckWait {
    private let demand: AckDemand
    private let replica: ShardReplica
    private let metrics: NodeMetrics
    private let eventLoop: any EventLoop
    private let started = NIODeadline.now()
    private var timer: Scheduled<Void>?

    init(_ demand: AckDemand, _ replica: ShardReplica, _ metrics: NodeMetrics, _ eventLoop: any EventLoop) {
        self.demand = demand
        self.replica = replica
        self.metrics = metrics
        self.eventLoop = eventLoop
    }

    /// Room for one wait has been made.
    /// - Parameter completion: gets nil when followers have the batch at `lsn`, else why the wait has ended without.
    func start(lsn: UInt64, writes: Int, completion: @escaping (Problem?) -> Void) {
        metrics.ackWaits.increment(by: UInt64(writes))
        let eventLoop = eventLoop
        let ended = NIOLoopBound(
            { (progress: AckProgress?, reason: String) in
                self.timer?.cancel()
                completion(progress.map { self.missed($0, writes, reason) })
            }, eventLoop: eventLoop)
        let leads = "before this node stopped serving the shard as its leader"
        let wait = replica.acks.wait(for: .level(demand.level), lsn: lsn) { outcome in
            eventLoop.execute {
                switch outcome {
                case .reached: ended.value(nil, "")
                case .ended(let progress): ended.value(progress, leads)
                }
            }
        }
        switch wait {
        case .ended(.reached): ended.value(nil, "")
        case .ended(.ended(let progress)): ended.value(progress, leads)
        case .waiting(let token):
            let bound = NIOLoopBound(self, eventLoop: eventLoop)
            timer = eventLoop.scheduleTask(
                deadline: started + .milliseconds(Int64(demand.timeoutMilliseconds))
            ) {
                guard let progress = bound.value.replica.acks.cancel(token) else { return }
                ended.value(progress, "within \(bound.value.demand.timeoutMilliseconds) ms")
            }
        }
    }

    private func missed(_ progress: AckProgress, _ writes: Int, _ reason: String) -> Problem {
        metrics.ackTimeouts.increment(by: UInt64(writes))
        return Problem(
            .ackTimeout,
            "The write is durable on the leader and on \(progress.replicas) of \(progress.of) replicas; "
                + "ack=\(demand.level) was not reached \(reason). It is not undone and still on its way.")
    }
}
