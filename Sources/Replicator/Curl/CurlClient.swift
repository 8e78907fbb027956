import CCurl
import Synchronization

/// An HTTP/1.1 client on libcurl's multi interface: one thread of its own, an async front.
///
/// Connections are kept and reused. Any task may call ``perform(_:)``; answers come in any order. The thread
/// ends with ``shutdown()`` or with the client.
public final class CurlClient: Sendable {
    public struct Limits: Sendable {
        /// Transfers that libcurl works on at once; more wait their turn.
        public var inFlightMax = 256
        /// Requests waiting for their turn; more are refused with `.overloaded`.
        public var waitingMax = 1_024
        /// Handles without work that are kept with their buffers.
        public var idleHandlesMax = 32

        public init() {}
    }

    private let shared: CurlShared

    /// - Throws: ``CurlError`` where libcurl or the thread cannot be started.
    public init(limits: Limits = Limits()) throws {
        guard CurlClient.libraryStart == CURLE_OK else { throw CurlError(CurlClient.libraryStart, detail: "") }
        shared = CurlShared(limits: limits, multi: try MultiHandle(connectionsMax: limits.inFlightMax))
        try startCurlThread(shared)
    }

    deinit { shared.shutDown() }

    /// Sends `request` and returns its whole answer, whatever the status.
    ///
    /// Cancelling the task ends the transfer.
    /// - Throws: ``CurlError``, nothing else.
    public func perform(_ request: CurlRequest) async throws -> CurlResponse {
        let id = shared.inbox.withLock { inbox in
            inbox.nextID += 1
            return inbox.nextID
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                if let refusal = submit(id, request, continuation) {
                    continuation.resume(throwing: refusal)
                } else if Task.isCancelled {
                    // The handler may have run before the request was there to be cancelled.
                    send(.cancel(id: id))
                }
            }
        } onCancel: {
            send(.cancel(id: id))
        }
    }

    /// Fails what is in flight with `.shutDown` and returns when the thread has ended.
    public func shutdown() async {
        shared.shutDown()
        await withCheckedContinuation { continuation in
            let hasEnded = shared.inbox.withLock { inbox in
                if inbox.multi != nil { inbox.endWaiters.append(continuation) }
                return inbox.multi == nil
            }
            if hasEnded { continuation.resume() }
        }
    }

    private func submit(
        _ id: UInt64, _ request: CurlRequest, _ continuation: CheckedContinuation<CurlResponse, any Error>
    ) -> CurlError? {
        let limit = shared.limits.inFlightMax + shared.limits.waitingMax
        let (refusal, sleeping): (CurlError?, MultiHandle?) = shared.inbox.withLock { inbox in
            guard !inbox.isShutDown else { return (CurlError(.shutDown, "the client has been shut down"), nil) }
            guard inbox.unfinished < limit else {
                return (CurlError(.overloaded, "\(limit) requests are unfinished already"), nil)
            }
            inbox.unfinished += 1
            inbox.commands.append(.start(id: id, request, continuation))
            return (nil, inbox.commands.count == 1 ? inbox.multi : nil)
        }
        sleeping?.wakeup()
        return refusal
    }

    private func send(_ command: CurlInbox.Command) {
        let sleeping: MultiHandle? = shared.inbox.withLock { inbox in
            guard !inbox.isShutDown else { return nil }
            inbox.commands.append(command)
            return inbox.commands.count == 1 ? inbox.multi : nil
        }
        sleeping?.wakeup()
    }

    /// libcurl wants this once per process, before anything else.
    private static let libraryStart = ccurl_global_init()
}
