public import Core

/// What a run does.
public struct LoadSettings: Sendable {
    /// How requests find the node that serves them.
    public enum Via: String, CaseIterable, Sendable {
        /// By the topology, as the client library does.
        case direct
        /// By asking a router each time and following its redirect.
        case router
        /// Through a router, which asks the node.
        case proxy
    }

    /// Which replica is read, where requests find it by the topology.
    public enum ReadFrom: String, CaseIterable, Sendable {
        case leader
        /// All replicas of the shard, in turn.
        case any
    }

    public var workload: Workload
    /// In place of the workload's own.
    public var keys: KeyDistribution?
    /// Keys that exist, by their numbers: 0..<records.
    public var records: UInt64
    public var names = KeyNames()
    public var valueSize = ValueSize.fixed(100)
    /// Clients, each with one operation, or ``pipelineDepth`` of them, under way, and a connection to each node it needs.
    public var connections = 32
    public var pipelineDepth = 1
    /// Each with an event loop of its own; the clients are divided among them.
    public var threads = 1
    /// Operations per second, begun whatever became of those before; nil begins one when one has ended.
    public var rate: Double?
    /// Nanoseconds, without the warm-up; nil where ``operations`` ends the run.
    public var duration: UInt64?
    /// Operations in all, warm-up included; nil where ``duration`` ends the run.
    public var operations: UInt64?
    /// Nanoseconds at the beginning that are not measured.
    public var warmUp: UInt64 = 0
    public var via = Via.direct
    public var readFrom = ReadFrom.leader
    /// Routers, or nodes with ``Via/direct``: at least one. Clients take them in turn.
    public var seeds: [NodeAddress]
    public var ack: AckLevel?
    /// Milliseconds that acknowledgements may take; nil leaves it to the cluster.
    public var ackTimeout: UInt64?
    /// Reads are answered by leaders only.
    public var isConsistent = false
    /// Nanoseconds after which an operation is given up, also one that is due in an open loop and not begun.
    public var timeout: UInt64 = 10_000_000_000
    /// Values say whose they are, and every read is checked.
    public var isVerified = false
    public var seed: UInt64

    public static let connectionsMax = 10_000
    public static let pipelineDepthMax = 128
    public static let threadsMax = 64
    public static let recordsMax: UInt64 = 1 << 28
    /// Keys that a run may insert; later inserts are updates.
    public static let insertsMax: UInt64 = 1 << 24
    /// Nanoseconds: a day.
    public static let durationMax: UInt64 = 86_400_000_000_000
    public static let scanRecordsMax = 100

    public init(workload: Workload, records: UInt64, seeds: [NodeAddress], seed: UInt64) {
        self.workload = workload
        self.records = records
        self.seeds = seeds
        self.seed = seed
    }

    /// Sockets that a run may need: each client has one to each node.
    public func descriptors(nodes: Int) -> Int { connections * max(1, nodes) + 64 }

    /// Reads may be answered by followers, which may be behind: what is stale is counted, and no fault.
    public var mayBeStale: Bool { !isConsistent && (via != .direct || readFrom == .any) }

    /// What stands behind the path of a read, a scan and a write.
    var readQuery: String { query([isConsistent ? "consistency=leader" : nil, proxyParameter]) }
    var writeQuery: String {
        query([ack.map { "ack=\($0)" }, ackTimeout.map { "timeout=\($0)ms" }, proxyParameter])
    }
    var scanQuery: String { query([isConsistent ? "consistency=leader" : nil]) }

    private var proxyParameter: String? { via == .proxy ? "proxy=true" : nil }

    private func query(_ parameters: [String?]) -> String {
        let given = parameters.compactMap { $0 }
        return given.isEmpty ? "" : "?" + given.joined(separator: "&")
    }
}

extension LoadSettings {
    /// Bytes of the shortest value that can say whose it is.
    public static let verifiedBytesMin = ValueWriter.headerBytes

    /// Whether `value` is one that a verified run wrote under the key of this number.
    public static func isVerifiable(_ value: some Sequence<UInt8>, key: UInt64) -> Bool {
        var reader = ValueReader()
        Array(value).withUnsafeBytes { reader.update($0) }
        return reader.origin?.key == key
    }
}
