import Core
import NIOCore
import Wire

@testable import ReplicatorService

/// The checkpoints of a leader, with the rules of docs/snapshots.md.
struct SimulatedCheckpoints {
    struct Checkpoint {
        let manifest: SnapshotManifest
        let history: [LogPosition]
        var users = 1
        var lastUsed: Duration
    }

    var all: [Checkpoint] = []
    var isMaking = false
    var madeCount = 0
    /// Every one there ever was: what is in the files can be told from the id.
    var histories: [String: [LogPosition]] = [:]

    mutating func expire(now: Duration) { all.removeAll { now >= $0.lastUsed + .seconds(60) } }

    /// Bytes of a file are a function of its place: a part at the wrong place is found out.
    static func bytes(_ id: String, _ file: String, _ range: Range<UInt64>) -> [UInt8] {
        let seed = (id + file).utf8.reduce(UInt64(17)) { $0 &* 31 &+ UInt64($1) }
        return range.map { UInt8(truncatingIfNeeded: (seed &+ $0) &* 0x9E37_79B9_7F4A_7C15 >> 32) }
    }
}

/// The snapshot that a follower receives; everything but the files is lost in a restart.
struct SimulatedReception {
    var manifest: SnapshotManifest?
    var files: [String: [UInt8]] = [:]
    var lastActive: Duration?
    var isInstalling = false
    var newestTerm: UInt64 = 0
    var installedCount = 0
    /// Bytes taken, of parts that came again as well.
    var bytesTaken = 0
    /// Installed although what is there is not what the leader has.
    var wrongInstalls = 0

    var receipt: SnapshotReceipt {
        SnapshotReceipt(
            id: manifest?.id ?? "",
            files: manifest?.files.map { .init(name: $0.name, received: UInt64(files[$0.name]?.count ?? 0)) } ?? [])
    }

    mutating func restart() {
        lastActive = nil
        isInstalling = false
    }
}

extension ReplicationSimulation {
    func perform(_ action: SnapshotTransfer.Action, _ index: Int, _ who: Int) {
        func event(_ event: SnapshotTransfer.Event) -> ShardReplication.Event { .follower(index, .snapshot(event)) }
        switch action {
        case .notice(let notice): note(notice)
        case .awaitTurn: wait(.zero, who, event(.turn(nil)))
        case .waitToRetry(let duration): wait(duration, who, event(.retryTimerFired))
        case .waitToTouch(let duration): wait(duration, who, event(.touchTimerFired))
        case .probe: probe(index, who) { event(.probed($0)) }
        case .open(let lsn):
            exchange(
                timeout: limits.snapshotWorkTimeout, failed: .failed("timed out"), who,
                { self.openSnapshot(atLeast: lsn, $0) }, { event(.opened($0)) })
        case .fetch(let range):
            exchange(
                timeout: limits.pushTimeout, failed: .failed("timed out"), who, { $0(self.part(range)) },
                { event(.fetched(range, $0)) })
        case .release(let id):
            exchange(
                timeout: limits.answerTimeout, failed: (), who, { self.release(id, $0) }, { _ in event(.released) })
        case .offer(let manifest):
            exchange(
                timeout: limits.pushTimeout, failed: .failed("timed out"), who,
                { reply in self.serve(index, .failed("refused"), reply) { self.offer(manifest, $0) } },
                { event(.offered($0)) })
        case .send(let chunk):
            exchange(
                timeout: limits.pushTimeout, failed: .failed("timed out"), who,
                { reply in self.serve(index, .failed("refused"), reply) { self.take(chunk, $0) } },
                { event(.sent(chunk.range, $0)) })
        case .install(let manifest, _):
            exchange(
                timeout: limits.snapshotWorkTimeout, failed: .failed("timed out"), who,
                { self.install(manifest.id, index, $0) }, { event(.installed($0)) })
        case .discard(let id):
            exchange(
                timeout: limits.answerTimeout, failed: (), who,
                { reply in
                    let follower = self.followers[index]
                    if follower.isUp, follower.reception.manifest?.id == id { follower.reception.manifest = nil }
                    reply(())
                }, { _ in event(.released) })
        }
    }

    // MARK: the leader

    private func openSnapshot(atLeast lsn: UInt64, _ reply: @escaping (SnapshotOpening) -> Void) {
        guard leader.isUp else { return reply(.failed("refused")) }
        openCount += 1
        guard !leader.isDamaged else { return reply(.damaged("a block of the leader")) }
        leader.checkpoints.expire(now: now)
        if let index = leader.checkpoints.all.lastIndex(where: {
            leader.firstRetained <= UInt64($0.history.count) + 1
                && $0.history.count >= min(lsn, leader.last.lsn)
        }) {
            leader.checkpoints.all[index].users += 1
            leader.checkpoints.all[index].lastUsed = now
            return reply(.opened(leader.checkpoints.all[index].manifest))
        }
        guard !leader.checkpoints.isMaking, leader.checkpoints.all.count < 2 else {
            return reply(.failed("overloaded"))
        }
        leader.checkpoints.isMaking = true
        let restarts = leader.restarts
        schedule(after: .milliseconds(Int64(random.next() % 20))) {
            guard self.leader.restarts == restarts, self.leader.isUp else { return reply(.failed("reset")) }
            self.leader.checkpoints.isMaking = false
            self.leader.checkpoints.madeCount += 1
            let history = self.leader.frames.map(\.position)
            let position = PositionDocument(shard: "shard-0", role: .leader, position: history.last ?? .start)
            var files = (0...(self.random.next() % 4)).map {
                SnapshotManifest.File(name: "\($0).sst", bytes: 250 + self.random.next() % 800, crc32c: "00000000")
            }
            files.append(.init(name: "empty", bytes: 0, crc32c: "00000000"))
            files.append(.init(name: "CURRENT", bytes: 16, crc32c: "00000000"))
            let manifest = SnapshotManifest(
                shard: "shard-0", id: "s\(self.leader.checkpoints.madeCount)", leaderTerm: self.leader.term,
                position: position, terms: [], files: files)
            self.leader.checkpoints.histories[manifest.id] = history
            self.leader.checkpoints.all.append(.init(manifest: manifest, history: history, lastUsed: self.now))
            reply(.opened(manifest))
        }
    }

