import CEpoll
import Core
import Glibc
import Sharding
import Synchronization

/// One thread of a run: clients, their connections and an event loop over epoll for them, confined to that thread.
///
/// Its own and not SwiftNIO's, since what a load generator costs is what it takes from the servers beside it: a request
/// is one `send` and one `recv`, and nothing is allocated for it. docs/bench.md has the figures.
///
/// Invariants: a client has at most `pipelineDepth` operations under way; each stands in the queue of one connection or,
/// after a failure, has ended; every operation that has begun ends in ``end(_:_:at:)`` exactly once.
final class LoadLoop {
    struct Client {
        /// By the number of the node; -1 where there is none yet.
        var connections: [Int] = []
        var seed: Int
    }

    /// Events that one epoll call returns.
    static let eventsMax = 256
    /// Bytes that one call reads.
    static let readBytesMax = 256 << 10
    /// Nanoseconds between looks for what has taken too long.
    static let sweepInterval: UInt64 = 20_000_000
    /// Nanoseconds that a client of a closed loop, or a connection, rests after a failure.
    static let failurePause: UInt64 = 10_000_000
    /// Nodes that redirects may lead to.
    static let nodesMax = 256

    let settings: LoadSettings
    let shared: Shared
    let isLoad: Bool
    let poll: CInt
    var nodes: [Node] = []
    var numbers: [NodeAddress: Int] = [:]
    var routes: Routes?
    var topologyGeneration = 0
    var clients: [Client] = []
    var connections: [Connection] = []
    /// Connections with output that has not been given to the kernel.
    var dirty: [Connection] = []
    /// What is read, behind what was left of the time before.
    let scratch: UnsafeMutableRawBufferPointer
    /// For one key's name.
    let keyScratch: UnsafeMutableRawBufferPointer

    // What operations are made from.
    var random: SplitMix64
    let mix: OperationMix
    var keys: KeyChooser
    let sizes: ValueSizes
    let values: ValueWriter
    let requests: RequestWriter
    /// Of writes that are not verified.
    var sequence: UInt64

    // When they begin.
    /// nil in a closed loop.
    var openLoop: OpenLoop?
    /// Clients of a closed loop that rest after a failure: each as often as it would begin an operation.
    var resting: [(client: Int, until: UInt64)] = []
    /// Keys of a load that have to be written again.
    var retries: [UInt64] = []
    var inFlight = 0
    var recorder: Recorder
    /// Nanoseconds of the monotonic clock; nil where a number of operations ends the run.
    let deadline: UInt64?
    var endedAt: UInt64?
    var cpuAtStart: Double?
    var nextSweep: UInt64
    var lastLoaded: UInt64
    var lastLoadFailure: Failure?
    /// Why the run cannot go on.
    var failure: KVError?

    /// - Parameters:
    ///   - index: of the thread.
    ///   - start: when the run begins, the same for all threads.
    init(_ settings: LoadSettings, _ shared: Shared, index: Int, start: UInt64, isLoad: Bool) throws(KVError) {
        self.settings = settings
        self.shared = shared
        self.isLoad = isLoad
        poll = epoll_create1(CInt(EPOLL_CLOEXEC))
        guard poll >= 0 else { throw KVError(.unavailable, "epoll: \(String(cString: strerror(errno)))") }
        scratch = .allocate(byteCount: Self.readBytesMax + AnswerReader.headBytesMax, alignment: 64)
        keyScratch = .allocate(byteCount: settings.names.byteCount, alignment: 8)
        random = SplitMix64(seed: SplitMix64.mix(settings.seed &+ UInt64(index)))
        mix = OperationMix(settings.workload)
        keys = KeyChooser(settings.keys ?? settings.workload.keys, count: max(1, settings.records))
        sizes = ValueSizes(settings.valueSize)
        values = ValueWriter(settings.valueSize, isVerified: settings.isVerified, seed: settings.seed)
        requests = RequestWriter(settings)
        sequence = random.next()
        let measureStart = start + settings.warmUp
        recorder = Recorder(start: measureStart, shared: shared)
        deadline = settings.duration.map { measureStart + $0 }
        nextSweep = start + Self.sweepInterval
        lastLoaded = start
        let count = settings.clients(ofThread: index)
        if let rate = settings.rate {
            let share = Double(count) / Double(settings.connections)
            let schedule = Schedule(
                rate: rate * share, start: start, offset: Double(index) / Double(settings.threads))
            openLoop = OpenLoop(schedule, slots: count * settings.pipelineDepth, patience: settings.timeout)
        }
        for seed in settings.seeds {
            nodes.append(try Node(seed))
            numbers[seed] = nodes.count - 1
        }
        clients = (0..<count).map { Client(seed: ($0 * settings.threads + index) % settings.seeds.count) }
        adoptTopology()
    }

    deinit {
        Glibc.close(poll)
        scratch.deallocate()
        keyScratch.deallocate()
    }

    /// Runs to the end.
    func run() {
        cepoll_exact_timers()
        var now = Clock.now()
        for _ in 0..<settings.pipelineDepth {
            for client in clients.indices { free(client, at: now) }
        }
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: Self.eventsMax) { events in
            while true {
                now = Clock.now()
                tick(now)
                flush(at: now)
                if endedAt != nil && inFlight == 0 { return }
                let count = cepoll_wait(poll, events.baseAddress!, CInt(Self.eventsMax), patience(at: now))
                for index in 0..<max(0, Int(count)) { handle(events[index]) }
            }
        }
    }

    private func handle(_ event: epoll_event) {
        let connection = withUnsafePointer(to: event) { connections[Int(cepoll_data($0))] }
        guard connection.descriptor >= 0 else { return }
        if connection.state == .connecting {
            finishConnecting(connection)
        } else {
            if connection.awaitsRoom, event.events & cepoll_out != 0 { write(connection, at: Clock.now()) }
            if connection.state == .open { read(connection) }
        }
    }

    /// Nanoseconds until something has to be done that no event tells of.
    private func patience(at now: UInt64) -> UInt64 {
        var next = min(nextSweep, recorder.intervalEnd)
        if let deadline { next = min(next, endedAt == nil ? deadline : next) }
        if endedAt == nil {
            if let due = openLoop?.nextDue { next = min(next, due) }
            if let first = resting.first { next = min(next, first.until) }
        }
        return next > now ? next - now : 0
    }
}

/// The monotonic clock.
enum Clock {
    /// Nanoseconds.
    static func now() -> UInt64 { read(CLOCK_MONOTONIC) }

    /// Of processor time of the calling thread, seconds.
    static func threadCPU() -> Double { Double(read(CLOCK_THREAD_CPUTIME_ID)) / 1e9 }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}

extension LoadSettings {
    func clients(ofThread index: Int) -> Int { connections / threads + (index < connections % threads ? 1 : 0) }
}
