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

    public var readPreference = ReadPreference.leader
    /// From the call to its end, attempts and waits included.
    public var requestTimeout = TimeAmount.seconds(10)
    /// How long one replica may take to answer a read before another one is asked.
    public var readAttemptTimeout = TimeAmount.seconds(2)
    /// Attempts per request; at least 1. Only what is safe to repeat is tried again.
    public var attemptsMax = 12
    /// Redirects followed in one attempt.
    public var redirectsMax = Limits.redirectsMax
    /// The wait before the second attempt; it doubles from attempt to attempt, half of it is random.
    public var backoffMin = TimeAmount.milliseconds(20)
    public var backoffMax = TimeAmount.seconds(1)
    /// How long one seed or node may take to answer with the topology before the next is asked.
    public var topologyTimeout = TimeAmount.seconds(2)
    /// Refreshes of the topology closer together than this are one.
    public var topologyIntervalMin = TimeAmount.milliseconds(50)
    /// Writes of one ``KVClient/putAll(_:)`` that are under way at once.
    public var batchInFlightMax = 512
    public var connections = NodeConnectionsConfiguration()

    public init() {}
}
