import Core
import HTTPServer
import NIOCore
import Shard
import Wire

/// Gathers the writes that one event loop receives for one shard within a tick, so that they cross to the shard's
/// thread together and their answers come back together.
///
/// Belongs to its event loop.
final class WriteGatherer {
    private let replica: ShardReplica
    private let eventLoop: any EventLoop
    private let answer: @Sendable (HTTPExchange, Result<Version, KVError>) -> Void
    private var operations: [WriteOperation] = []
    private var exchanges: [HTTPExchange] = []

    init(
        replica: ShardReplica, eventLoop: any EventLoop,
        answer: @escaping @Sendable (HTTPExchange, Result<Version, KVError>) -> Void
    ) {
        self.replica = replica
        self.eventLoop = eventLoop
        self.answer = answer
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
        let answer = self.answer
        @Sendable func answerAll(_ receipt: WriteReceipt) {
            exchanges.first?.batchingAnswers {
                for (index, exchange) in exchanges.enumerated() {
                    if let version = receipt.version(at: index) {
                        answer(exchange, .success(version))
                    } else {
                        answer(exchange, .failure(receipt.failure ?? KVError(.internalError, "the write has no outcome")))
                    }
                }
            }
        }
        do throws(KVError) {
            try replica.submit(operations) { receipt in
                eventLoop.execute { answerAll(receipt) }
            }
        } catch {
            exchanges.first?.batchingAnswers {
                for exchange in exchanges { answer(exchange, .failure(error)) }
            }
        }
    }
}
