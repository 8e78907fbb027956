import Core
import HTTPServer
import NIOCore
import Observability
import ServiceSupport
import Shard
import Wire

/// Gathers the writes that one event loop receives for one shard within a tick, so that they cross to the shard's
/// thread together and their answers come back together.
///
/// Belongs to its event loop.
final class WriteGatherer {
    let replica: ShardReplica
    private let eventLoop: any EventLoop
    private let metrics: NodeMetrics
    private var operations: [WriteOperation] = []
    private var exchanges: [HTTPExchange] = []

    init(replica: ShardReplica, eventLoop: any EventLoop, metrics: NodeMetrics) {
        self.replica = replica
        self.eventLoop = eventLoop
        self.metrics = metrics
    }

    func add(_ operation: WriteOperation, _ exchange: HTTPExchange) {
        operations.append(operation)
        exchanges.append(exchange)
        guard operations.count == 1 else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute { bound.value.submit() }
    }

    private func submit() {
        let exchanges = self.exchanges
        let operations = self.operations
        self.exchanges = []
        self.operations = []
        self.exchanges.reserveCapacity(exchanges.count)
        self.operations.reserveCapacity(operations.count)
        let eventLoop = self.eventLoop
        let metrics = self.metrics
        do throws(KVError) {
            try replica.submit(operations) { receipt in
                eventLoop.execute { WriteGatherer.answer(exchanges, receipt, metrics) }
            }
        } catch {
            metrics.failedWrites.increment(by: UInt64(exchanges.count))
            let answer = HTTPResponse(problem: Problem(error))
            exchanges.first?.batchingAnswers {
                for exchange in exchanges { exchange.respond(answer) }
            }
        }
    }

    private static func answer(_ exchanges: [HTTPExchange], _ receipt: WriteReceipt, _ metrics: NodeMetrics) {
        metrics.writes.increment(by: UInt64(receipt.committed))
        metrics.failedWrites.increment(by: UInt64(exchanges.count - receipt.committed))
        exchanges.first?.batchingAnswers {
            for (index, exchange) in exchanges.enumerated() {
                if let version = receipt.version(at: index) {
                    exchange.respond(status: 204, contentLength: nil) { $0.writeVersionFields(version) }
                } else {
                    let error = receipt.failure ?? KVError(.internalError, "the write has no outcome")
                    exchange.respond(HTTPResponse(problem: Problem(error)))
                }
            }
        }
    }
}
