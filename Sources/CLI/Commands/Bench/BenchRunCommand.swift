import ArgumentParser
import BenchReport
import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import LoadGenerator
import NIOCore
import Sharding

struct BenchRunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Runs a workload and prints throughput and latencies.",
        discussion: """
            Loads the records first where they are not there yet; --phase says otherwise. Ctrl-C ends the run early and
            reports what was measured. What the options mean and how it measures: docs/bench.md.

            EXAMPLES
              kv bench --workload c --records 1000000 --connections 32 --duration 10s
              kv bench --workload a --rate 20000 --json out.json
              kv bench --workload put --value-size 10-1000 --ack quorum
            """)

    enum Phase: String, CaseIterable, ExpressibleByArgument {
        /// The load where some of the keys are missing, then the run.
        case auto
        case load, run, both
    }

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup(title: "WORKLOAD") var workload: WorkloadFlags
    @OptionGroup(title: "PACE") var pace: PaceFlags
    @OptionGroup var write: WriteFlags
    @Option(
        help: ArgumentHelp("eventual: any replica may answer reads; leader: only the leader.", valueName: "level"),
        transform: FlagText.consistency)
    var consistency: ReadOptions.Consistency = .eventual
    @Option(help: "How requests find their node: direct by the topology, router by redirects, proxy through a router.")
    var via: LoadSettings.Via = .direct
    @Option(help: "With --via direct, who is read: the leader, or any replica in turn.")
    var readFrom: LoadSettings.ReadFrom = .leader
    @Option(help: "auto loads the records where they are not there; load, run, both.")
    var phase = Phase.auto
    @Flag(help: "Values say whose they are, and every read is checked. Exits with 4 where one is wrong.")
    var verify = false
    @Option(
        name: .customLong(BenchArguments.jsonFile),
        help: ArgumentHelp("Writes the results as JSON; --json file is the same.", valueName: "file"),
        completion: .file())
    var jsonFile: String?
    @Option(
        name: .customLong("html"), help: ArgumentHelp("Writes the results as a page with plots.", valueName: "file"),
        completion: .file())
    var htmlFile: String?

    func validate() throws {
        guard !verify || workload.valueSize.range.lowerBound >= LoadSettings.verifiedBytesMin else {
            throw ValidationError(
                "With --verify values have at least \(LoadSettings.verifiedBytesMin) bytes: give a larger --value-size."
            )
        }
        guard !verify || workload.records > UInt64(pace.connections * pace.pipeline) else {
            throw ValidationError(
                "With --verify each key has one writer at a time: --records has to be more than --connections times --pipeline."
            )
        }
        guard readFrom == .leader || via == .direct else {
            throw ValidationError("--read-from is for --via direct: a router chooses itself.")
        }
    }

    func run() async throws {
        try BenchFile.check(jsonFile)
        try BenchFile.check(htmlFile)
        let seed = workload.seed ?? UInt64.random(in: 0...0xFFFF_FFFF)
        let settings = loadSettings(seed: seed, seeds: try cluster.seeds())
        if workload.seed == nil { Console.error("seed \(seed)") }
        try await cluster.withClient { client in
            let topology = via == .direct ? try await client.topology() : nil
            // Of redirects it is not known to how many nodes they lead.
            try DescriptorLimit.require(settings.descriptors(nodes: topology?.nodes.count ?? 1))
            let session = BenchSession(settings: settings, topology: topology, client: client)
            if try await needsLoad(session) { try await session.load() }
            guard phase != .load else { return }
            let started = Date() + Double(settings.warmUp) / 1e9
            let result = try await session.run()
            let report = RunReport(
                result, started: started, settings: shownSettings(settings), machine: .current)
            try await write(report, result, mayBeStale: settings.mayBeStale)
        }
    }

    private func needsLoad(_ session: BenchSession) async throws -> Bool {
        switch phase {
        case .run: false
        case .load, .both: true
        case .auto: try await !session.isLoaded()
        }
    }

    private func write(_ report: RunReport, _ result: LoadResult, mayBeStale: Bool) async throws {
        try await Console.write(ByteBuffer(string: RunTable.render(report)))
        if let jsonFile { try await BenchFile.write(try report.json(), to: jsonFile) }
        if let htmlFile { try await BenchFile.write(Array(RunPage(report).html().utf8), to: htmlFile) }
        for example in result.verification?.examples ?? [] { Console.error("kv: \(example)") }
        if let verification = report.verification {
            if verification.stale > 0, mayBeStale {
                Console.error("stale values come from followers, which eventual reads allow")
            }
            let faults = verification.wrong + verification.missing + (mayBeStale ? 0 : verification.stale)
            if faults > 0 { throw CommandFailure(status: .conditionFailed, message: nil) }
        }
        if result.operations.values.contains(where: { $0.failures[.badAnswer] != nil }) {
            Console.error("bad_answer: not the HTTP/1.1 of routers and storage nodes; is that what --router names?")
        }
        if result.wasInterrupted {
            throw CommandFailure(
                status: .interrupted,
                message: "interrupted: the figures are of \(report.durationSeconds) s")
        }
        if report.requests == 0 {
            throw CommandFailure(status: .unavailable, message: "no operation ended: nothing was measured")
        }
        if report.errors == report.requests {
            throw CommandFailure(status: .unavailable, message: "every operation failed")
        }
    }
}

