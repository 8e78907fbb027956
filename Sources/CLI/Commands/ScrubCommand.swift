import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

struct ScrubCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scrub",
        abstract: "Has replicas read all they have on the disk, and tells what is damaged.",
        discussion: """
            One replica of the shard after the other, the leader last, verifies every block of its tables against its \
            checksum, past what is in memory, while it goes on serving. Storage nodes do that by themselves, slowly; this is \
            for now, as fast as the disk is. What is interrupted here goes on at the node.

            Exits with 4 where something is damaged, else with 3 where a replica could not be read to its end.
            """)

    /// From one look at a scrub to the next.
    private static let interval = Duration.milliseconds(200)
    /// How long a node may not answer: one that found damage may be rebuilding its replica.
    private static let silenceMax = Duration.seconds(60)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The shard's name.")
    var shard: String
    @Option(
        help: ArgumentHelp("The replica on this node alone.", valueName: "host:port"), transform: FlagText.address)
    var node: NodeAddress?

    func run() async throws {
        let reports = try await cluster.withClient { client in
            let shard = try await client.refreshTopology().shardForCommand(shard)
            if let node, !shard.replicas.contains(node) {
                throw CommandFailure(status: .usage, message: "\(node) holds no replica of \(shard.name)")
            }
            var reports: [ScrubReport] = []
            for address in node.map({ [$0] }) ?? shard.followers + [shard.leader] {
                reports.append(await scrub(shard.name, on: address, client))
            }
            return reports
        }
        try await output.write(
            json: reports,
            table: TextTable.render([["NODE", "READ", "TIME", "FOUND"]] + reports.map { $0.row(Format.bytes) }),
            raw: TextTable.raw(reports.map { $0.row { String($0) } }))
        let status = ScrubReport.status(reports)
        guard status == .done else { throw CommandFailure(status: status, message: nil) }
    }

    /// Begins a scrub, or finds one that runs, and waits for its end.
    private func scrub(_ shard: String, on address: NodeAddress, _ client: KVClient) async -> ScrubReport {
        var report = ScrubReport(node: address.description)
        var display = ScrubDisplay(node: address)
        do throws(KVError) {
            let begun = try await ask(.POST, shard, address, client)
            report.scrub = begun
            while let scrub = report.scrub, scrub.isRunning {
                display.show(scrub)
                report.scrub = try await next(begun.number, shard, address, client)
            }
        } catch {
            report.error = error.message
        }
        display.end()
        return report
    }

    /// How far that scrub is a moment later, or when its node answers again.
    private func next(
        _ number: UInt64, _ shard: String, _ address: NodeAddress, _ client: KVClient
    ) async throws(KVError) -> ScrubDocument {
        let asked = ContinuousClock.now
        while true {
            // Cancellation ends it early, and then the question fails.
            try? await Task.sleep(for: Self.interval)
            let answer: Result<ScrubDocument, KVError>
            do throws(KVError) {
                answer = .success(try await ask(.GET, shard, address, client))
            } catch {
                answer = .failure(error)
            }
            if case .failure = answer, ContinuousClock.now < asked + Self.silenceMax { continue }
            let document = try answer.get()
            guard document.number == number else {
                throw KVError(.unavailable, "another scrub has begun, or this one is forgotten: scrub \(shard) again")
            }
            return document
        }
    }

    private func ask(
        _ method: HTTPMethod, _ shard: String, _ address: NodeAddress, _ client: KVClient
    ) async throws(KVError) -> ScrubDocument {
        try await client.ask(
            address, NodeRequest(method: method, target: APIPath.scrub(shard: shard)), for: ScrubDocument.self,
            timeout: cluster.requestTimeout(default: 10))
    }
}

/// What became of one replica.
struct ScrubReport: Encodable {
    var node: String
    /// As it was heard of last.
    var scrub: ScrubDocument?
    /// Why no more was heard; nil if it ended.
    var error: String?

    init(node: String) { self.node = node }

    func row(_ size: (UInt64) -> String) -> [String] {
        [node, scrub.map { size($0.bytesDone) } ?? "-", scrub.map { "\($0.milliseconds)ms" } ?? "-", found]
    }

    private var found: String {
        if let scrub, !scrub.damage.isEmpty { return scrub.damage.joined(separator: "; ") }
        return error ?? scrub?.failure ?? "nothing"
    }

    static func status(_ reports: [ScrubReport]) -> CommandStatus {
        if reports.contains(where: { $0.scrub?.damage.isEmpty == false }) { return .conditionFailed }
        return reports.contains { $0.error != nil || $0.scrub?.failure != nil } ? .unavailable : .done
    }
}

/// Shows a scrub that is running on standard error: a bar on a terminal, else nothing.
struct ScrubDisplay {
    private let node: NodeAddress
    private var rate = TransferRate()
    private var isBarShown = false

    init(node: NodeAddress) { self.node = node }

    mutating func show(_ scrub: ScrubDocument) {
        guard let width = Console.terminalWidth else { return }
        isBarShown = true
        Console.draw(bar: bar(scrub, width: width - 1))
    }

    mutating func bar(_ scrub: ScrubDocument, width: Int) -> String {
        rate.note(bytes: scrub.bytesDone, now: scrub.milliseconds)
        let progress = rate.progress(done: scrub.bytesDone, total: scrub.bytesTotal, now: scrub.milliseconds)
        var text = "\(node)  \(Format.bytes(scrub.bytesDone))  \(Format.bytes(progress.bytesPerSecond))/s"
        if !scrub.damage.isEmpty { text += "  \(scrub.damage.count) damaged" }
        if let left = progress.secondsLeft { text += "  ETA \(Format.duration(left))" }
        let fraction = scrub.bytesTotal > 0 ? Double(scrub.bytesDone) / Double(scrub.bytesTotal) : nil
        return ProgressBar.render(fraction, text, width: width)
    }

    mutating func end() {
        if isBarShown { Console.errorText("\n") }
        isBarShown = false
    }
}
