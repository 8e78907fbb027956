import Observability

/// What the replicator counts.
final class ReplicatorMetrics: Sendable {
    private let fetches: Counter
    private let fetchedBytes: Counter
    private let pushes: Counter
    private let pushedBatches: Counter
    private let pushedBytes: Counter
    private let pushFailures: Counter
    private let pushDuration: Histogram
    private let heartbeats: Counter
    private let ackReports: Counter
    private let ackReportFailures: Counter
    private let snapshotBytes: Counter
    private let snapshotsInstalled: Counter
    private let snapshotFailures: Counter

    init(_ registry: MetricsRegistry) {
        func counter(_ name: String, _ help: String) -> Counter {
            registry.counter("distribkv_replicator_\(name)_total", help: help)
        }
        fetches = counter("fetches", "Answers of leaders that held log batches.")
        fetchedBytes = counter("fetched_bytes", "Bytes of log frames read from leaders.")
        pushes = counter("pushes", "Requests that followers stored.")
        pushedBatches = counter("pushed_batches", "Log batches that followers stored.")
        pushedBytes = counter("pushed_bytes", "Bytes of log frames that followers stored.")
        pushFailures = counter("push_failures", "Requests that followers refused or did not answer.")
        pushDuration = registry.histogram(
            "distribkv_replicator_push_seconds", help: "From sending batches to the follower's answer.")
        heartbeats = counter("heartbeats", "Requests without batches that followers answered.")
        ackReports = counter("ack_reports", "Reports of followers' positions that leaders took.")
        ackReportFailures = counter("ack_report_failures", "Reports that leaders refused or did not answer.")
        snapshotBytes = counter("snapshot_bytes_sent", "Bytes of snapshots that followers took.")
        snapshotsInstalled = counter("snapshots_installed", "Snapshots that followers put in place.")
        snapshotFailures = counter(
            "snapshot_failures", "Requests about snapshots that failed, apart from those that others came before.")
    }

    func fetched(bytes: Int) {
        fetches.increment()
        fetchedBytes.increment(by: UInt64(bytes))
    }

    func pushed(_ push: LogPush, in duration: Duration) {
        guard let segment = push.segment else { return heartbeats.increment() }
        pushes.increment()
        pushedBatches.increment(by: UInt64(segment.frameCount))
        pushedBytes.increment(by: UInt64(segment.byteCount))
        pushDuration.observe(duration)
    }

    func pushFailed() { pushFailures.increment() }

    func reported(isTaken: Bool) { (isTaken ? ackReports : ackReportFailures).increment() }

    func snapshotSent(bytes: Int) { snapshotBytes.increment(by: UInt64(bytes)) }

    func snapshotInstalled() { snapshotsInstalled.increment() }

    func snapshotFailed() { snapshotFailures.increment() }
}
