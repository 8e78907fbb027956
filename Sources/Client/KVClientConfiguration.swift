import Core
public import NIOCore

/// How a ``KVClient`` routes, waits and tries again.
public struct KVClientConfiguration: Sendable {
    /// Which replica a read asks first. Any other follows where that one fails.
    public enum ReadPreference: Sendable, Hashable {
        /// The leader: it has every write that was answered.
        case leader
        /// Any replica, evenly: followers may be behind.
        case spread
    }

    /// What a read has to include of what this client did before it.
    public enum Session: Sendable, Hashable {
        case none
        /// Everything that this client has written to the shard, and every value it has read there: its reads carry
        /// the newest version it has seen of the shard, so also a follower answers only where it has that one.
        case readYourWrites
    }

    public var readPreference = ReadPreference.leader
    public var session = Session.readYourWrites
    /// From the call to its end, attempts and waits included.
    public var requestTimeout = TimeAmount.seconds(10)
    /// How long one replica may take to answer a read before another one is asked.
    public var readAttemptTimeout = TimeAmount.seconds(2)
    /// How long the leader may take to answer a write before the topology is asked for another one and the write is
    /// sent again; acknowledgements asked for with a request come on top, and those the cluster is configured for have to
    /// fit in.
    public var writeAttemptTimeout = TimeAmount.seconds(6)
    /// Requests under way at once, whatever they wait for; one more fails with `overloaded`.
    public var requestsInFlightMax = 65_536
    /// Attempts per request; at least 1. Only what is safe to repeat is tried again.
    public var attemptsMax = 12
    /// Redirects followed in one attempt.
    public var redirectsMax = Limits.redirectsMax
    /// The wait before the second attempt; it doubles from attempt to attempt, half of it is random.
    public var backoffMin = TimeAmount.milliseconds(20)
    public var backoffMax = TimeAmount.seconds(1)
    /// How long one seed or node may take to answer with the topology before the next is asked.
    public var topologyTimeout = TimeAmount.seconds(2)
    /// Where several nodes are asked whether they know a newer topology: how long the others have once one has answered.
    public var topologySearchPatience = TimeAmount.milliseconds(500)
    /// Refreshes of the topology closer together than this are one.
    public var topologyIntervalMin = TimeAmount.milliseconds(50)
    /// Bytes of a page of one shard that a scan asks for; two of each shard are held.
    public var scanPageBytes = 1 << 20
    /// Answers of batches can be larger than the largest value.
    public var connections: NodeConnectionsConfiguration = {
        var connections = NodeConnectionsConfiguration()
        connections.responseBodyBytesMax = 3 * Limits.batchBytesMax(valueBytesMax: Limits.valueBytesMaxDefault)
        return connections
    }()

    public init() {}
}
