import Core
import DistribKVClient
import NIOCore

/// How requests reach nodes; ``NodeConnections`` in earnest, a script in tests.
protocol NodeTransport: Sendable {
    /// Fails with ``NodeFailure``. Completes on `eventLoop`.
    func execute(
        _ request: NodeRequest, to address: NodeAddress, on eventLoop: any EventLoop, deadline: NIODeadline
    ) -> EventLoopFuture<NodeResponse>
}

extension NodeConnections: NodeTransport {}

extension Error {
    /// What to show of a failed request to a node: one line.
    var reason: String { (self as? NodeFailure)?.error.description ?? "\(self)" }
}
