import Core
import LSM
import Logging
import Synchronization
public import Wire

/// Scrubs of one replica: passes over everything it has on the disk, so that damage is found while another replica still has what
/// is damaged here. One at a time, on a thread of its own. Thread-safe.
///
/// Invariant: only the pass that `state` names changes the document.
final class ShardScrub: Sendable {
    private struct State {
        var record: ScrubRecord
        /// The one that runs.
        var pass: ScrubPass?
        var since: UInt64 = 0
        var savedAt: UInt64 = 0
        var isClosed = false
    }

    /// From one note of a slow pass's position to the next.
    private static let saveMilliseconds: UInt64 = 10_000
    /// Log that is read without a pause.
    private static let logBytesAtOnce = 256 << 10

    private let configuration: ShardConfiguration
    private let database: Database
    private let clock: ShardClock
    private let logger: Logger
    private let state: Mutex<State>

    init(_ configuration: ShardConfiguration, database: Database, clock: ShardClock, logger: Logger) {
        self.configuration = configuration
        self.database = database
        self.clock = clock
        self.logger = logger
        state = Mutex(
            State(record: ScrubRecord.load(directory: configuration.directory, shard: configuration.name)))
    }

    /// The one that runs or the last one.
    var document: ScrubDocument {
        let now = clock.monotonicMilliseconds()
        return state.withLock { state in
            var document = state.record.document
            if let pass = state.pass {
                document.milliseconds = now - min(now, state.since)
                document.bytesDone = min(document.bytesDone + pass.bytesOfFile, document.bytesTotal)
            }
            return document
        }
    }

    // MARK: Beginning and ending

    /// Begins a pass, as fast as the disk is, unless one such runs. A slow one gives way.
    /// - Parameter found: called for each damaged file, on the pass's thread.
    func start(_ found: @escaping @Sendable (KVError) -> Void) -> ScrubDocument {
        let pass = state.withLock { state in
            state.pass.map { $0.bytesPerSecond == nil } == true ? nil : begin(bytesPerSecond: nil, &state)
        }
        if let pass { DedicatedThread.start { self.run(pass, found) } }
        return document
    }

