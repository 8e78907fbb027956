public import Core
import Glibc
public import Sharding
import Synchronization

/// One phase of a benchmark: the load of its keys, or the run of its workload.
public final class LoadRun: Sendable {
    public enum Phase: Sendable {
        /// Writes every key once, as fast as it goes; what fails is written again.
        case load
        case run
    }

    private let settings: LoadSettings
    private let phase: Phase
    private let shared: Shared
    private let refresh: @Sendable () async -> Topology?

    /// Between looks whether a newer topology is wanted.
    private static let topologyInterval = Duration.milliseconds(50)

    /// - Parameters:
    ///   - topology: where requests go; nil where `via` is not direct.
    ///   - refresh: the topology as the cluster has it now, asked for when an answer shows that there is a newer one.
    public init(
        _ settings: LoadSettings, _ phase: Phase, topology: Topology?,
        refresh: @escaping @Sendable () async -> Topology? = { nil }
    ) {
        precondition((settings.via == .direct) == (topology != nil) && !settings.seeds.isEmpty)
        // Each key has one writer at a time.
        precondition(
            !settings.isVerified || settings.records > UInt64(settings.connections * settings.pipelineDepth)
                || phase == .load)
        precondition(settings.threads >= 1 && settings.threads <= settings.connections)
        var settings = settings
        if phase == .load {
            // The loads of benchmarks wait for no clock.
            settings.rate = nil
            settings.warmUp = 0
            settings.duration = nil
            settings.operations = nil
        }
        self.settings = settings
        self.phase = phase
        self.refresh = refresh
        shared = Shared(settings, topology: topology, isLoad: phase == .load)
    }

    /// The seconds that have passed.
    public var intervals: [IntervalResult] { shared.timeline.intervals }

    /// Keys that have been taken up by a load.
    public var keysBegun: UInt64 { min(shared.nextKey.load(ordering: .relaxed), settings.records) }

    /// Ends the run before its time.
    public func stop() { shared.isStopped.store(true, ordering: .relaxed) }

    /// Runs to the end, or until the task is cancelled or ``stop()`` called: what was measured by then counts.
    ///
    /// Throws `KVError` where it cannot begin, and where a load cannot go on.
    public func run() async throws(KVError) -> LoadResult {
        let start = Clock.now()
        let threads = settings.threads
        let outcomes = await withTaskCancellationHandler {
            await withTaskGroup(of: Result<LoadResult, KVError>?.self) { group in
                for index in 0..<threads { group.addTask { await self.runThread(index, start: start) } }
                group.addTask {
                    await self.keepTopology()
                    return nil
                }
                var outcomes: [Result<LoadResult, KVError>] = []
                for await case .some(let outcome) in group {
                    outcomes.append(outcome)
                    // One that failed leaves the others without an end.
                    if case .failure = outcome { self.stop() }
                    if outcomes.count == threads { group.cancelAll() }
                }
                return outcomes
            }
        } onCancel: {
            stop()
        }
        var sum = LoadResult()
        for outcome in outcomes { sum.add(try outcome.get()) }
        sum.timeline = shared.timeline.finish()
        sum.wasInterrupted = shared.isStopped.load(ordering: .relaxed)
        return sum
    }

    private func runThread(_ index: Int, start: UInt64) async -> Result<LoadResult, KVError> {
        await withCheckedContinuation { continuation in
            PlainThread.start {
                do throws(KVError) {
                    let loop = try LoadLoop(
                        self.settings, self.shared, index: index, start: start, isLoad: self.phase == .load)
                    loop.run()
                    if let failure = loop.failure { throw failure }
                    continuation.resume(returning: .success(loop.result()))
                } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        }
    }

    /// Fetches the topology when a loop wants a newer one, until it is cancelled.
    private func keepTopology() async {
        while (try? await Task.sleep(for: Self.topologyInterval)) != nil {
            guard shared.wantsTopology.exchange(false, ordering: .relaxed), let known = shared.topology?.epoch,
                let topology = await refresh(), topology.epoch > known
            else { continue }
            shared.adopt(topology)
        }
    }
}

extension LoadLoop {
    /// What was measured, at the end.
    fileprivate func result() -> LoadResult {
        let now = Clock.now()
        // Where a number of operations ended the run, the last of them is its end.
        let isCounted = settings.operations != nil || isLoad
        let end = isCounted ? now : endedAt ?? now
        var result = LoadResult()
        result.operations = recorder.finish(at: end)
        result.seconds = end > recorder.start ? Double(end - recorder.start) / 1e9 : 0
        result.requests = recorder.requests
        result.redirects = recorder.redirects
        result.cpuSeconds = cpuAtStart.map { Clock.threadCPU() - $0 } ?? 0
        result.verification = shared.table == nil ? nil : recorder.verification
        return result
    }
}

extension LoadResult {
    /// Adds another thread's.
    fileprivate mutating func add(_ other: LoadResult) {
        operations.merge(other.operations) { sum, new in
            var sum = sum
            sum.add(new)
            return sum
        }
        seconds = max(seconds, other.seconds)
        requests += other.requests
        redirects += other.redirects
        cpuSeconds += other.cpuSeconds
        guard let new = other.verification else { return }
        verification = verification ?? Verification()
        verification?.add(new)
    }
}

/// A thread that may block: not one of the cooperative pool's.
enum PlainThread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    static func start(_ run: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let body = Unmanaged.passRetained(Body(run))
        let status = pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
                return nil
            }, body.toOpaque())
        precondition(status == 0, "no thread can be started: \(String(cString: strerror(status)))")
        pthread_detach(thread)
    }
}
