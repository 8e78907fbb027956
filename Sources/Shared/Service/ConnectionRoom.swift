import Glibc

/// How many connections a process may take at once, as far as its limit on file descriptors goes.
///
/// Out of descriptors, a server accepts nobody and cannot say so; one that takes fewer connections answers the others 503.
public struct ConnectionRoom: Sendable, Hashable {
    /// Connections that the server is left with whatever the limit is.
    public static let connectionsMin = 16

    public let connectionsMax: Int
    /// One line for the log where that is less than was wanted; nil where it is not.
    public let warning: String?

    /// - Parameters:
    ///   - wanted: connections of clients.
    ///   - reserved: descriptors for everything else: files, connections to others, connections that are being refused.
    ///   - limit: descriptors that the process may have.
    public init(wanted: Int, reserved: Int, limit: Int) {
        let room = max(ConnectionRoom.connectionsMin, limit - reserved)
        connectionsMax = min(wanted, room)
        warning =
            room >= wanted
            ? nil
            : "only \(connectionsMax) connections are taken at once, not \(wanted): the process may have \(limit) file "
                + "descriptors open; allow it \(wanted + reserved) (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
    }

    /// Raises the process's limit as far as it may be raised.
    public init(wanted: Int, reserved: Int) {
        self.init(wanted: wanted, reserved: reserved, limit: ConnectionRoom.raisedLimit())
    }

    /// The limit on file descriptors, after it was raised to the highest that is allowed without privileges.
    private static func raisedLimit() -> Int {
        var limits = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limits) == 0 else { return .max }
        if limits.rlim_cur < limits.rlim_max {
            var raised = limits
            raised.rlim_cur = limits.rlim_max
            if setrlimit(resource, &raised) == 0 { limits = raised }
        }
        return Int(clamping: limits.rlim_cur)
    }
}