    /// Runs a slow pass, from where the last one was interrupted; returns when it is over. False if it was not: another
    /// runs, the task was cancelled, or the replica is closed.
    func runSlowly(
        bytesPerSecond: Int, _ found: @escaping @Sendable (KVError) -> Void
    ) async -> Bool {
        let pass = state.withLock { $0.pass == nil ? begin(bytesPerSecond: bytesPerSecond, &$0) : nil }
        guard let pass else { return false }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                DedicatedThread.start {
                    TableCheck.becomeIdle()
                    continuation.resume(returning: self.run(pass, found))
                }
            }
        } onCancel: {
            pass.end()
        }
    }

    private func begin(bytesPerSecond: Int?, _ state: inout State) -> ScrubPass? {
        guard !state.isClosed else { return nil }
        state.pass?.end()
        let before = state.record.document
        state.record.document = ScrubDocument(shard: before.shard, number: before.number + 1, isRunning: true)
        state.record.document.lastWholeMilliseconds = before.lastWholeMilliseconds
        state.since = clock.monotonicMilliseconds()
        state.savedAt = state.since
        state.pass = ScrubPass(number: before.number + 1, bytesPerSecond: bytesPerSecond)
        return state.pass
    }

    /// Ends the pass that runs, and begins no other.
    func close() {
        state.withLock { state in
            state.isClosed = true
            state.pass?.end()
        }
    }

    /// A follower at the same position was found to have another content, or, with nil, the same.
    func note(difference: String?) {
        let record = state.withLock { state in
            state.record.document.difference = difference
            return state.record
        }
        save(record)
    }

    // MARK: A pass

    /// Whether everything was read. Blocks, possibly for days.
    @discardableResult private func run(_ pass: ScrubPass, _ found: (KVError) -> Void) -> Bool {
        do throws(KVError) {
            let identity = try DurableFile.read("\(database.path)/IDENTITY")
            var tables = try database.liveTables()
            if pass.bytesPerSecond != nil { tables = fromWhereItWas(in: tables, of: identity) }
            update(pass) { $0.document.bytesTotal = tables.reduce(0) { $0 + $1.bytes } }
            try check(tables, pass, found)
            try checkLogs(pass, found)
            checkSmallFiles(pass, found)
            end(pass, failure: nil)
            return true
        } catch {
            end(pass, failure: error)
            return false
        }
    }

    private func fromWhereItWas(in tables: [Database.Table], of identity: String?) -> [Database.Table] {
        state.withLock { state in
            if state.record.database != identity { (state.record.database, state.record.tableNumber) = (identity, 0) }
            return tables.filter { $0.number > state.record.tableNumber }
        }
    }

    /// Throws `KVError`: `.unavailable` where the pass is to end, `.storageFailed`.
    private func check(_ tables: [Database.Table], _ pass: ScrubPass, _ found: (KVError) -> Void) throws(KVError) {
        for table in tables {
            pass.beginFile()
            do throws(KVError) {
                try TableCheck.verify(path: "\(database.path)/\(table.name)", isDirect: true) { pass.allow($0) }
            } catch {
                switch error.code {
                case .corrupted: note(error, pass, found)
                case .notFound:
                    // Gone by a compaction, it is not one of the database's any more; the next pass reads those in its place.
                    guard try database.liveTables().contains(where: { $0.number == table.number }) else { break }
                    note(KVError(.corrupted, "\(database.path)/\(table.name) is gone"), pass, found)
                default: throw error
                }
            }
            pass.beginFile()
            let isSlow = pass.bytesPerSecond != nil
            update(pass) { record in
                record.document.bytesDone += table.bytes
                if isSlow { record.tableNumber = table.number }
            }
            if isSlow { saveNowAndThen(pass) }
        }
    }

    /// Throws `KVError`: `.unavailable` where the pass is to end, `.storageFailed`.
    private func checkLogs(_ pass: ScrubPass, _ found: (KVError) -> Void) throws(KVError) {
        let live = LogFile.list(in: database.path).map { "\(database.path)/\($0.name)" }
        var isKeptDamaged = false
        for path in try database.logPaths() {
            guard let ending = try ending(ofLogAt: path, pass), ending != .clean else { continue }
            if !live.contains(path) {
                isKeptDamaged = true
            } else if ending != .cutOff || path != live.last {
                // The end of the newest is being written.
                note(KVError(.corrupted, "\(path) cannot be read to its end"), pass, found)
            }
        }
        // No data is in danger there.
        guard isKeptDamaged, case let aside = try database.setUnreadableLogsAside(), aside > 0 else { return }
        logger.warning(
            "logs that were kept for followers cannot be read: a follower that needs them gets a snapshot",
            metadata: ["shard": "\(configuration.name)", "files": "\(aside)"])
    }

    /// nil if it has moved to the archive or gone, as one that no data needs any more does at any time.
    private func ending(ofLogAt path: String, _ pass: ScrubPass) throws(KVError) -> LogFileCheck.Ending? {
        // Records can be short, and a pause for each would be longer than it should.
        var unpaid = 0
        do throws(KVError) {
            let check = try LogFileCheck.run(path: path) { record throws(KVError) in
                unpaid += record.count
                guard unpaid >= ShardScrub.logBytesAtOnce else { return true }
                guard pass.allow(unpaid) else { throw ScrubPass.ended }
                unpaid = 0
                return true
            }
            guard pass.allow(unpaid) else { throw ScrubPass.ended }
            return Files.exists(path) ? check.ending : nil
        } catch {
            if error.code == .unavailable { throw error }
            // What the disk cannot give back is as lost as what has other bits.
            return Files.exists(path) ? .damaged : nil
        }
    }

    /// What is not in the database.
    private func checkSmallFiles(_ pass: ScrubPass, _ found: (KVError) -> Void) {
        do throws(KVError) {
            try ShardIdentity.claim(
                directory: configuration.directory, shard: configuration.name, cluster: configuration.cluster)
            _ = try PromiseFile(directory: configuration.directory).load()
            try requireManifest()
        } catch {
            note(KVError(.corrupted, error.message, cause: error.cause), pass, found)
        }
    }

    /// Throws `KVError(.corrupted)` if the database would not be found again.
    private func requireManifest() throws(KVError) {
        do throws(KVError) {
            if try LogFile.oldestNeeded(in: database.path) != nil { return }
        } catch {
            // RocksDB may have begun another manifest at that moment.
            if try LogFile.oldestNeeded(in: database.path) != nil { return }
        }
        throw KVError(.corrupted, "\(database.path) has no CURRENT")
    }

    private func note(_ damage: KVError, _ pass: ScrubPass, _ found: (KVError) -> Void) {
        ScrubTotals.damagedFilesFound.wrappingAdd(1, ordering: .relaxed)
        let record = update(pass) { record in
            guard record.document.damage.count < ScrubDocument.damageMax else { return }
            record.document.damage.append(damage.message)
        }
        // Before anybody is told: the replica may be closed and rebuilt for it, and who waits for the pass is to learn why.
        if let record { save(record) }
        found(damage)
    }

    /// nil if another pass has taken its place.
    @discardableResult private func update(_ pass: ScrubPass, _ change: (inout ScrubRecord) -> Void) -> ScrubRecord? {
        state.withLock { state in
            guard state.pass === pass else { return nil }
            change(&state.record)
            return state.record
        }
    }

    private func end(_ pass: ScrubPass, failure: KVError?) {
        let (now, wall) = (clock.monotonicMilliseconds(), clock.wallMilliseconds())
        let record = state.withLock { state -> ScrubRecord? in
            guard state.pass === pass else { return nil }
            state.pass = nil
            state.record.document.isRunning = false
            state.record.document.milliseconds = now - min(now, state.since)
            if let failure {
                state.record.document.failure =
                    failure.code == .unavailable ? "it was ended before it was through" : failure.message
            } else {
                state.record.document.bytesDone = state.record.document.bytesTotal
                state.record.document.lastWholeMilliseconds = wall
                (state.record.database, state.record.tableNumber) = (nil, 0)
            }
            return state.record
        }
        guard let record else { return }
        save(record)
        if failure == nil { ScrubTotals.passesDone.wrappingAdd(1, ordering: .relaxed) }
        log(record.document, failure)
    }

    private func log(_ document: ScrubDocument, _ failure: KVError?) {
        let metadata: Logger.Metadata = [
            "shard": "\(document.shard)", "number": "\(document.number)", "bytes": "\(document.bytesDone)",
            "milliseconds": "\(document.milliseconds)", "damaged": "\(document.damage.count)",
        ]
        switch failure {
        case nil where document.damage.isEmpty: logger.info("scrubbed", metadata: metadata)
        case nil: logger.error("scrubbed: \(document.damage.joined(separator: "; "))", metadata: metadata)
        case let failure? where failure.code == .unavailable: break
        case let failure?: logger.warning("the scrub ended early: \(failure)", metadata: metadata)
        }
    }

    // MARK: Remembering

    private func saveNowAndThen(_ pass: ScrubPass) {
        let now = clock.monotonicMilliseconds()
        let record = state.withLock { state -> ScrubRecord? in
            guard state.pass === pass, now >= state.savedAt + ShardScrub.saveMilliseconds else { return nil }
            state.savedAt = now
            return state.record
        }
        if let record { save(record) }
    }

    private func save(_ record: ScrubRecord) {
        do throws(KVError) {
            try record.save(directory: configuration.directory)
        } catch {
            // The next pass begins at the first table, and nothing else is lost.
            logger.warning("cannot remember the scrub: \(error)", metadata: ["shard": "\(configuration.name)"])
        }
    }
}

