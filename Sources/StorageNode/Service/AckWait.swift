import Core
import HTTPServer
import NIOCore
import Observability
import ServiceSupport
import Shard
import Sharding
import Wire

/// What a write demands that is not answered as soon as the leader has it.
struct AckDemand: Hashable {
    var level: AckLevel
    var timeoutMilliseconds: UInt64
}

extension AckDemand {
    /// nil where the leader's own word is enough.
    /// - Throws: `bad-request` where more replicas are asked for than the shard has.
    init?(
        _ guarantees: Guarantees, defaultAck: AckLevel, _ shard: @autoclosure () -> ShardTopology
    ) throws(Problem) {
        let level = guarantees.ack ?? defaultAck
        guard level != .leader else { return nil }
        let shard = shard()
        let replicas = 1 + shard.followers.count
        guard let required = level.required(of: replicas) else {
            let origin = guarantees.ack == nil ? "[replication] default_ack = \"\(level)\"" : "ack=\(level)"
            throw Problem(
                .badRequest,
                "\(origin) asks for more replicas than there are: \(shard.name) has \(replicas), the leader counted.")
        }
        guard required > 1 else { return nil }
        self.init(
            level: level,
            timeoutMilliseconds: guarantees.timeoutMilliseconds ?? Guarantees.timeoutMillisecondsDefault)
    }

    /// Makes room for one wait.
    /// - Throws: `overloaded` where too many writes wait.
    static func reserve(_ replica: ShardReplica) throws(Problem) {
        do throws(KVError) {
            try replica.acks.reserve()
        } catch {
            throw Problem(error)
        }
    }
}

/// Writes of one submission that are on the leader and wait for the same acknowledgement.
///
/// Belongs to its event loop.
final class AckWait {
    private let demand: AckDemand
    private let replica: ShardReplica
    private let metrics: NodeMetrics
    private let eventLoop: any EventLoop
    private let started: NIODeadline
    private var writes: [(exchange: HTTPExchange, version: Version, number: Int64?)] = []
    private var timer: Scheduled<Void>?

    init(_ demand: AckDemand, _ replica: ShardReplica, _ metrics: NodeMetrics, _ eventLoop: any EventLoop) {
        self.demand = demand
        self.replica = replica
        self.metrics = metrics
        self.eventLoop = eventLoop
        started = .now()
    }

    /// - Parameter number: what a counter stands at now; nil for other writes.
    func add(_ exchange: HTTPExchange, _ version: Version, number: Int64?) {
        writes.append((exchange: exchange, version: version, number: number))
    }

    /// Answers the writes when followers have the batch at `lsn`, or when their time is over.
    func start(lsn: UInt64) {
        metrics.ackWaits.increment(by: UInt64(writes.count))
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let eventLoop = self.eventLoop
        let wait = replica.acks.wait(for: .level(demand.level), lsn: lsn, writes: writes.count) { outcome in
            eventLoop.execute { bound.value.ended(outcome) }
        }
        switch wait {
        case .ended(let outcome): ended(outcome)
        case .waiting(let token):
            timer = eventLoop.scheduleTask(
                deadline: started + .milliseconds(Int64(demand.timeoutMilliseconds))
            ) {
                let wait = bound.value
                guard let progress = wait.replica.acks.cancel(token) else { return }
                wait.missed(progress, because: "within \(wait.demand.timeoutMilliseconds) ms")
            }
        }
    }

    private func ended(_ outcome: AckOutcome) {
        timer?.cancel()
        switch outcome {
        case .ended(let progress): missed(progress, because: "before this node stopped serving the shard as its leader")
        case .reached:
            observe()
            writes.first?.exchange.batchingAnswers {
                for write in writes { write.exchange.respond(made: write.version, number: write.number) }
            }
        }
    }

    private func observe() {
        let waited = UInt64(max(0, (NIODeadline.now() - started).nanoseconds))
        for _ in writes { metrics.ackWaitSeconds.observe(waited) }
    }

    private func missed(_ progress: AckProgress, because reason: String) {
        observe()
        metrics.ackTimeouts.increment(by: UInt64(writes.count))
        let problem = Problem(
            .ackTimeout,
            "The write is durable on the leader and on \(progress.replicas) of \(progress.of) replicas, the leader "
                + "counted; ack=\(demand.level) was not reached \(reason). It is not undone and still on its way to "
                + "the others.")
        writes.first?.exchange.batchingAnswers {
            for write in writes {
                let digits = write.version.hexDigits
                write.exchange.respond(
                    HTTPResponse(
                        problem: problem,
                        headers: [(name: "etag", value: "\"\(digits)\""), (name: KVHeader.version, value: digits)]))
            }
        }
    }
}
