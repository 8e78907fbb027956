import CCurl
import Synchronization

#if canImport(Darwin)
    import Darwin
#else
    import Glibc
#endif

/// What other threads want from the loop.
struct CurlInbox {
    enum Command {
        case start(id: UInt64, CurlRequest, CheckedContinuation<CurlResponse, any Error>)
        case cancel(id: UInt64)
    }

    var commands: [Command] = []
    /// Requests submitted and not finished.
    var unfinished = 0
    var nextID: UInt64 = 0
    var isShutDown = false
    /// To wake the loop with; nil when the thread has ended, so that its connections are closed then and not when
    /// the client goes.
    var multi: MultiHandle?
    /// Resumed when the thread has ended.
    var endWaiters: [CheckedContinuation<Void, Never>] = []
}

/// What the client and the thread share.
final class CurlShared: Sendable {
    let inbox: Mutex<CurlInbox>
    let limits: CurlClient.Limits

    init(limits: CurlClient.Limits, multi: MultiHandle) {
        self.limits = limits
        self.inbox = Mutex(CurlInbox(multi: multi))
    }

    /// Tells the thread to fail what is left and end.
    func shutDown() {
        let multi = inbox.withLock { inbox in
            inbox.isShutDown = true
            return inbox.multi
        }
        multi?.wakeup()
    }
}

/// The loop around the multi handle: everything libcurl does happens in ``run``, on one thread.
///
/// Invariant: a transfer is in exactly one of `active` and `queued` until its continuation is resumed.
final class CurlLoop {
    /// The loop wakes up by itself this often; every event wakes it before.
    private static let pollMillisecondsMax: Int32 = 10_000

    private let shared: CurlShared
    private let multi: MultiHandle
    private var active: [UnsafeMutableRawPointer: (transfer: CurlTransfer, handle: EasyHandle)] = [:]
    private var queued: [CurlTransfer] = []
    private var idleHandles: [EasyHandle] = []

    init(shared: CurlShared, multi: MultiHandle) {
        self.shared = shared
        self.multi = multi
    }

    func run() {
        while takeCommands() {
            startQueued()
            var running: Int32 = 0
            let result = curl_multi_perform(multi.pointer, &running)
            guard result == CURLM_OK else {
                failAll(CurlError(.other, "libcurl failed: \(String(cString: curl_multi_strerror(result)))"))
                continue
            }
            finishDone()
            // What was queued for want of room can start now.
            if !queued.isEmpty, active.count < shared.limits.inFlightMax { continue }
            _ = curl_multi_poll(multi.pointer, nil, 0, CurlLoop.pollMillisecondsMax, nil)
        }
        failAll(CurlError(.shutDown, "the client has been shut down"))
        idleHandles.removeAll()
    }

    /// False when it is time to end.
    private func takeCommands() -> Bool {
        let (commands, isShutDown) = shared.inbox.withLock { inbox in
            defer { inbox.commands.removeAll(keepingCapacity: true) }
            return (inbox.commands, inbox.isShutDown)
        }
        for command in commands {
            switch command {
            case .start(let id, let request, let continuation):
                queued.append(CurlTransfer(id: id, request: request, continuation: continuation))
            case .cancel(let id):
                cancel(id)
            }
        }
        return !isShutDown
    }

    private func cancel(_ id: UInt64) {
        let error = CurlError(.cancelled, "the request was cancelled")
        if let index = queued.firstIndex(where: { $0.id == id }) {
            finish(queued.remove(at: index)) { $0.fail(error) }
        } else if let (pointer, _) = active.first(where: { $0.value.transfer.id == id }) {
            finish(detach(pointer)) { $0.fail(error) }
        }
    }

    private func startQueued() {
        let room = min(queued.count, shared.limits.inFlightMax - active.count)
        guard room > 0 else { return }
        let starting = queued[..<room]
        queued.removeFirst(room)
        for transfer in starting {
            do {
                let handle = try idleHandles.popLast() ?? EasyHandle()
                try handle.prepare(for: transfer)
                let result = curl_multi_add_handle(multi.pointer, handle.pointer)
                guard result == CURLM_OK else {
                    throw CurlError(.other, String(cString: curl_multi_strerror(result)))
                }
                active[handle.pointer] = (transfer, handle)
            } catch {
                finish(transfer) { $0.fail(error as? CurlError ?? CurlError(.other, "\(error)")) }
            }
        }
    }

    private func finishDone() {
        var left: Int32 = 0
        while let message = curl_multi_info_read(multi.pointer, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let pointer = message.pointee.easy_handle,
                let handle = active[pointer]?.handle
            else { continue }
            // The message belongs to libcurl and goes with the handle, so it is read first.
            let result = ccurl_message_result(message)
            let status = handle.status
            let detail = handle.errorDetail
            finish(detach(pointer)) { transfer in
                if result == CURLE_OK {
                    transfer.succeed(status: status)
                } else {
                    transfer.fail(CurlError(result, detail: detail))
                }
            }
        }
    }

    /// Takes an active transfer out of libcurl; its handle becomes free.
    private func detach(_ pointer: UnsafeMutableRawPointer) -> CurlTransfer {
        guard let (transfer, handle) = active.removeValue(forKey: pointer) else {
            preconditionFailure("only active handles are detached")
        }
        curl_multi_remove_handle(multi.pointer, pointer)
        if idleHandles.count < shared.limits.idleHandlesMax { idleHandles.append(handle) }
        return transfer
    }

    private func failAll(_ error: CurlError) {
        for pointer in Array(active.keys) { finish(detach(pointer)) { $0.fail(error) } }
        let waiting = queued
        queued.removeAll()
        for transfer in waiting { finish(transfer) { $0.fail(error) } }
    }

    private func finish(_ transfer: CurlTransfer, _ resume: (CurlTransfer) -> Void) {
        shared.inbox.withLock { $0.unfinished -= 1 }
        resume(transfer)
    }
}

/// Gives up the handle and returns who waits for that.
private func closeInbox(of shared: CurlShared) -> [CheckedContinuation<Void, Never>] {
    let (multi, waiters) = shared.inbox.withLock { inbox in
        defer {
            inbox.multi = nil
            inbox.endWaiters.removeAll()
        }
        return (inbox.multi, inbox.endWaiters)
    }
    // Freed here, outside the lock, unless another thread is just waking the loop with it.
    withExtendedLifetime(multi) {}
    return waiters
}

/// Starts the loop's thread, which holds `shared` until it ends.
func startCurlThread(_ shared: CurlShared) throws {
    func main(_ context: UnsafeMutableRawPointer) {
        let shared = Unmanaged<CurlShared>.fromOpaque(context).takeRetainedValue()
        if let multi = shared.inbox.withLock({ $0.multi }) { CurlLoop(shared: shared, multi: multi).run() }
        let waiters = closeInbox(of: shared)
        for waiter in waiters { waiter.resume() }
    }
    let context = Unmanaged.passRetained(shared)
    #if canImport(Darwin)
        var thread: pthread_t?
        let result = pthread_create(
            &thread, nil,
            {
                main($0)
                return nil
            }, context.toOpaque())
        if result == 0, let thread { pthread_detach(thread) }
    #else
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { context in
                if let context { main(context) }
                return nil
            }, context.toOpaque())
        if result == 0 { pthread_detach(thread) }
    #endif
    guard result == 0 else {
        context.release()
        throw CurlError(.other, "cannot start a thread: \(String(cString: strerror(result)))")
    }
}
