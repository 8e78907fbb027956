import Configuration
import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import Sharding
import Synchronization
import Testing
import Wire

/// A cluster of real processes on addresses and in a directory of its own.
final class TestCluster: Sendable {
    let directory: String
    /// As the topology names them: where a node has a proxy, the proxy's.
    let nodes: [NodeAddress]
    /// Where they listen themselves.
    let listens: [NodeAddress]
    let router: NodeAddress
    let replicator: NodeAddress
    private let state: Mutex<State>

    private struct State {
        var layout: Layout
        var topology: Topology
        var processes: [String: ChildProcess] = [:]
        /// Everything that was ever started, for the report of a failure.
        var names: [String] = []
        /// By node.
        var proxies: [Int: NetworkProxy] = [:]
    }

    private init(layout: Layout, directory: String) throws {
        self.directory = directory
        var addresses = try Loopback.freeAddresses(layout.nodeCount * 2 + 2)
        router = addresses.removeLast()
        replicator = addresses.removeLast()
        let nodes = Array(addresses.prefix(layout.nodeCount))
        self.nodes = nodes
        listens = nodes.indices.map { layout.proxied ? addresses[layout.nodeCount + $0] : nodes[$0] }
        state = Mutex(State(layout: layout, topology: try TestCluster.topology(of: layout, nodes: nodes)))
        try write(layout, to: "sharding.toml")
    }

    /// Runs `body` with a cluster of which nothing runs yet; afterwards everything is stopped and removed.
    static func with(_ layout: Layout, _ body: (TestCluster) async throws -> Void) async throws {
        try await withDirectory { directory in
            let cluster = try TestCluster(layout: layout, directory: directory)
            let failures = Failures.count
            if layout.proxied { try await cluster.startProxies() }
            do {
                try await body(cluster)
            } catch {
                cluster.printLogs()
                await cluster.stopAll()
                throw error
            }
            if Failures.count > failures { cluster.printLogs() }
            await cluster.stopAll()
        }
    }

    /// As ``with(_:_:)``, with all nodes and the named roles running and ready.
    static func running(
        _ layout: Layout, router: Bool = true, replicator: Bool = true,
        _ body: (TestCluster) async throws -> Void
    ) async throws {
        try await with(layout) { cluster in
            try await cluster.startNodes()
            if replicator {
                try await cluster.startReplicator()
                try await cluster.waitUntilNodesAreReady()
            }
            if router { try await cluster.startRouter() }
            try await body(cluster)
        }
    }

    // MARK: Configuration

    var layout: Layout { state.withLock { $0.layout } }
    var topology: Topology { state.withLock { $0.topology } }
    var configPath: String { "\(directory)/sharding.toml" }

    func dataDirectory(_ node: Int) -> String { "\(directory)/n\(node)" }

    /// Replaces sharding.toml; what runs keeps what it read.
    func use(_ layout: Layout) throws {
        let topology = try TestCluster.topology(of: layout, nodes: nodes)
        try write(layout, to: "sharding.toml")
        state.withLock { state in
            state.layout = layout
            state.topology = topology
        }
    }

    /// Another sharding.toml beside the cluster's.
    /// - Returns: its path.
    @discardableResult
    func write(_ layout: Layout, to name: String) throws -> String {
        let path = "\(directory)/\(name)"
        try writeFile(path, layout.toml(nodes: nodes))
        return path
    }

    static func topology(of layout: Layout, nodes: [NodeAddress]) throws -> Topology {
        try ShardingFile(toml: layout.toml(nodes: nodes)).topology()
    }

    /// Makes `topology` the cluster's where it is newer.
    func adopt(_ topology: Topology) {
        state.withLock { if topology.epoch > $0.topology.epoch { $0.topology = topology } }
    }

    func shard(of key: [UInt8]) -> ShardTopology { topology.shard(of: HashSlot(key: key)) }
    func leader(of key: [UInt8]) -> NodeAddress { shard(of: key).leader }

    // MARK: Processes

    static func nodeName(_ node: Int) -> String { "node-\(node)" }

