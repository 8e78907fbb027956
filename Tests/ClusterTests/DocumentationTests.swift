import Core
import FoundationEssentials
import Testing
import Wire

extension ClusterTests {
    /// The examples of the documentation, run: with real curl against a cluster of the shape of `sharding.toml`.
    ///
    /// `DISTRIBKV_UPDATE_EXAMPLES=1` writes the answers that differ into the documents instead of failing.
    @Suite struct Documentation {
        private static let repository = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
        private static let updates = ProcessInfo.processInfo.environment["DISTRIBKV_UPDATE_EXAMPLES"] != nil

        @Test(.timeLimit(.minutes(3)), arguments: ["http-api"])
        func examples(name: String) async throws {
            let path = "\(Self.repository)/docs/\(name).md"
            let document = ExampleDocument(try String(contentsOfFile: path, encoding: .utf8))
            try #require(document.examples.count > 3)
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 2)) { cluster in
                let shell = try ExampleShell(cluster)
                var changed: [Int: String] = [:]
                for (number, example) in document.examples.enumerated() {
                    for directive in example.directives { try await shell.follow(directive) }
                    let answer = try await shell.run(example.command)
                    guard !ExampleDocument.matches(answer, example.answer) else { continue }
                    changed[number] = answer
                    if !Self.updates {
                        Issue.record(
                            "docs/\(name).md:\(example.commandLines.lowerBound + 1): \(example.command)\nis answered:\n\(answer)"
                        )
                    }
                }
                if Self.updates, !changed.isEmpty { try writeFile(path, document.replacing(changed)) }
                let description = try DocumentCoding.decode(
                    APIDescription.self, from: try await HTTP.get(APIPath.openAPI, from: cluster.router).bytes)
                for request in shell.requests { description.expectCovers(request) }
            }
        }
    }
}

/// What of the OpenAPI document is compared with real answers.
private struct APIDescription: Decodable {
    struct Operation: Decodable { var responses: [String: Response] }
    struct Response: Decodable {}
    var paths: [String: [String: Operation]]

    func expectCovers(_ request: ExampleShell.Request) {
        let path = request.path.hasPrefix("/kv/") ? "/kv/{key}" : request.path
        let isRefused = paths[path] == nil ? request.status == "404" : request.status == "405"
        #expect(
            isRefused || paths[path]?[request.method.lowercased()]?.responses[request.status] != nil,
            "openapi.json does not have \(request.method) \(path) answered \(request.status)")
    }
}

/// Runs commands of documents as if the cluster stood where the documents have it.
private final class ExampleShell {
    struct Request {
        let method: String
        let path: String
        let status: String
    }

    private let cluster: TestCluster
    private let directory: String
    private var commands = 0

    init(_ cluster: TestCluster) throws {
        self.cluster = cluster
        directory = "\(cluster.directory)/examples"
        try FileManager.default.createDirectory(atPath: "\(directory)/bin", withIntermediateDirectories: true)
        let places = Self.places(of: cluster)
        let moves = places.map { "--connect-to 127.0.0.1:\($0.documented):\($0.real)" }.joined(separator: " ")
        // Every answer is also noted down, to be compared with the API's description.
        try writeFile(
            "\(directory)/bin/curl",
            """
            #!/bin/sh
            exec /usr/bin/curl -sS \(moves) --write-out '%{stderr}%{method} %{url_effective} %{http_code}\\n' "$@" 2>>"\(directory)/requests"

            """)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: "\(directory)/bin/curl")
        try writeFile("\(directory)/photo.jpg", String(repeating: "not really a photo\n", count: 100))
    }

    private static func places(of cluster: TestCluster) -> [(documented: Int, real: NodeAddress)] {
        [(8080, cluster.router)] + cluster.nodes.enumerated().map { (7001 + $0.offset, $0.element) }
    }

    /// Does `pause PORT` or `resume PORT` with the node that the documents have there.
    func follow(_ directive: String) async throws {
        let words = directive.split(separator: " ")
        let port = try #require(words.count == 2 ? Int(words[1]) : nil, "\(directive): pause or resume PORT")
        let node = try cluster.node(port - 7001)
        switch words[0] {
        case "pause": try await node.freeze()
        case "resume": node.thaw()
        default: Issue.record("\(directive): there is no such directive")
        }
    }

    /// What a terminal would show, with the documents' ports.
    func run(_ command: String) async throws -> String {
        commands += 1
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        let process = try await ChildProcess.start(
            "example-\(commands)", ["/bin/sh", "-c", "cd \(directory) && \(command)"], directory: directory,
            environment: ["PATH": "\(directory)/bin:\(path)"])
        try await process.waitForExit()
        var output = process.output.replacing("\r\n", with: "\n")
        #expect(process.log.isEmpty, "\(command): \(process.log)")
        for place in Self.places(of: cluster) {
            output = output.replacing("\(place.real)", with: "127.0.0.1:\(place.documented)")
        }
        while output.hasSuffix("\n") { output.removeLast() }
        return output
    }

    /// Method, path and status of everything curl was answered.
    var requests: [Request] {
        text(ofFile: "\(directory)/requests").split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count == 3, let path = words[1].wholeMatch(of: /https?:\/\/[^\/]+(\/[^?#]*).*/)?.output.1 else {
                Issue.record("curl: \(line)")
                return nil
            }
            return Request(method: String(words[0]), path: String(path), status: String(words[2]))
        }
    }
}
