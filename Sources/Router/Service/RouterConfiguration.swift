public import Configuration
public import Core
public import Logging
public import NIOCore
import NIOPosix
public import Sharding
import Wire

/// What a router needs to know, each limit with its default.
public struct RouterConfiguration: Sendable {
    /// The topology to start from. A higher epoch that a node knows replaces it.
    public var topology: Topology
    /// Port 0 lets the system choose one.
    public var listen: NodeAddress
    /// How requests about keys are answered where they do not say it themselves (`?proxy=true`, `?proxy=false`).
    public var mode = RouterMode.redirect
    /// What the nodes answer a write by where it does not say it itself.
    public var defaultAck = AckLevel.leader
    public var logger: Logger

    /// From one look at a node's `/readyz` to the next, give or take a fifth.
    public var healthInterval = TimeAmount.milliseconds(500)
    /// A node that has not answered `/readyz` after this has failed once.
    public var healthTimeout = TimeAmount.seconds(1)
    /// From the arrival of a proxied request to its answer, retries and redirects included.
    public var proxyTimeout = TimeAmount.seconds(10)
    /// Proxied requests in flight at once, over all event loops; one more is answered 503.
    public var proxiedRequestsMax = 4_096
    /// The largest value that is passed on, in bytes.
    public var valueBytesMax = Limits.valueBytesMaxDefault
    /// The largest record that a scan hands out, in bytes.
    var scanRecordBytesMax: Int { ScanFrame.bytes(key: Limits.keyBytesMax, value: valueBytesMax) }
    /// Bytes of request bodies held in memory at once.
    public var bufferedBodyBytesMax = 256 << 20
    public var connectionsMax = 12_000
    /// Event loops.
    public var threads = System.coreCount
    /// How long requests in flight may take to end at a shutdown.
    public var shutdownGrace = TimeAmount.seconds(10)

    public init(topology: Topology, listen: NodeAddress, logger: Logger) {
        self.topology = topology
        self.listen = listen
        self.logger = logger
    }
}
