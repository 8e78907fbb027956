import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import Wire

struct BatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "batch",
        abstract: "Does the operations of an NDJSON file and prints a result for each, in order.",
        discussion: """
            {"op":"get","key":"…"}                  also put, delete, incr; key_base64 for bytes that are no text
            {"op":"put","key":"…","value":"…"}      also value_base64, "ttl":"30s", "if_match", "if_none_match"
            {"op":"incr","key":"…","by":5}

            A result is {"status":204,"version":"…"} or what it failed with. The exit status is 0 where every operation
            was done or found nothing, 4 where a condition did not hold, 3 where the cluster did not do one, 2 where one
            cannot be done. Operations on one key are done in their order. A file of more than \(Limits.batchOperationsMax)
            operations is done piece by piece, unless it is atomic.

            EXAMPLES
              kv batch operations.ndjson
              printf '%s\\n' '{"op":"incr","key":"{u}n"}' '{"op":"get","key":"{u}n"}' | kv batch --atomic
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Flag(help: "All of it at one place in the log, or nothing. All keys must be of one shard.")
    var atomic = false
    @OptionGroup var write: WriteFlags
    @Argument(help: "The file; - is standard input.", completion: .file())
    var file = "-"

    /// Operations that go to the client together where it is not atomic.
    private static let pieceOperationsMax = Limits.batchOperationsMax

    func run() async throws {
        let content = try await Console.read(path: file)
        let operations: [KVOperation]
        do throws(Problem) {
            operations = try KVOperation.read(content)
        } catch {
            throw CommandFailure(status: .usage, message: error.detail)
        }
        let options = BatchOptions(isAtomic: atomic, ack: write.ack, ackTimeout: write.ackTimeout)
        let pieces = atomic ? [operations[...]] : operations.pieces(of: BatchCommand.pieceOperationsMax)
        let status = try await cluster.withClient { client in
            var worst: CommandStatus?
            for piece in pieces where !piece.isEmpty {
                let results = try await client.batch(Array(piece), options: options)
                try await print(results)
                for case .failure(let error) in results { worst = BatchCommand.worse(worst, CommandStatus(error)) }
            }
            return worst
        }
        if let status { throw CommandFailure(status: status, message: nil) }
    }

    private func print(_ results: [Result<KVOperation.Outcome, KVError>]) async throws {
        func lines() -> ByteBuffer {
            var buffer = ByteBuffer()
            for result in results { BatchResult(result).write(into: &buffer) }
            return buffer
        }
        try await output.write(
            default: .json, line: lines(), table: TextTable.render(BatchCommand.rows(results)), raw: lines())
    }

    private static func rows(_ results: [Result<KVOperation.Outcome, KVError>]) -> [[String]] {
        [["STATUS", "VERSION", "RESULT"]]
            + results.map { result in
                switch result {
                case .success(.value(nil)): ["404", "-", "no such key"]
                case .success(.value(.some(let entry))):
                    ["200", entry.version.hexDigits, TextTable.cell(entry.value.readableBytesView)]
                case .success(.written(let version)): ["204", version.hexDigits, "-"]
                case .success(.counter(let counter)): ["200", counter.version.hexDigits, "\(counter.number)"]
                case .failure(let error): ["-", error.version?.hexDigits ?? "-", error.description]
                }
            }
    }

    /// What cannot be done counts most, then what was not, then what was refused.
    private static func worse(_ one: CommandStatus?, _ other: CommandStatus) -> CommandStatus {
        let order: [CommandStatus] = [.usage, .unavailable, .conditionFailed]
        guard let one else { return other }
        return order.first { $0 == one || $0 == other } ?? one
    }
}

extension [KVOperation] {
    fileprivate func pieces(of count: Int) -> [ArraySlice<KVOperation>] {
        stride(from: 0, to: self.count, by: count).map { self[$0..<Swift.min($0 + count, self.count)] }
    }
}

extension BatchResult {
    /// As a node writes it, by the names of the client's errors.
    fileprivate init(_ result: Result<KVOperation.Outcome, KVError>) {
        switch result {
        case .success(.value(nil)): self = .missing
        case .success(.value(.some(let entry))):
            self = .found(
                entry.value, entry.version,
                ttlMilliseconds: entry.expiresIn.map { UInt64(max(0, $0.nanoseconds / 1_000_000)) })
        case .success(.written(let version)): self = .written(version)
        case .success(.counter(let counter)): self = .counted(counter.number, counter.version)
        case .failure(let error): self = .failed(.init(error))
        }
    }
}

extension BatchResult.Failure {
    /// The problem that the client's error stands for; its own name where that is none of a node's.
    init(_ error: KVError) {
        let status =
            switch error.code {
            case .preconditionFailed: 412
            case .notAnInteger, .counterOverflow: 409
            case .batchRefused: 424
            case .invalidArgument: 400
            case .ackTimeout, .timedOut, .outcomeUnknown: 504
            case .unavailable, .overloaded, .storageFailed: 503
            case .storageFull: 507
            default: 500
            }
        self.init(
            status: status, type: error.code.description, detail: error.description, version: error.version)
    }
}
