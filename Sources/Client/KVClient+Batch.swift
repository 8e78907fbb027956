public import Core
import NIOCore

extension KVClient {
    /// Does many writes, up to `batchInFlightMax` of them under way at once; one result each, in the same order.
    ///
    /// The writes are independent: each has its own result, and their order among each other is not defined, so two
    /// with one key must not be in one call. With a pipelining depth over 1 they share few connections.
    public func writeAll(_ writes: [KVWrite]) async -> [Result<Version, KVError>] {
        guard !writes.isEmpty else { return [] }
        let eventLoop = group.next()
        let promise = eventLoop.makePromise(of: [Result<Version, KVError>].self)
        let (context, timeout, inFlightMax) = (context, requestTimeout, batchInFlightMax)
        eventLoop.execute {
            BatchWrite(
                writes, inFlightMax: inFlightMax, timeout: timeout, context: context, eventLoop: eventLoop,
                promise: promise
            ).pump()
        }
        do {
            return try await promise.futureResult.get()
        } catch {
            // The promise is never failed; an event loop that was shut down may do so.
            return writes.map { _ in .failure(Self.kvError(error)) }
        }
    }
}

/// The writes of one ``KVClient/writeAll(_:)``. Confined to its event loop; lives until the last has ended.
private final class BatchWrite {
    private let writes: [KVWrite]
    private let inFlightMax: Int
    private let timeout: TimeAmount
    private let context: RoutingContext
    private let eventLoop: any EventLoop
    private let promise: EventLoopPromise<[Result<Version, KVError>]>
    private var results: [Result<Version, KVError>]
    private var started = 0
    private var ended = 0
    private var isPumping = false

    init(
        _ writes: [KVWrite], inFlightMax: Int, timeout: TimeAmount, context: RoutingContext, eventLoop: any EventLoop,
        promise: EventLoopPromise<[Result<Version, KVError>]>
    ) {
        self.writes = writes
        self.inFlightMax = inFlightMax
        self.timeout = timeout
        self.context = context
        self.eventLoop = eventLoop
        self.promise = promise
        self.results = Array(repeating: .success(.zero), count: writes.count)
    }

    func pump() {
        // A write that ends at once comes back in here: the loop below goes on with it.
        guard !isPumping else { return }
        isPumping = true
        let deadline = NIODeadline.now() + timeout
        while started < writes.count, started - ended < inFlightMax {
            started += 1
            start(started - 1, deadline: deadline)
        }
        isPumping = false
        if ended == writes.count { promise.succeed(results) }
    }

    private func start(_ index: Int, deadline: NIODeadline) {
        let write = writes[index]
        do throws(KVError) {
            let request = try KeyRequest.write(key: write.key, value: write.value, WriteOptions())
            RoutedRequest.start(request, deadline: deadline, context: context, on: eventLoop)
                .assumeIsolated().whenComplete { [self] result in
                    end(index, Self.version(result))
                }
        } catch {
            end(index, .failure(error))
        }
    }

    private func end(_ index: Int, _ result: Result<Version, KVError>) {
        results[index] = result
        ended += 1
        pump()
    }

    private static func version(_ result: Result<NodeResponse, any Error>) -> Result<Version, KVError> {
        do throws(KVError) {
            switch result {
            case .success(let response): return .success(try KVClient.version(ofWrite: response))
            case .failure(let error): throw KVClient.kvError(error)
            }
        } catch {
            return .failure(error)
        }
    }
}
