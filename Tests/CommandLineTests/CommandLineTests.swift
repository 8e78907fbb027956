import ArgumentParser
import Core
import DistribKVClient
import ImportPipeline
import NIOCore
import Testing

@testable import kv

@Suite struct CommandLineTests {
    @Test func goodCommandLines() throws {
        let put = try #require(try KV.parseAsRoot(["put", "k", "v", "--router", "http://a:1"]) as? PutCommand)
        #expect((put.key.text, put.value, put.cluster.router) == ("k", "v", "http://a:1"))
        let dashed = try #require(try KV.parseAsRoot(["put", "--", "-k", "-"]) as? PutCommand)
        #expect((dashed.key.text, dashed.value) == ("-k", "-"))
        let file = try #require(try KV.parseAsRoot(["put", "k", "--file", "f"]) as? PutCommand)
        #expect(file.file == "f")
        #expect(try KV.parseAsRoot(["del", "k"]) is DeleteCommand)
        #expect(try KV.parseAsRoot(["status", "--json"]) is StatusCommand)
        let resumed = try #require(
            try KV.parseAsRoot(["import", "-", "--format", "ndjson", "--resume-from", "7", "--skip-bad"])
                as? ImportCommand)
        #expect((resumed.format, resumed.resumeFrom, resumed.skipBad) == (.ndjson, 7, true))
    }

    @Test func whatRequestsAskFor() throws {
        let put = try #require(
            try KV.parseAsRoot(["put", "k", "v", "--ack", "all", "--ack-timeout", "1500ms"]) as? PutCommand)
        #expect(put.options == WriteOptions(ack: .all, ackTimeout: .milliseconds(1_500)))
        let delete = try #require(try KV.parseAsRoot(["del", "k", "--ack", "2"]) as? DeleteCommand)
        #expect(delete.write.options(nil) == WriteOptions(ack: .replicas(2)))
        let get = try #require(
            try KV.parseAsRoot([
                "get", "k", "--consistency", "leader", "--min-version", "00000000000000ff", "--max-staleness", "2s",
            ]) as? GetCommand)
        #expect(
            get.read.options
                == ReadOptions(
                    consistency: .leader, minVersion: Version(rawValue: 255), maxStaleness: .seconds(2)))
        let plain = try #require(try KV.parseAsRoot(["get", "k"]) as? GetCommand)
        #expect(plain.read.options == ReadOptions())
    }

    @Test func conditionsLivesAndCounters() throws {
        func options(_ arguments: String...) throws -> WriteOptions? {
            (try KV.parseAsRoot(["put", "k", "v"] + arguments) as? PutCommand)?.options
        }
        #expect(try options("--if-absent", "--ttl", "90s") == WriteOptions(condition: .absent, ttl: .seconds(90)))
        #expect(try options("--if-match", "*") == WriteOptions(condition: .exists))
        #expect(
            try options("--if-match", "00000000000000ff") == WriteOptions(condition: .version(Version(rawValue: 255))))
        let delete = try #require(try KV.parseAsRoot(["del", "k", "--if-match", "*"]) as? DeleteCommand)
        #expect(delete.match.ifMatch == .exists)
        let increment = try #require(try KV.parseAsRoot(["incr", "k", "--by", "-3"]) as? IncrementCommand)
        #expect(increment.by == -3)
        #expect((try KV.parseAsRoot(["incr", "k"]) as? IncrementCommand)?.by == 1)
        let binary = try #require(try KV.parseAsRoot(["get", "--key-base64", "/wAB"]) as? GetCommand)
        #expect(binary.key.bytes == [0xFF, 0, 1])
    }

    @Test func administration() throws {
        let failover = try #require(
            try KV.parseAsRoot(["failover", "s", "--to", "a:1", "--force", "--json"]) as? FailoverCommand)
        #expect((failover.shard, failover.to, failover.force) == ("s", NodeAddress(host: "a", port: 1), true))
        let remove = try #require(try KV.parseAsRoot(["replica", "remove", "s", "a:1"]) as? RemoveReplica)
        #expect((remove.replica.shard, remove.replica.node) == ("s", NodeAddress(host: "a", port: 1)))
        #expect(try KV.parseAsRoot(["replica", "add", "s", "a:1"]) is AddReplica)
        #expect(try KV.parseAsRoot(["replica", "list"]) is ListReplicas)
        #expect(try KV.parseAsRoot(["verify"]) is VerifyCommand)
        #expect((try KV.parseAsRoot(["verify", "s", "--json"]) as? VerifyCommand)?.shard == "s")
    }

    @Test(arguments: [
        ["nonsense"], ["put"], ["put", "k"], ["put", "k", "v", "--file", "f"], ["get"], ["get", "a", "b"],
        ["import"], ["import", "-"], ["import", "a.csv"], ["import", "a.tsv", "--resume-from", "0"],
        ["import", "a.tsv", "--format", "xml"], ["get", "k", "--timeout", "0"], ["get", "k", "--timeout", "x"],
        ["get", "k", "--timeout", "2h"],
        ["get", "k", "--output", "xml"], ["get", "k", "--output", "raw", "--json"],
        ["put", "k", "v", "--ack", "most"], ["put", "k", "v", "--ack", "0"], ["put", "k", "v", "--ack-timeout", "5"],
        ["put", "k", "v", "--ack-timeout", "0ms"], ["get", "k", "--ack", "all"],
        ["get", "k", "--consistency", "strong"],
        ["get", "k", "--min-version", "12"], ["get", "k", "--max-staleness", "2h"], ["failover"],
        ["failover", "s", "--to", "here"], ["replica", "remove", "s"], ["replica", "add", "s", "a"],
        ["verify", "a", "b"], ["put", "k", "v", "--if-match", "12"],
        ["put", "k", "v", "--if-match", "*", "--if-absent"],
        ["put", "k", "v", "--ttl", "0s"], ["put", "k", "v", "--ttl", "5"], ["put", "k", "v", "--ttl", "36501d"],
        ["del", "k", "--ttl", "1s"], ["incr", "k", "--by", "1.5"], ["incr", "k", "--by", "9223372036854775808"],
        ["get", "--key-base64", "?"], ["completion"], ["completion", "csh"],
    ]) func badCommandLines(arguments: [String]) {
        #expect { try KV.parseAsRoot(arguments) } throws: { KV.exitCode(for: $0) != .success }
    }

    @Test func helpAndVersionAreNoFailures() {
        #expect { try KV.parseAsRoot(["--version"]) } throws: { error in
            KV.exitCode(for: error) == .success && KV.message(for: error) == BuildInformation.version
        }
        for arguments in [["--help"], ["import", "--help"]] {
            // Parsing finds the command that prints help; running it throws the help.
            #expect {
                var command = try KV.parseAsRoot(arguments)
                try command.run()
            } throws: {
                KV.exitCode(for: $0) == .success
            }
        }
    }

    @Test func exitStatuses() {
        let cases: [(KVError.Code, Int32)] = [
            (.notFound, 1), (.invalidArgument, 2), (.unavailable, 3), (.timedOut, 3), (.overloaded, 3),
            (.storageFull, 3), (.ackTimeout, 3), (.versionUnknown, 3), (.conflict, 3), (.outcomeUnknown, 3),
            (.preconditionFailed, 4), (.notAnInteger, 4), (.counterOverflow, 4),
        ]
        for (code, status) in cases { #expect(CommandStatus(KVError(code, "")).rawValue == status) }
    }

    @Test func aStoppedImportSaysHowToContinue() throws {
        func explain(_ reason: ImportStop.Reason, _ arguments: [String]) throws -> (String, CommandStatus) {
            let stop = ImportStop(reason: reason, line: 42, error: KVError(.unavailable, "nobody answers"))
            let command = try #require(try KV.parseAsRoot(["import"] + arguments) as? ImportCommand)
            return command.explain(stop)
        }
        let unavailable = try explain(.unavailable, ["a.tsv"])
        #expect(
            unavailable
                == (
                    "line 42 was not acknowledged: nobody answers; continue with: kv import a.tsv --resume-from 42",
                    .unavailable
                ))
        let options = ["it's", "--format", "ndjson", "--skip-bad", "--router", "http://a:1,b:2"]
        let malformed = try explain(.malformed, options + ["--resume-from", "7"])
        #expect(
            malformed.0
                == "line 42: nobody answers; correct it or add --skip-bad, then continue with: kv import 'it'\\''s' "
                + "--format ndjson --router http://a:1,b:2 --skip-bad --resume-from 42")
        #expect(malformed.1 == .usage)
        let interrupted = try explain(.interrupted, ["-", "--format", "tsv"])
        #expect(
            interrupted
                == (
                    "interrupted; continue with the same input: kv import - --format tsv --resume-from 42", .interrupted
                ))
    }

    @Test func aSummaryAddsUp() {
        var counts = ImportCounts()
        (counts.read, counts.written, counts.skipped, counts.failed) = (100, 80, 5, 1)
        counts.bytesWritten = 2_048
        #expect(
            ImportCommand.summary(counts, seconds: 0.5)
                == "read 100, written 80, skipped 5, failed 1, not sent 14; 2.0 KiB in 0.5 s, 160 keys/s")
    }
}