extension ShardReplica {
    /// Begins to read and verify everything the replica has on the disk, as fast as that goes, unless that is being done.
    /// Damage is noted. Returns at once.
    public func startScrub() -> ScrubDocument { scrub.start { self.note(damage: $0, foundBy: .scrub) } }

    /// The scrub that runs or was the last, also of a process before this one; with number 0 before the first.
    public var lastScrub: ScrubDocument { scrub.document }

    /// Since the replica was last read as a whole; nil if it never was.
    public var secondsSinceScrub: Double? {
        let now = clock.wallMilliseconds()
        return scrub.document.lastWholeMilliseconds.map { Double(now - min(now, $0)) / 1_000 }
    }

    /// As ``startScrub()``, but at `bytesPerSecond`, with the lowest priority, and from where such a one was interrupted; returns when it
    /// is over. Cancelling the task ends it.
    /// - Returns: whether everything was read.
    public func scrubSlowly(bytesPerSecond: Int) async -> Bool {
        await scrub.runSlowly(bytesPerSecond: bytesPerSecond) { self.note(damage: $0, foundBy: .scrub) }
    }

    /// Notes what comparing this leader with a follower at the same position has come to; nil for no difference.
    public func note(difference: String?) {
        if let difference {
            ScrubTotals.differencesFound.wrappingAdd(1, ordering: .relaxed)
            logger.error("\(difference)", metadata: ["shard": "\(configuration.name)"])
        }
        scrub.note(difference: difference)
    }
}
