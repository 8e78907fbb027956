import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// How requests reach other nodes; ``NodeConnections`` in earnest, a script in tests.
protocol PeerTransport: Sendable {
    /// Throws ``NodeFailure``. Bounded by `deadline`, not by cancellation.
    func execute(_ request: NodeRequest, to address: NodeAddress, deadline: NIODeadline) async throws -> NodeResponse
}

extension NodeConnections: PeerTransport {}

extension NodeConnectionsConfiguration {
    /// A few small requests at a time, and topologies; one of a thousand shards has a few MiB.
    static var peers: NodeConnectionsConfiguration {
        var peers = NodeConnectionsConfiguration()
        peers.connectionsPerNodeMax = 2
        peers.waitersPerNodeMax = 64
        peers.responseBodyBytesMax = 32 << 20
        peers.connectTimeout = .seconds(1)
        return peers
    }

    /// Parts of batches, and their answers.
    static func batches(valueBytesMax: Int) -> NodeConnectionsConfiguration {
        var batches = NodeConnectionsConfiguration()
        batches.connectionsPerNodeMax = 8
        batches.waitersPerNodeMax = 256
        // The values, escaped at the worst, and the rest of each line.
        batches.responseBodyBytesMax =
            2 * Limits.batchBytesMax(valueBytesMax: valueBytesMax) + Limits.batchOperationsMax * 512
        batches.connectTimeout = .seconds(1)
        return batches
    }

    /// Pages of scans: a few at a time.
    static func scans(recordBytesMax: Int) -> NodeConnectionsConfiguration {
        var scans = NodeConnectionsConfiguration()
        scans.connectionsPerNodeMax = 4
        scans.waitersPerNodeMax = 64
        scans.responseBodyBytesMax = max(recordBytesMax, 2 * ScanPaging.bytesMaxDefault)
        return scans
    }
}
