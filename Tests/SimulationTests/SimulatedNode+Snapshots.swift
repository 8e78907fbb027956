import Core
import Wire

@testable import Shard
@testable import StorageNodeService

/// The leader's checkpoints and what a follower receives of one. The bytes of the files carry nothing: what a
/// checkpoint holds is looked up by its id when all of it has come.
extension SimulatedNode.Process {
    /// What an answer about snapshots says.
    enum SnapshotAnswer<Value> {
        case value(Value)
        case refused(KVError)
        case lost
    }

    private func answer<Value>(
        _ reply: (SnapshotAnswer<Value>) -> Void, _ body: (SimulatedReplica) throws(KVError) -> Value
    ) {
        guard let replica else { return reply(.refused(KVError(.unavailable, "no replica"))) }
        do throws(KVError) {
            reply(.value(try body(replica)))
        } catch {
            reply(.refused(error))
        }
    }

    // MARK: Giving

    func openSnapshot(atLeast lsn: UInt64, _ reply: (SnapshotAnswer<SnapshotManifest>) -> Void) {
        answer(reply) { replica throws(KVError) in
            guard case .leader(let term) = replica.role else { throw KVError(.notLeader, "this node follows") }
            guard !self.node.isDamaged else { throw KVError(.corrupted, "a block is damaged") }
            let disk = self.node.disk
            let now = self.node.clock.monotonic
            _ = replica.leases.expire(now: now)
            // Whoever gives old ones gives them whatever the follower has.
            let givesOld = self.world.sabotage == .giveOldSnapshots
            if !givesOld { replica.leases.retire(before: term) }
            let first = disk.read { $0.firstRetained <= $0.last.lsn ? $0.firstRetained : nil }
            if case .share(let id) = try replica.leases.open(
                logFirstLsn: first, atLeast: givesOld ? 0 : lsn, committed: replica.commits.committed, now: now),
                let manifest = self.world.checkpoints[id]?.manifest
            {
                return manifest
            }
            let checkpoint = self.makeCheckpoint(term)
            replica.leases.add(id: checkpoint.manifest.id, position: disk.last, now: now)
            return checkpoint.manifest
        }
    }

    private func makeCheckpoint(_ term: UInt64) -> Simulation.Checkpoint {
        let (entries, history) = node.disk.read { ($0.entries, $0.history) }
        let id = "checkpoint-\(world.checkpoints.count)"
        let manifest = SnapshotManifest(
            shard: SimulatedReplica.shard, id: id, leaderTerm: term,
            position: PositionDocument(shard: SimulatedReplica.shard, role: .leader, position: history.end),
            terms: history.starts.map(TermDocument.init),
            files: [
                .init(name: "CURRENT", bytes: 16, crc32c: "00000000"),
                .init(name: "1.sst", bytes: UInt64(40 + entries.count), crc32c: "00000000"),
            ])
        let checkpoint = Simulation.Checkpoint(manifest: manifest, entries: entries)
        world.checkpoints[id] = checkpoint
        return checkpoint
    }

    /// - Returns: bytes that are in the part.
    func readSnapshot(
        id: String, file name: String, offset: UInt64, length: Int, _ reply: (SnapshotAnswer<Int>) -> Void
    ) {
        answer(reply) { replica throws(KVError) in
            guard replica.leases.touch(id: id, now: self.node.clock.monotonic),
                let file = self.world.checkpoints[id]?.manifest.files.first(where: { $0.name == name })
            else { throw KVError(.unknownSnapshot, "there is no snapshot \(id) here any more") }
            return Int(min(UInt64(length), file.bytes - min(offset, file.bytes)))
        }
    }

    func releaseSnapshot(id: String, _ reply: (SnapshotAnswer<Void>) -> Void) {
        answer(reply) { replica throws(KVError) in
            guard replica.leases.release(id: id) != nil else { throw KVError(.unknownSnapshot, "there is none") }
        }
    }

    // MARK: Receiving

    private func own(_ replica: SimulatedReplica) -> SnapshotReception.Own {
        SnapshotReception.Own(history: node.disk.read { $0.history }, newestTerm: replica.core.newestTerm)
    }