    private func part(_ range: SnapshotRange) -> SnapshotFetching {
        guard leader.isUp else { return .failed("refused") }
        leader.checkpoints.expire(now: now)
        guard let index = leader.checkpoints.all.firstIndex(where: { $0.manifest.id == range.id }) else {
            return .gone("unknown snapshot")
        }
        leader.checkpoints.all[index].lastUsed = now
        if chance(faults.corruptPercent) { return .failed("corrupt") }
        let bytes = SimulatedCheckpoints.bytes(range.id, range.file, range.offset..<range.end)
        return .chunk(SnapshotChunk(range: range, bytes: ByteBuffer(bytes: bytes), checksum: "00000000"))
    }

    private func release(_ id: String, _ reply: (()) -> Void) {
        if leader.isUp, let index = leader.checkpoints.all.firstIndex(where: { $0.manifest.id == id }) {
            leader.checkpoints.all[index].users -= 1
            if leader.checkpoints.all[index].users == 0 { leader.checkpoints.all.remove(at: index) }
        }
        reply(())
    }

    // MARK: the follower

    private func serve<Outcome>(
        _ index: Int, _ refused: Outcome, _ reply: (Outcome) -> Void, _ answer: (Follower) -> Outcome
    ) {
        let follower = followers[index]
        guard follower.isUp else { return reply(refused) }
        guard !follower.isSilent else { return }
        reply(answer(follower))
    }

    private func isOfUse(_ manifest: SnapshotManifest, _ follower: Follower) -> Bool {
        guard manifest.leaderTerm >= follower.reception.newestTerm,
            let history = leader.checkpoints.histories[manifest.id]
        else { return false }
        return !(follower.applied.count > history.count && follower.applied.starts(with: history))
    }

    private func offer(_ manifest: SnapshotManifest, _ follower: Follower) -> SnapshotOffering {
        guard isOfUse(manifest, follower) else { return .useless("it has more") }
        let current = follower.reception
        if current.manifest == manifest, !current.isInstalling {
            follower.reception.lastActive = now
            return .receipt(current.receipt)
        }
        if current.isInstalling { return .busy("installing") }
        if current.manifest != nil, let last = current.lastActive, now < last + .seconds(10) {
            return .busy("another one")
        }
        follower.reception.newestTerm = manifest.leaderTerm
        follower.reception.manifest = manifest
        follower.reception.files = [:]
        follower.reception.lastActive = now
        return .receipt(follower.reception.receipt)
    }

    private func take(_ chunk: SnapshotChunk, _ follower: Follower) -> SnapshotSending {
        guard follower.reception.manifest?.id == chunk.range.id else { return .failed("unknown snapshot") }
        guard !follower.reception.isInstalling else { return .overtaken("installing") }
        var file = follower.reception.files[chunk.range.file] ?? []
        guard UInt64(file.count) == chunk.range.offset else { return .overtaken("goes on at \(file.count)") }
        file += chunk.bytes.readableBytesView
        follower.reception.files[chunk.range.file] = file
        follower.reception.lastActive = now
        follower.reception.bytesTaken += chunk.range.length
        return .taken(UInt64(file.count))
    }

    /// Takes a while, in which the follower may die: it then has what it had, or what the snapshot holds.
    private func install(_ id: String, _ index: Int, _ reply: @escaping (SnapshotInstalling) -> Void) {
        let follower = followers[index]
        guard follower.isUp, !follower.isSilent else { return reply(.failed("refused")) }
        guard let manifest = follower.reception.manifest, manifest.id == id else {
            return reply(.failed("unknown snapshot"))
        }
        guard !follower.reception.isInstalling else { return reply(.busy("installing")) }
        guard isOfUse(manifest, follower) else { return reply(.incomplete("it has more")) }
        for file in manifest.files where UInt64(follower.reception.files[file.name]?.count ?? 0) < file.bytes {
            return reply(.incomplete("\(file.name) is not complete"))
        }
        if chance(faults.corruptPercent), let file = manifest.files.first {
            follower.reception.files[file.name] = nil
            return reply(.incomplete("\(file.name) is damaged"))
        }
        follower.reception.isInstalling = true
        let restarts = follower.restarts
        schedule(after: .milliseconds(Int64(random.next() % 50))) {
            guard follower.restarts == restarts, follower.isUp else { return reply(.failed("reset")) }
            self.finishInstall(manifest, follower)
            reply(.installed(follower.position))
        }
    }

    func finishInstall(_ manifest: SnapshotManifest, _ follower: Follower) {
        for file in manifest.files {
            let expected = SimulatedCheckpoints.bytes(manifest.id, file.name, 0..<file.bytes)
            if follower.reception.files[file.name] ?? [] != expected { follower.reception.wrongInstalls += 1 }
        }
        follower.damage = nil
        follower.isStopped = false
        follower.applied = leader.checkpoints.histories[manifest.id] ?? []
        follower.appliedEver.formUnion(follower.applied)
        follower.reception.manifest = nil
        follower.reception.files = [:]
        follower.reception.isInstalling = false
        follower.reception.installedCount += 1
    }
}
