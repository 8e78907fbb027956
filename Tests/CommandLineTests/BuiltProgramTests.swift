import Core
import Foundation
import Sharding
import TestSupport
import Testing
import Wire

@testable import kv

/// The built `kv` as scripts see it: exit status, standard output, one line on standard error.
@Suite struct BuiltProgramTests {
    private static let version = "01a20d6f120e0000"

    private func node(
        _ request: String, _ action: @escaping @Sendable () -> ScriptedServer.Action
    ) async throws -> FakeNodes {
        let nodes = try await FakeNodes(1)
        let topology = answer(try nodes.topology(epoch: 1))
        nodes.act { _, received, _ in
            switch received {
            case "GET /topology": .answer(topology)
            case request: action()
            default: nil
            }
        }
        return nodes
    }

    private func run(_ nodes: FakeNodes, _ arguments: [String], input: String = "") async throws -> ProgramRun {
        let options = ["--router", nodes.nodes[0].address.description, "--timeout", "60s"]
        return try await .kv(options + arguments, input: Data(input.utf8))
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var arguments: [String]
        var request: String
        var answer: ScriptedServer.Answer?
        var status: CommandStatus
        var output = ""
        /// Part of the one line on standard error; nil for silence.
        var error: String?
        var testDescription: String { arguments.joined(separator: " ") + " → \(answer?.status ?? 0)" }
    }

    private static func made(_ status: Int = 204, body: String = "") -> ScriptedServer.Answer {
        .init(status, [(KVHeader.version, version), (KVHeader.expiresIn, "1500ms")], body: body)
    }

    private static func refused(_ kind: Problem.Kind) -> ScriptedServer.Answer {
        .init(kind.status, [(KVHeader.version, version)], body: Problem(kind, "the node's own words").json)
    }

