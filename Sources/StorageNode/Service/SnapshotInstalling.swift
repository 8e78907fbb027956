import Core
import Logging
import NIOCore
import Observability
import Shard
import Synchronization
import Wire

extension Node {
    /// How often, and how far apart, a replica is tried to be opened again while a request still holds the old one.
    private static let reopensMax = 60
    private static let reopenInterval = Duration.milliseconds(500)

    /// Puts a verified snapshot in the place of `replica` and serves the new one. Where that fails the old one is
    /// served again.
    ///
    /// Throws what ``ShardReplica/installSnapshot(_:isDiverged:)`` throws, and `KVError(.unavailable)` where another change of
    /// the replica came first.
    func install(
        _ manifest: SnapshotManifest, in replica: any RebuildableReplica, isDiverged: Bool
    ) async throws -> PositionDocument {
        let name = replica.configuration.name
        let outcome = Mutex<Result<(SnapshotInstallation, LogPosition), KVError>?>(nil)
        try await replaceReplica(ofShard: name, because: .installing) { old, reopen in
            guard old === replica, (old as? ShardReplica)?.role.isLeader != true else {
                replica.cancelInstall()
                let changed = KVError(.unavailable, "the replica of \(name) changed meanwhile; look where it is now")
                guard let old = old as? ShardReplica else { throw changed }
                outcome.withLock { $0 = .failure(changed) }
                return old
            }
            let installed: Result<SnapshotInstallation, KVError>
            do throws(KVError) {
                installed = .success(try await old.installSnapshot(manifest, isDiverged: isDiverged))
            } catch {
                // It does not open any better than before.
                if old is AbsentReplica { throw error }
                installed = .failure(error)
            }
            let new = try await Node.patiently(reopen)
            // It is the database that it was.
            if case .failure = installed, let damage = (old as? ShardReplica)?.damage { new.note(damage: damage) }
            outcome.withLock { $0 = installed.map { ($0, new.position) } }
            return new
        }
        switch outcome.withLock({ $0 }) {
        case .success((let installation, let position)):
            note(installation, name)
            return PositionDocument(shard: name, role: .follower, position: position)
        case .failure(let error):
            logger.error("snapshot not installed", metadata: ["shard": "\(name)", "reason": "\(error)"])
            throw error
        case nil:
            throw KVError(.internalError, "the installation of a snapshot of \(name) has no outcome")
        }
    }

    /// A request that is still at work keeps the old database open, and so locked, until it ends.
    private static func patiently(_ reopen: @Sendable () async throws -> ShardReplica) async throws -> ShardReplica {
        for _ in 0..<reopensMax {
            do {
                return try await reopen()
            } catch let error as KVError where error.code == .locked {
                try await Task.sleep(for: reopenInterval)
            }
        }
        return try await reopen()
    }

    private func note(_ installation: SnapshotInstallation, _ name: String) {
        metrics.snapshotsInstalled.increment()
        logger.notice(
            "snapshot installed",
            metadata: [
                "shard": "\(name)", "id": "\(installation.manifest.id)", "lsn": "\(installation.manifest.position.lsn)",
                "replaced_lsn": "\(installation.replaced.lsn)", "bytes": "\(installation.manifest.bytesTotal)",
            ])
        if let folder = installation.setAside {
            logger.warning(
                "the damaged database is kept, as it may hold writes that are nowhere else: look at it and remove it",
                metadata: ["shard": "\(name)", "folder": "\(folder)"])
        }
        guard let diverged = installation.diverged else { return }
        metrics.divergedWritesSaved.increment(by: UInt64(diverged.writes))
        logger.warning(
            "writes that the shard's history has not were saved to a file; kv import puts them back",
            metadata: [
                "shard": "\(name)", "file": "\(diverged.file)", "lsns": "\(diverged.firstLsn)-\(diverged.lastLsn)",
                "writes": "\(diverged.writes)", "complete": "\(diverged.isComplete)",
            ])
    }

    /// How often checkpoints that nobody uses are looked for.
    private static let expiryInterval = TimeAmount.seconds(5)

    /// Frees the checkpoints that nobody uses any more, every few seconds until it is cancelled.
    func scheduleTidying(on eventLoop: any EventLoop) -> RepeatedTask {
        eventLoop.scheduleRepeatedAsyncTask(initialDelay: Node.expiryInterval, delay: Node.expiryInterval) { _ in
            let done = self.snapshotWork.run(on: eventLoop) {
                for replica in self.view.openReplicas.values { replica.tidySnapshots() }
                self.keeper.absent.tidy()
            }
            // Where the threads are busy, the next round comes soon enough; a failure would end the rounds.
            return done.recover { _ in }
        }
    }
}
