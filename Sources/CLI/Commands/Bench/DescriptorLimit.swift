import Glibc

/// How many files and sockets this process may have open.
enum DescriptorLimit {
    /// Raises the limit as far as it goes without privileges.
    ///
    /// Throws `CommandFailure` where that is below `count`.
    static func require(_ count: Int) throws(CommandFailure) {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < rlim_t(count) else { return }
        limit.rlim_cur = min(limit.rlim_max, max(limit.rlim_cur, rlim_t(count)))
        guard setrlimit(resource, &limit) == 0, limit.rlim_cur >= rlim_t(count) else {
            throw CommandFailure(
                status: .usage,
                message:
                    "so many connections may need \(count) file descriptors, and \(limit.rlim_cur) are allowed: raise the "
                    + "limit (ulimit -n) or give fewer --connections")
        }
    }
}