    @Test(arguments: [
        Case(
            arguments: ["put", "k", "v"], request: "PUT /kv/k", answer: made(), status: .done, output: "\(version)\n"),
        Case(
            arguments: ["put", "k", "v", "--ttl", "2s", "--if-absent", "--output", "json"],
            request: "PUT /kv/k?ttl=2000ms", answer: made(), status: .done,
            output: #"{"key":"k","version":"\#(version)"}"# + "\n"),
        Case(
            arguments: ["del", "k", "--output", "table"], request: "DELETE /kv/k", answer: made(), status: .done,
            output: "KEY  VERSION\nk    \(version)\n"),
        Case(
            arguments: ["get", "k"], request: "GET /kv/k", answer: made(200, body: "v\t\n"), status: .done,
            output: "v\t\n"),
        Case(
            arguments: ["--json", "get", "k"], request: "GET /kv/k", answer: made(200, body: "v\n"), status: .done,
            output: #"{"key":"k","value":"v\n","version":"\#(version)","ttl":"1500ms"}"# + "\n"),
        Case(
            arguments: ["get", "k", "--output", "table"], request: "GET /kv/k", answer: made(200, body: "v\n"),
            status: .done, output: "KEY  VERSION           TTL     VALUE\nk    \(version)  1500ms  v\\n\n"),
        Case(
            arguments: ["incr", "k", "--by", "-2"], request: "POST /kv/k?incr=-2", answer: made(200, body: "5"),
            status: .done, output: "5\n"),
        Case(
            arguments: ["incr", "k", "--output", "json"], request: "POST /kv/k?incr=1", answer: made(200, body: "5"),
            status: .done, output: #"{"key":"k","number":5,"version":"\#(version)"}"# + "\n"),
        Case(
            arguments: ["get", "k"], request: "GET /kv/k", answer: refused(.notFound), status: .notFound,
            error: "there is no key \"k\""),
        Case(arguments: ["get"], request: "", status: .usage, error: "(see kv get --help)"),
        Case(
            arguments: ["put", "k", "v"], request: "PUT /kv/k", answer: refused(.valueTooLarge), status: .usage,
            error: "the node's own words"),
        Case(
            arguments: ["put", "k", "v", "--if-match", version], request: "PUT /kv/k",
            answer: refused(.preconditionFailed),
            status: .conditionFailed, error: "the node's own words"),
        Case(
            arguments: ["del", "k", "--if-match", "*"], request: "DELETE /kv/k", answer: refused(.preconditionFailed),
            status: .conditionFailed, error: "the node's own words"),
        Case(
            arguments: ["incr", "k"], request: "POST /kv/k?incr=1", answer: refused(.notAnInteger),
            status: .conditionFailed, error: "the node's own words"),
        Case(
            arguments: ["incr", "k", "--json"], request: "POST /kv/k?incr=1", answer: refused(.counterOverflow),
            status: .conditionFailed, error: "the node's own words"),
        Case(
            arguments: ["put", "k", "v", "--ack", "all"], request: "PUT /kv/k?ack=all", answer: refused(.ackTimeout),
            status: .unavailable, output: "\(version)\n", error: "(version \(version))"),
        Case(
            arguments: ["put", "k", "v"], request: "PUT /kv/k", answer: refused(.storageFull), status: .unavailable,
            error: "the node's own words"),
        // No answer: the connection is closed.
        Case(
            arguments: ["incr", "k"], request: "POST /kv/k?incr=1", status: .unavailable,
            error: "it is not known whether"),
        Case(
            arguments: ["put", "k", "v", "--if-absent"], request: "PUT /kv/k", status: .unavailable,
            error: "it is not known whether"),
    ]) func aCommandEndsAsScriptsExpect(_ example: Case) async throws {
        let nodes = try await node(example.request) { example.answer.map { .answer($0) } ?? .close }
        let run = try await run(nodes, example.arguments)
        #expect(run.status == example.status.rawValue, "\(run.errors)")
        #expect(run.text == example.output)
        if let error = example.error {
            #expect(run.errorLines.count == 1)
            #expect(run.errors.hasPrefix("kv: ") && run.errors.contains(error), "\(run.errors)")
        } else {
            #expect(run.errors.isEmpty)
        }
    }

    @Test func nobodyThereIsUnavailable() async throws {
        let port = try DeafPort()
        let run = try await ProgramRun.kv(["get", "k", "--router", "\(port.address)"])
        #expect(run.status == CommandStatus.unavailable.rawValue)
        #expect(run.errorLines.count == 1)
    }

    @Test func aValueComesFromStandardInput() async throws {
        let nodes = try await node("PUT /kv/k") { .answer(Self.made()) }
        #expect(try await run(nodes, ["put", "k", "-"], input: "from\0there\n").status == 0)
        #expect(nodes.nodes[0].requests.last?.body == "from\0there\n")
    }

    @Test func argumentsThatAreNoTextAreRefused() async throws {
        // A shell hands over bytes that Foundation's Process would not.
        let shell = try await ProgramRun.run(
            "/bin/sh", ["-c", "exec \"$0\" get \"$(printf '\\377')\"", try ProgramRun.kvPath()])
        #expect(shell.status == CommandStatus.usage.rawValue)
        #expect(shell.errors.contains("--key-base64"), "\(shell.errors)")
    }

    @Test func jsonOfEveryCommandWithAnAnswerIsOneDocument() async throws {
        let nodes = try await node("") { .close }
        for arguments in [["topology"], ["replica", "list"]] {
            let run = try await run(nodes, arguments + ["--output", "json"])
            #expect(run.status == 0, "\(run.errors)")
            #expect(run.text.filter { $0 == "\n" }.count == 1)
            #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: run.output) }
        }
    }

    @Test(arguments: ["bash", "zsh", "fish"]) func completionScripts(shell: String) async throws {
        let script = try await ProgramRun.kv(["completion", shell])
        #expect(script.status == 0)
        for word in ["failover", "incr", "if-match"] { #expect(script.text.contains(word)) }
        guard shell == "bash" else { return }
        let check = """
            source "$1"; COMP_WORDS=(kv fail) COMP_CWORD=1 COMP_LINE="kv fail" COMP_POINT=7
            _kv kv fail kv; echo "${COMPREPLY[@]}"
            """
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/kv.bash"
        try script.output.write(to: URL(fileURLWithPath: path))
        let completed = try await ProgramRun.run("/bin/bash", ["-c", check, "bash", path])
        #expect(completed.text.contains("failover"), "\(completed.errors)")
    }
}
