import ArgumentParser
import Core
import DistribKVClient
import Glibc
import NIOCore

/// How a command finds the cluster.
struct ClusterOptions: ParsableArguments {
    private static let variable = "DISTRIBKV_ROUTER"
    private static let standard = "http://127.0.0.1:8080"

    @Option(
        help: ArgumentHelp(
            "A router or node, or several: http://host:port or host:port, comma-separated.",
            discussion: "(default: $DISTRIBKV_ROUTER, else http://127.0.0.1:8080)", valueName: "url"))
    var router: String?

    @Option(
        help: ArgumentHelp(
            "After how long a request is given up: 500ms, 5s, or a number of seconds.",
            discussion: "(default: 10s; 30s for an import)", valueName: "duration"),
        transform: FlagText.timeout)
    var timeout: TimeAmount?

    func requestTimeout(default seconds: Int64) -> TimeAmount { timeout ?? .seconds(seconds) }

    /// Throws `KVError(.invalidArgument)` where what was given is no list of addresses.
    func seeds() throws(KVError) -> [NodeAddress] {
        try SeedList.parse(router ?? getenv(Self.variable).map { String(cString: $0) } ?? Self.standard)
    }

    /// Runs `body` with a client and shuts the client down whatever happens.
    func withClient<Result>(
        _ configure: (inout KVClientConfiguration) -> Void = { _ in }, _ body: (KVClient) async throws -> Result
    ) async throws -> Result {
        var configuration = KVClientConfiguration()
        configuration.requestTimeout = requestTimeout(default: 10)
        // Somebody is waiting at a prompt: about a second in all.
        configuration.attemptsMax = 6
        configure(&configuration)
        let client = KVClient(seeds: try seeds(), configuration: configuration)
        do {
            let result = try await body(client)
            await client.shutdown()
            return result
        } catch {
            await client.shutdown()
            throw error
        }
    }
}
