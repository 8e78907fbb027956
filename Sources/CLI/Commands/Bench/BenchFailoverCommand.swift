import ArgumentParser
import BenchReport
import Core
import DistribKVClient
import FoundationEssentials
import NIOCore
import Sharding
import Wire

struct BenchFailoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "failover",
        abstract: "Measures for how long a shard takes no requests when its leader changes, and what is lost.",
        discussion: """
            Writes and reads at a fixed rate. With a shard it changes that shard's leader meanwhile, as kv failover does;
            without one it watches all shards: kill a leader, or run kv failover. In the end every acknowledged write is
            read from its leader. LONGEST GAP is the longest time in which no request succeeded; requests are sent again
            as the client library does it. docs/bench.md says more.

            EXAMPLES
              kv bench failover shard-0
              kv bench failover shard-0 --to 127.0.0.1:7002 --after 5s --duration 15s --rate 2000
              kv bench failover --duration 60s --json out.json

            Exits with 4 where an acknowledged write is gone, else with 3 where the leader was not changed or not all of
            them could be read.
            """)

    @OptionGroup var cluster: ClusterOptions
    @Argument(help: "The shard whose leader is changed.")
    var shard: String?
    @Option(
        help: ArgumentHelp("The follower that is to lead.", valueName: "host:port"), transform: FlagText.address)
    var to: NodeAddress?
    @Flag(help: "Also where acknowledged writes may be lost that a replica which does not answer has.")
    var force = false
    @Option(
        help: ArgumentHelp("When the leader is changed. (default: 3s)", valueName: "duration"),
        transform: FlagText.duration)
    var after: TimeAmount?
    @Option(
        help: ArgumentHelp("How long the load is offered. (default: 10s)", valueName: "duration"),
        transform: FlagText.duration)
    var duration: TimeAmount?
    @Option(help: ArgumentHelp("Writes per second, and as many reads.", valueName: "per-second"))
    var rate = 500.0
    @Option(help: ArgumentHelp("Bytes of a value, at least.", valueName: "bytes"))
    var valueSize = 100
    @OptionGroup var write: WriteFlags
    @Option(
        help: ArgumentHelp("eventual: any replica may answer reads; leader: only the leader.", valueName: "level"),
        transform: FlagText.consistency)
    var consistency: ReadOptions.Consistency = .eventual
    @Option(
        name: .customLong(BenchArguments.jsonFile),
        help: ArgumentHelp("Writes the results as JSON; --json file is the same.", valueName: "file"),
        completion: .file())
    var jsonFile: String?

    /// Of the same load, not measured: connections are made.
    private static let warmUp = Duration.seconds(1)

    private var runTime: Duration { .nanoseconds(duration?.nanoseconds ?? 10_000_000_000) }
    private var changeTime: Duration { .nanoseconds(after?.nanoseconds ?? 3_000_000_000) }

    func validate() throws {
        guard shard != nil || to == nil && !force && after == nil else {
            throw ValidationError("--to, --force and --after are for a change of leader: name the shard.")
        }
        guard shard == nil || changeTime < runTime else {
            throw ValidationError("--after has to be before the end of --duration, which is \(runTime).")
        }
        guard rate >= 1, rate * runTime.seconds <= Double(SteadyLoad.countMax) else {
            throw ValidationError("--rate is at least 1, and at most \(SteadyLoad.countMax) writes are made in all.")
        }
        guard (0...1_000_000).contains(valueSize) else {
            throw ValidationError("--value-size goes from 0 to 1000000.")
        }
    }

    func run() async throws {
        try BenchFile.check(jsonFile)
        let report = try await cluster.withClient(configure) { client in
            let topology = try await client.refreshTopology()
            let shards = try shard.map { [try topology.shardForCommand($0)] } ?? topology.shards
            let plan = plan(shards, topology)
            var warmUp = plan
            (warmUp.duration, warmUp.prefix) = (Self.warmUp, plan.prefix + "/warm-up")
            await SteadyLoad(warmUp, client).run(from: .now)
            let load = SteadyLoad(plan, client)
            let started = Date()
            let start = ContinuousClock.now
            async let change = changeLeader(from: start)
            await load.run(from: start)
            let made = await change
            let kept = made.flatMap { $0.isComplete == false ? $0.version : nil }
            let lost = await load.readBack(keptUpTo: kept.flatMap { Version(hexDigits: $0) }?.rawValue)
            return FailoverRunReport(
                started: started, settings: settings, machine: .current, durationSeconds: runTime.seconds,
                shards: load.operations(), lostWrites: lost, change: made)
        }
        try await Console.write(ByteBuffer(string: FailoverRunTable.render(report)))
        if let jsonFile { try await BenchFile.write(try report.json(), to: jsonFile) }
        let status = Self.status(of: report)
        if status != .done { throw CommandFailure(status: status, message: nil) }
    }

    static func status(of report: FailoverRunReport) -> CommandStatus {
        if report.lostWrites.lost + report.lostWrites.wrong > 0 { return .conditionFailed }
        return report.lostWrites.isClean && report.change?.error == nil ? .done : .unavailable
    }

    private func configure(_ configuration: inout KVClientConfiguration) {
        configuration.requestTimeout = cluster.requestTimeout(default: 5)
        configuration.attemptsMax = KVClientConfiguration().attemptsMax
        // What is lost is looked for in the end: a read that meets it is no outage.
        configuration.session = .none
        configuration.connections.waitersPerNodeMax = SteadyLoad.inFlightMax
    }

    /// A change made by another client: the one that measures has to find out.
    private func changeLeader(from start: ContinuousClock.Instant) async -> FailoverRunReport.Change? {
        guard let shard, (try? await Task.sleep(until: start + changeTime, tolerance: .zero)) != nil else { return nil }
        let leaderChange = LeaderChange(shard: shard, target: to, force: force, timeout: .seconds(10))
        let begun = ContinuousClock.now
        var change = FailoverRunReport.Change(
            shard: shard, startSeconds: (begun - start).seconds.rounded(to: 3), milliseconds: 0)
        do {
            let report = try await cluster.withClient { try await leaderChange.run($0) }
            change.previousLeader = report.previousLeader.description
            change.leader = report.leader.description
            change.isComplete = report.isComplete
            change.version = report.version
            change.writesHeldMilliseconds = report.writesHeldMilliseconds
        } catch {
            change.error = KV.failure(for: error).message ?? "\(error)"
        }
        change.milliseconds = ((ContinuousClock.now - begun).seconds * 1_000).rounded(to: 2)
        return change
    }

    private func plan(_ shards: [ShardTopology], _ topology: Topology) -> SteadyLoad.Plan {
        let run = String(UInt64.random(in: 0...UInt64.max), radix: 36)
        return SteadyLoad.Plan(
            rate: rate, duration: runTime, prefix: "kv-bench-failover/\(run)",
            shards: shards.map { ($0.name, topology.tag(of: $0.name)) }, valueBytes: valueSize,
            write: write.options(nil), read: ReadOptions(consistency: consistency))
    }

    private var settings: [String: String] {
        var settings = [
            "rate": "\(rate)", "value-size": "\(valueSize)", "consistency": consistency.rawValue,
            "timeout": "\(cluster.requestTimeout(default: 5).nanoseconds / 1_000_000)ms",
        ]
        if let shard {
            settings["shard"] = shard
            settings["after"] = "\(Int(changeTime.seconds * 1_000))ms"
            settings["force"] = "\(force)"
        }
        if let to { settings["to"] = "\(to)" }
        if let ack = write.ack { settings["ack"] = "\(ack)" }
        return settings
    }
}

extension Topology {
    /// What in `{}` leads a key to a shard.
    func tag(of shard: String) -> String {
        var number = 0
        // Every shard has slots, and tags reach all of them.
        while self.shard(of: HashSlot(key: Array("{\(number)}".utf8))).name != shard { number += 1 }
        return String(number)
    }
}

extension Double {
    /// With so many digits behind the point.
    func rounded(to places: Int) -> Double {
        let parts = (0..<places).reduce(1.0) { value, _ in value * 10 }
        return (self * parts).rounded() / parts
    }
}