    func process(_ name: String) -> ChildProcess? { state.withLock { $0.processes[name] } }
    func node(_ node: Int) throws -> ChildProcess { try #require(process(TestCluster.nodeName(node))) }

    /// Starts a program under a name of its own; does not wait for anything.
    @discardableResult
    func launch(
        _ name: String, _ program: Program, _ arguments: [String], environment: [String: String] = [:]
    ) async throws -> ChildProcess {
        let process = try await ChildProcess.start(
            name, [program.path] + arguments, directory: directory, environment: environment)
        state.withLock { state in
            state.processes[name] = process
            if !state.names.contains(name) { state.names.append(name) }
        }
        return process
    }

    func nodeArguments(_ node: Int, config: String? = nil) -> [String] {
        ["--config", config ?? configPath] + listenArguments(node)
    }

    func listenArguments(_ node: Int) -> [String] {
        ["--listen", "\(listens[node])", "--data-dir", dataDirectory(node), "--threads", "2"]
            + (listens[node] == nodes[node] ? [] : ["--advertise", "\(nodes[node])"])
    }

    func startNode(_ node: Int, config: String? = nil) async throws {
        let process = try await launch(
            TestCluster.nodeName(node), .storageNode, nodeArguments(node, config: config))
        try await waitUntilAlive(listens[node], process)
    }

    func startNodes() async throws {
        var processes: [ChildProcess] = []
        for node in 0..<(nodes.count - layout.spareNodes) {
            processes.append(try await launch(TestCluster.nodeName(node), .storageNode, nodeArguments(node)))
        }
        for (process, address) in zip(processes, listens) { try await waitUntilAlive(address, process) }
    }

    /// Waits until every node that was started with the cluster serves reads: a new follower does when the replicator
    /// has brought it what its leader has.
    func waitUntilNodesAreReady() async throws {
        for node in 0..<(nodes.count - layout.spareNodes) {
            try await waitUntilReady(listens[node], self.node(node))
        }
    }

    func startRouter(_ name: String = "router", at address: NodeAddress? = nil, config: String? = nil) async throws {
        let address = address ?? router
        let arguments = ["--config", config ?? configPath, "--listen", "\(address)", "--threads", "2"]
        try await waitUntilReady(address, launch(name, .router, arguments))
    }

    func startReplicator(_ name: String = "replicator", at address: NodeAddress? = nil) async throws {
        let address = address ?? replicator
        try await waitUntilReady(
            address, launch(name, .replicator, ["--config", configPath, "--listen", "\(address)"]))
    }

    /// Waits for 200 from `/readyz`; gives up where the process ends.
    func waitUntilReady(_ address: NodeAddress, _ process: ChildProcess) async throws {
        try await wait(for: APIPath.readyz, at: address, process)
    }

    /// As ``waitUntilReady(_:_:)``, from `/healthz`: it answers, but it may have to catch up before it serves reads.
    func waitUntilAlive(_ address: NodeAddress, _ process: ChildProcess) async throws {
        try await wait(for: APIPath.healthz, at: address, process)
    }

    private func wait(for path: String, at address: NodeAddress, _ process: ChildProcess) async throws {
        try await eventually("\(process.name) to answer 200 to \(path)", within: .seconds(120)) {
            if let status = process.exitStatus {
                throw GivenUp(description: "\(process.name) ended (\(status)): \(process.log.suffix(600))")
            }
            return try await HTTP.get(path, from: address).status == 200
        }
    }

    func stopAll() async {
        let processes = state.withLock { Array($0.processes.values) }
        for process in processes {
            process.signal(SIGCONT)
            process.signal(SIGKILL)
        }
        for process in processes {
            do { try await process.waitForExit() } catch { print("\(process.name) does not end: \(error)") }
        }
        for proxy in state.withLock({ Array($0.proxies.values) }) { await proxy.stop() }
    }

    // MARK: Network

    private func startProxies() async throws {
        for (index, (address, target)) in zip(nodes, listens).enumerated() {
            let proxy = try await NetworkProxy.start(at: address, to: target) { [weak self] source, destination in
                let pids = self?.state.withLock { $0.processes.compactMapValues(\.pid) } ?? [:]
                return PeerLookup.name(from: source, to: destination, among: pids)
            }
            state.withLock { $0.proxies[index] = proxy }
        }
    }

    /// What stands before node `node` in a cluster whose layout is proxied.
    func proxy(_ node: Int) throws -> NetworkProxy { try #require(state.withLock { $0.proxies[node] }) }

    /// Cuts node `node` off: nothing of the cluster reaches it and it reaches no other node. The test still does.
    func isolate(_ node: Int, _ fault: NetworkProxy.Fault = .drop) async throws {
        for other in nodes.indices where other != node {
            try await proxy(other).set(fault, from: TestCluster.nodeName(node))
        }
        try await proxy(node).set(fault)
    }

    func healNetwork() async throws {
        for node in nodes.indices { try await proxy(node).heal() }
    }

    /// The address at which the test reaches a node round its proxy.
    func direct(_ node: NodeAddress) -> NodeAddress { nodes.firstIndex(of: node).map { listens[$0] } ?? node }

    func index(of node: NodeAddress) throws -> Int { try #require(nodes.firstIndex(of: node)) }

    private func printLogs() {
        let names = state.withLock { $0.names }
        for name in names {
            let lines = text(ofFile: "\(directory)/\(name).log").split(separator: "\n")
            print("──── \(name): the last of \(lines.count) log lines ────")
            for line in lines.suffix(25) { print(line) }
        }
    }
}

/// How many expectations failed, so that a cluster knows when its logs are wanted.
enum Failures {
    private static let counter = Atomic<Int>(0)
    static var count: Int { counter.load(ordering: .relaxed) }
    static func note() { counter.add(1, ordering: .relaxed) }
}

func writeFile(_ path: String, _ text: String) throws {
    try Data(text.utf8).write(to: URL(filePath: path), options: .atomic)
}

/// All tests with real processes: one at a time, they are many processes each.
@Suite(
    .serialized,
    .compactMapIssues { issue in
        Failures.note()
        return issue
    })
enum ClusterTests {}
