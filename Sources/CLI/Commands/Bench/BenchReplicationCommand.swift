import ArgumentParser
import BenchReport
import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import LoadGenerator
import NIOCore
import Sharding
import Wire

struct BenchReplicationCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replication",
        abstract: "Measures how far followers are behind: lag under a load of writes, or how fast they catch up.",
        discussion: """
            Writes at a fixed rate. Some of them, --probes per second, are followed: each follower is asked for the version
            of the write, and answers when it has it. With --catch-up it writes so many keys as fast as it goes, and
            watches the followers get what they lack then: stop the replicator before and start it afterwards, or name its
            process with --pause. docs/bench.md says more.

            EXAMPLES
              kv bench replication --rate 20000 --duration 30s
              kv bench replication --catch-up 500000 --pause $(pidof replicator)

            Exits with 3 where a write failed or a follower did not get all.
            """)

    @OptionGroup var cluster: ClusterOptions
    @Option(help: ArgumentHelp("Writes per second, the followed ones included.", valueName: "per-second"))
    var rate = 1_000.0
    @Option(help: ArgumentHelp("Of them followed to the followers.", valueName: "per-second"))
    var probes = 200.0
    @Option(
        help: ArgumentHelp("How long is measured, after a second of the same. (default: 10s)", valueName: "duration"),
        transform: FlagText.duration)
    var duration: TimeAmount?
    @Option(help: ArgumentHelp("Bytes of a value.", valueName: "bytes"))
    var valueSize = 100
    @Option(help: ArgumentHelp("Keys that are written over and over.", valueName: "count"))
    var records: UInt64 = 100_000
    @Option(help: ArgumentHelp("Connections of the writes.", valueName: "count"))
    var connections = 32
    @OptionGroup var write: WriteFlags
    @Option(
        help: ArgumentHelp("Writes so many keys and measures how fast followers get them.", valueName: "keys"))
    var catchUp: UInt64?
    @Option(
        help: ArgumentHelp("A process of this machine that stands still while they are written.", valueName: "pid"))
    var pause: Int32?
    @Option(
        help: ArgumentHelp(
            "With --catch-up, how long followers have for it after the writes. (default: 60s)", valueName: "duration"),
        transform: FlagText.duration)
    var patience: TimeAmount?
    @Option(
        name: .customLong(BenchArguments.jsonFile),
        help: ArgumentHelp("Writes the results as JSON; --json file is the same.", valueName: "file"),
        completion: .file())
    var jsonFile: String?

    private static let prefix = "kv-bench-replication/"
    /// Requests under way on each connection of --catch-up.
    private static let pipelineDepth = 16
    private static let warmUp = Duration.seconds(1)
    /// Of a run: each is remembered.
    private static let probesMax = 1_000_000.0

    private var runTime: Duration { .nanoseconds(duration?.nanoseconds ?? 10_000_000_000) }

    func validate() throws {
        guard catchUp != nil || pause == nil && patience == nil else {
            throw ValidationError("--pause and --patience are for --catch-up.")
        }
        guard pause.map({ $0 > 1 }) ?? true else { throw ValidationError("--pause takes the number of a process.") }
        guard rate >= 1, rate <= 1e7, probes >= 1, probes * runTime.seconds <= Self.probesMax else {
            throw ValidationError(
                "--rate goes from 1 to 10000000, --probes from 1 to \(Int(Self.probesMax)) in the whole --duration.")
        }
        guard (1...1_000_000).contains(valueSize), (1...LoadSettings.connectionsMax).contains(connections) else {
            throw ValidationError(
                "--value-size goes from 1 to 1000000, --connections from 1 to \(LoadSettings.connectionsMax).")
        }
        guard (1...LoadSettings.recordsMax).contains(catchUp ?? records) else {
            throw ValidationError("--records and --catch-up go from 1 to \(LoadSettings.recordsMax).")
        }
    }

    func run() async throws {
        try BenchFile.check(jsonFile)
        let seeds = try cluster.seeds()
        let report = try await cluster.withClient { client in
            let topology = try await client.refreshTopology()
            guard topology.shards.contains(where: { !$0.followers.isEmpty }) else {
                throw CommandFailure(status: .unavailable, message: "no shard has a follower: add a replica first")
            }
            if let catchUp { return try await measureCatchUp(catchUp, client, topology, seeds) }
            return try await measureLag(client, topology, seeds)
        }
        try await Console.write(ByteBuffer(string: ReplicationRunTable.render(report)))
        if let jsonFile { try await BenchFile.write(try report.json(), to: jsonFile) }
        if !report.isComplete { throw CommandFailure(status: .unavailable, message: nil) }
    }

    // MARK: Lag

    private func measureLag(
        _ client: KVClient, _ topology: Topology, _ seeds: [NodeAddress]
    ) async throws -> ReplicationRunReport {
        let probeRate = min(probes, rate)
        let plan = ReplicationProbes.Plan(
            rate: probeRate, duration: runTime, warmUp: Self.warmUp,
            shards: topology.shards.filter { !$0.followers.isEmpty }.map { ($0, topology.tag(of: $0.name)) },
            prefix: Self.prefix + String(UInt64.random(in: 0...UInt64.max), radix: 36), valueBytes: valueSize,
            write: write.options(nil))
        var load = loadSettings(records: records, seeds)
        load.rate = rate - probeRate
        load.duration = runTime.nanoseconds
        load.warmUp = Self.warmUp.nanoseconds
        let followed = ReplicationProbes(plan, client)
        let started = Date()
        async let background = rate > probeRate ? write(load, client, topology) : nil
        await followed.run(from: .now)
        let result = try await background
        let write = followed.write
        let acknowledged = Double(result?.answered ?? 0) + Double(write.answered)
        return ReplicationRunReport(
            started: started, settings: settings, machine: .current, durationSeconds: runTime.seconds,
            writesPerSecond: acknowledged / runTime.seconds, writeErrors: Self.errors(of: result), write: write,
            followers: followed.followers)
    }

    private func write(
        _ load: LoadSettings, _ client: KVClient, _ topology: Topology
    ) async throws -> LoadResult? {
        try await LoadRun(load, .run, topology: topology, refresh: { try? await client.refreshTopology() }).run()
    }

    private static func errors(of result: LoadResult?) -> [String: UInt64] {
        let failures = (result?.operations ?? [:]).values.flatMap(\.failures)
        return failures.reduce(into: [:]) { $0[$1.key.description, default: 0] += UInt64($1.value) }
    }

    // MARK: Catching up

    private func measureCatchUp(
        _ keys: UInt64, _ client: KVClient, _ topology: Topology, _ seeds: [NodeAddress]
    ) async throws -> ReplicationRunReport {
        var load = loadSettings(records: keys, seeds)
        load.pipelineDepth = Self.pipelineDepth
        let run = CatchUpRun(
            client: client, topology: topology, load: load, pausedProcess: pause,
            patience: .nanoseconds(patience?.nanoseconds ?? 60_000_000_000))
        let started = Date()
        let outcome = await Interruptible.run { () async -> Result<CatchUpRun.Outcome, any Error> in
            do { return .success(try await run.run()) } catch { return .failure(error) }
        }
        let (result, followers) = try (outcome.get().load, outcome.get().followers)
        return ReplicationRunReport(
            started: started, settings: settings, machine: .current, durationSeconds: result.seconds,
            writesPerSecond: result.throughput, writeErrors: Self.errors(of: result), write: nil, followers: followers)
    }

    // MARK: Settings

    private func loadSettings(records: UInt64, _ seeds: [NodeAddress]) -> LoadSettings {
        var settings = LoadSettings(
            workload: Workload("put", [.update: 100], keys: .uniform, summary: "updates"), records: records,
            seeds: seeds, seed: UInt64.random(in: 0...UInt64.max))
        settings.names = KeyNames(prefix: Self.prefix)
        settings.valueSize = .fixed(valueSize)
        settings.connections = connections
        settings.ack = write.ack
        settings.ackTimeout = write.ackTimeout.map { UInt64($0.nanoseconds / 1_000_000) }
        settings.timeout = UInt64(cluster.requestTimeout(default: 10).nanoseconds)
        return settings
    }

    private var settings: [String: String] {
        var settings = ["value-size": "\(valueSize)", "connections": "\(connections)"]
        if let catchUp {
            settings["catch-up"] = "\(catchUp)"
        } else {
            settings.merge(["rate": "\(rate)", "probes": "\(min(probes, rate))", "records": "\(records)"]) { $1 }
        }
        if let ack = write.ack { settings["ack"] = "\(ack)" }
        return settings
    }
}
