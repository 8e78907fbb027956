import Core
import HTTPServer
import NIOCore
import Observability
import ServiceSupport
import Shard
import Wire

/// A write on its way to the shard's thread, and how it is to be answered.
struct GatheredWrite {
    var exchange: HTTPExchange
    /// Of the request: where the leadership moves away meanwhile, the client is sent after it.
    var target: String
    /// nil where the leader's own word is enough. Room for the wait has been made.
    var demand: AckDemand?
}

/// Gathers the writes that one event loop receives for one shard within a tick, so that they cross to the shard's
/// thread together and their answers come back together, whatever acknowledgement each of them waits for.
///
/// Belongs to its event loop.
final class WriteGatherer {
    let replica: ShardReplica
    private let eventLoop: any EventLoop
    private let metrics: NodeMetrics
    /// Answers a write that this replica, which no longer leads, has not made.
    private let redirect: (GatheredWrite) -> Void
    private var operations: [WriteOperation] = []
    private var writes: [GatheredWrite] = []

    init(
        replica: ShardReplica, eventLoop: any EventLoop, metrics: NodeMetrics,
        redirect: @escaping (GatheredWrite) -> Void
    ) {
        self.replica = replica
        self.eventLoop = eventLoop
        self.metrics = metrics
        self.redirect = redirect
    }

    func add(_ operation: WriteOperation, _ write: GatheredWrite) {
        operations.append(operation)
        writes.append(write)
        guard operations.count == 1 else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute { bound.value.submit() }
    }

    private func submit() {
        let operations = self.operations
        let writes = NIOLoopBound(self.writes, eventLoop: eventLoop)
        self.writes = []
        self.operations = []
        self.writes.reserveCapacity(operations.count)
        self.operations.reserveCapacity(operations.count)
        let eventLoop = self.eventLoop
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        do throws(KVError) {
            try replica.submit(operations) { receipt in
                eventLoop.execute { bound.value.answer(writes.value, receipt) }
            }
        } catch {
            let writes = writes.value
            metrics.failedWrites.increment(by: UInt64(writes.count))
            writes.first?.exchange.batchingAnswers {
                for write in writes { fail(write, error) }
            }
        }
    }

    private func answer(_ writes: [GatheredWrite], _ receipt: WriteReceipt) {
        metrics.writes.increment(by: UInt64(receipt.committed))
        metrics.refusedWrites.increment(by: UInt64(receipt.refused))
        metrics.failedWrites.increment(by: UInt64(writes.count - receipt.settled))
        var waits: [AckDemand: AckWait] = [:]
        writes.first?.exchange.batchingAnswers {
            for (index, write) in writes.enumerated() {
                guard let version = receipt.version(at: index) else {
                    if let refusal = receipt.refusal(at: index) {
                        refuse(write, refusal)
                        continue
                    }
                    fail(write, receipt.failure ?? KVError(.internalError, "the write has no outcome"))
                    continue
                }
                guard let demand = write.demand else {
                    write.exchange.respond(made: version, number: receipt.number(at: index))
                    continue
                }
                let wait = waits[demand] ?? AckWait(demand, replica, metrics, eventLoop)
                waits[demand] = wait
                wait.add(write.exchange, version, number: receipt.number(at: index))
            }
        }
        // A submission that takes several batches is on a follower when the last of them is.
        for wait in waits.values { wait.start(lsn: receipt.position.lsn) }
    }

    private func refuse(_ write: GatheredWrite, _ refusal: WriteRefusal) {
        if write.demand != nil { replica.acks.release() }
        write.exchange.respond(HTTPResponse(problem: Problem(refusal)))
    }

    private func fail(_ write: GatheredWrite, _ error: KVError) {
        if write.demand != nil { replica.acks.release() }
        if error.code == .notLeader {
            redirect(write)
        } else {
            write.exchange.respond(HTTPResponse(problem: Problem(error)))
        }
    }
}