    func beginSnapshot(_ manifest: SnapshotManifest, _ reply: (SnapshotAnswer<SnapshotReceipt>) -> Void) {
        answer(reply) { replica throws(KVError) in
            guard !replica.role.isLeader else { throw KVError(.notLeader, "a leader takes no snapshot") }
            let now = self.node.clock.monotonic
            switch try replica.reception.begin(manifest, own: self.own(replica), now: now) {
            case .resume(let receipt): return receipt
            case .start:
                self.node.disk.write { $0.staging = (manifest, manifest.files.map { _ in 0 }) }
                replica.reception.started(manifest, now: now)
                return SnapshotReceipt(id: manifest.id, files: manifest.files.map { .init(name: $0.name, received: 0) })
            }
        }
        if node.disk.read({ $0.isDead }) { node.crash("died beginning a snapshot") }
    }

    func appendSnapshot(
        id: String, file name: String, offset: UInt64, bytes: Int, _ reply: (SnapshotAnswer<SnapshotReceipt>) -> Void
    ) {
        answer(reply) { replica throws(KVError) in
            let now = self.node.clock.monotonic
            let index = try replica.reception.part(of: name, id: id, offset: offset, bytes: bytes, now: now)
            self.node.disk.write { $0.staging?.received[index] += UInt64(bytes) }
            replica.reception.wrote(file: index, bytes: bytes, now: now)
            return SnapshotReceipt(id: id, files: [.init(name: name, received: offset + UInt64(bytes))])
        }
        if node.disk.read({ $0.isDead }) { node.crash("died receiving a snapshot") }
    }

    func discardSnapshot(id: String, _ reply: (SnapshotAnswer<Void>) -> Void) {
        answer(reply) { replica throws(KVError) in
            guard replica.reception.transfer?.manifest.id == id, try replica.reception.discard() else { return }
            self.node.disk.write { $0.staging = nil }
        }
    }

    /// Swaps the checkpoint in: what the replica loses by that is saved first.
    func installSnapshot(id: String, _ reply: @escaping (SnapshotAnswer<LogPosition>) -> Void) {
        guard let replica else { return reply(.refused(KVError(.unavailable, "no replica"))) }
        let manifest: SnapshotManifest
        do throws(KVError) {
            manifest = try replica.reception.install(id: id, own: own(replica))
        } catch {
            return reply(.refused(error))
        }
        change { done in
            guard self.replica === replica, !replica.role.isLeader,
                let checkpoint = self.world.checkpoints[manifest.id]
            else {
                replica.reception.installFailed(damagedFile: nil, now: self.node.clock.monotonic)
                reply(.refused(KVError(.unavailable, "the replica has changed meanwhile")))
                return done()
            }
            self.install(checkpoint, in: replica, reply)
            done()
        }
    }

    private func install(
        _ checkpoint: Simulation.Checkpoint, in replica: SimulatedReplica,
        _ reply: (SnapshotAnswer<LogPosition>) -> Void
    ) {
        // Others have written meanwhile, or not: what counts is what is there now.
        do throws(KVError) {
            try SnapshotReception.check(checkpoint.manifest, against: own(replica))
        } catch {
            replica.reception.installFailed(damagedFile: nil, now: node.clock.monotonic)
            return reply(.refused(error))
        }
        let before = node.disk.read { $0.entries }
        if let manifest = try? SnapshotChecks.history(of: checkpoint.manifest),
            let surplus = node.disk.read({ $0.history }).surplus(over: manifest), world.sabotage != .dropSurplus
        {
            world.ledger.saves(surplus.map { before[Int($0) - 1].position })
        }
        node.disk.write { state in
            state.entries = checkpoint.entries
            state.starts = (try? checkpoint.manifest.history.starts) ?? []
            state.firstRetained = UInt64(checkpoint.entries.count) + 1
            state.staging = nil
        }
        node.isDamaged = false
        world.ledger.rebuilt(node, fromTerm: checkpoint.manifest.leaderTerm)
        self.replica = nil
        guard !node.disk.read({ $0.isDead }) else { return node.crash("died installing a snapshot") }
        openReplica()
        if isAlive { reply(.value(node.disk.last)) }
    }
}