extension BenchRunCommand {
    func loadSettings(seed: UInt64, seeds: [NodeAddress]) -> LoadSettings {
        var settings = LoadSettings(
            workload: workload.workload, records: workload.records, seeds: seeds, seed: seed)
        settings.keys = workload.keys
        settings.valueSize = workload.valueSize
        settings.names = KeyNames(prefix: workload.keyPrefix, isOrdered: workload.orderedKeys)
        settings.connections = pace.connections
        settings.pipelineDepth = pace.pipeline
        settings.threads = pace.threads
        settings.rate = pace.rate
        settings.operations = pace.operations
        settings.duration = pace.operations == nil ? pace.duration ?? 10_000_000_000 : nil
        // A number of operations is small as a rule: all of them count.
        settings.warmUp = pace.warmUp ?? (pace.operations == nil ? 2_000_000_000 : 0)
        settings.via = via
        settings.readFrom = readFrom
        settings.ack = write.ack
        settings.ackTimeout = write.ackTimeout.map { UInt64($0.nanoseconds / 1_000_000) }
        settings.isConsistent = consistency == .leader
        settings.timeout = UInt64(cluster.requestTimeout(default: 10).nanoseconds)
        settings.isVerified = verify
        return settings
    }

    /// What was asked for, by the names of the options.
    private func shownSettings(_ settings: LoadSettings) -> [String: String] {
        func seconds(_ nanoseconds: UInt64) -> String { "\(Double(nanoseconds) / 1e9)s" }
        var shown = [
            "workload": workload.workload.name, "records": "\(workload.records)",
            "keys": (workload.keys ?? workload.workload.keys).rawValue, "value-size": "\(workload.valueSize)",
            "connections": "\(pace.connections)", "pipeline": "\(pace.pipeline)", "threads": "\(pace.threads)",
            "warm-up": seconds(settings.warmUp), "via": via.rawValue, "consistency": consistency.rawValue,
            "router": settings.seeds.map(\.description).joined(separator: ","), "seed": "\(settings.seed)",
            "timeout": seconds(settings.timeout),
        ]
        shown["rate"] = pace.rate.map { "\($0)" }
        shown["duration"] = settings.duration.map(seconds)
        shown["operations"] = pace.operations.map { "\($0)" }
        shown["ack"] = write.ack.map { "\($0)" }
        if via == .direct { shown["read-from"] = readFrom.rawValue }
        if verify { shown["verify"] = "true" }
        return shown
    }
}
