import Core
import Synchronization

// MARK: - When operations begin

extension LoadLoop {
    /// What the moment asks for, whatever arrived.
    func tick(_ now: UInt64) {
        if cpuAtStart == nil, now >= recorder.start { cpuAtStart = Clock.threadCPU() }
        if shared.topologyGeneration.load(ordering: .relaxed) != topologyGeneration { adoptTopology() }
        if endedAt == nil {
            recorder.advance(to: now)
            if let deadline, now >= deadline {
                // What was due since the last look, and has room.
                beginDue(at: deadline - 1)
                endRun(at: deadline)
            } else if shared.isStopped.load(ordering: .relaxed) {
                endRun(at: now)
            } else {
                wakeResting(at: now)
                beginDue(at: now)
            }
        }
        if now >= nextSweep {
            nextSweep = now + Self.sweepInterval
            sweep(at: now)
        }
    }

    /// A client has room for an operation.
    func free(_ client: Int, at now: UInt64) {
        guard endedAt == nil else { return }
        if openLoop == nil { begin(client, due: now, at: now) } else { openLoop?.free(client) }
    }

    /// Begins what is due, as far as clients have room.
    private func beginDue(at now: UInt64) {
        while endedAt == nil {
            switch openLoop?.next(at: now) {
            case .begin(let client, let due): begin(client, due: due, at: now)
            case .unsent(let due): recordUnsent(due)
            case .wait, nil: return
            }
        }
    }

    private func recordUnsent(_ due: UInt64) {
        if due >= recorder.start { recorder.failed(mix.draw(&random), .unsent) }
    }

    private func wakeResting(at now: UInt64) {
        guard let first = resting.first, first.until <= now else { return }
        // The pause is the same for all: they stand in order.
        let count = resting.prefix { $0.until <= now }.count
        let woken = resting.prefix(count)
        resting.removeFirst(count)
        for (client, _) in woken { free(client, at: now) }
    }

    /// From here on nothing begins.
    func endRun(at moment: UInt64) {
        guard endedAt == nil else { return }
        endedAt = moment
        // What was due before and found no room.
        while let due = openLoop?.unsent(before: moment) { recordUnsent(due) }
    }

    /// Fails what was sent too long ago.
    private func sweep(at now: UInt64) {
        for connection in connections {
            guard let first = connection.exchanges.first, now >= first.sent + settings.timeout else { continue }
            // Answers come in order: those behind it have no other connection to come on.
            close(connection, .timeout, at: now)
        }
        checkLoad(at: now)
    }
}

// MARK: - What they are

extension LoadLoop {
    /// Begins an operation.
    /// - Parameter due: from when its latency counts.
    private func begin(_ client: Int, due: UInt64, at now: UInt64) {
        if let operations = settings.operations, !isLoad,
            shared.begun.add(1, ordering: .relaxed).oldValue >= operations
        {
            // What is due beyond their number belongs to no run.
            endedAt = endedAt ?? now
            return
        }
        var exchange = Exchange(
            kind: .insert, isWriting: true, isMeasured: due >= recorder.start, client: Int32(client), key: 0,
            start: due, sent: now)
        if isLoad {
            guard let key = nextLoadKey() else { return endLoad(at: now) }
            exchange.key = key
        } else {
            choose(&exchange)
        }
        if exchange.isWriting { fill(&exchange) }
        inFlight += 1
        dispatch(exchange, at: now)
    }

    /// Draws kind and key.
    private func choose(_ exchange: inout Exchange) {
        exchange.kind = mix.draw(&random)
        if exchange.kind == .insert {
            exchange.key = shared.nextKey.add(1, ordering: .relaxed).oldValue
            if exchange.key < settings.records + LoadSettings.insertsMax {
                _ = shared.table?.beginWrite(exchange.key)
                return
            }
            exchange.kind = .update
        }
        exchange.key = keys.draw(below: shared.inserts.bound.load(ordering: .acquiring), &random)
        switch exchange.kind {
        case .read: exchange.isWriting = false
        case .scan:
            exchange.isWriting = false
            exchange.scanCount = UInt8(1 + random.below(UInt64(LoadSettings.scanRecordsMax)))
        case .readModifyWrite:
            exchange.isWriting = false
            takeKey(&exchange)
        case .update, .insert: takeKey(&exchange)
        }
        if let table = shared.table, !exchange.isWriting { exchange.floor = table.floor(of: exchange.key) }
    }

    /// Makes the operation the only writer of its key; of the next one that nobody writes, where somebody writes this.
    private func takeKey(_ exchange: inout Exchange) {
        guard let table = shared.table else { return }
        let bound = shared.inserts.bound.load(ordering: .acquiring)
        var tries = min(bound, UInt64(settings.connections * settings.pipelineDepth) + 1)
        while !table.beginWrite(exchange.key), tries > 0 {
            exchange.key = exchange.key + 1 < bound ? exchange.key + 1 : 0
            tries -= 1
        }
    }

    /// Decides the value that the operation writes.
    func fill(_ exchange: inout Exchange) {
        exchange.valueBytes = Int32(sizes.draw(&random))
        if settings.isVerified {
            exchange.sequence = shared.sequence.add(1, ordering: .relaxed).newValue
        } else {
            sequence &+= 1
            exchange.sequence = sequence
        }
    }
}

// MARK: - When they end

extension LoadLoop {
    /// An operation has ended, well or with a failure.
    func end(_ exchange: Exchange, _ failure: Failure?, at now: UInt64) {
        inFlight -= 1
        if let failure {
            if exchange.isMeasured { recorder.failed(exchange.kind, failure) }
            // Another node may serve the key by now.
            if failure.mayBeMoved { shared.wantsTopology.store(true, ordering: .relaxed) }
        } else if exchange.isMeasured {
            recorder.answered(exchange.kind, nanoseconds: now > exchange.start ? now - exchange.start : 0)
        }
        if isLoad {
            endOfLoad(exchange, failure, at: now)
        } else {
            if exchange.kind == .insert { shared.inserts.end(exchange.key) }
            if let table = shared.table, exchange.kind.isWrite {
                table.endWrite(exchange.key, sequence: exchange.sequence, Self.outcome(exchange, failure))
            }
        }
        if let failure, failure.asksForPause, openLoop == nil {
            if endedAt == nil { resting.append((Int(exchange.client), now + Self.failurePause)) }
        } else {
            free(Int(exchange.client), at: now)
        }
    }

    private static func outcome(_ exchange: Exchange, _ failure: Failure?) -> VerificationTable.WriteOutcome {
        switch failure {
        case nil: .acknowledged
        // The read of a read-modify-write.
        case _ where !exchange.isWriting: .notMade
        case .refused, .redirectLoop, .unsent: .notMade
        case .status(let status) where (400..<500).contains(status): .notMade
        case .status, .timeout, .reset, .badAnswer: .unknown
        }
    }
}

extension OperationKind {
    var isWrite: Bool {
        switch self {
        case .update, .insert, .readModifyWrite: true
        case .read, .scan: false
        }
    }
}

extension Failure {
    /// The node is away, or is not what it was taken for.
    fileprivate var mayBeMoved: Bool {
        switch self {
        case .status(let status): status == 503
        case .timeout, .refused, .reset, .redirectLoop: true
        case .badAnswer, .unsent: false
        }
    }

    /// The server is not well, or does not want more: no new request at once.
    fileprivate var asksForPause: Bool {
        switch self {
        case .status(let status): status == 429 || status >= 500
        case .unsent: false
        case .timeout, .refused, .reset, .redirectLoop, .badAnswer: true
        }
    }
}

// MARK: - The load phase

extension LoadLoop {
    private func nextLoadKey() -> UInt64? {
        if let key = retries.popLast() { return key }
        guard shared.nextKey.load(ordering: .relaxed) < settings.records else { return nil }
        let key = shared.nextKey.add(1, ordering: .relaxed).oldValue
        return key < settings.records ? key : nil
    }

    /// The load ends when every key has been written: those that failed come again.
    private func endLoad(at now: UInt64) {
        if inFlight == 0, retries.isEmpty, resting.isEmpty { endRun(at: now) }
    }

    private func endOfLoad(_ exchange: Exchange, _ failure: Failure?, at now: UInt64) {
        guard let failure else {
            lastLoaded = now
            return
        }
        retries.append(exchange.key)
        lastLoadFailure = failure
        if case .status(let status) = failure, (400..<500).contains(status), status != 429 {
            self.failure = KVError(.unavailable, "the load phase was refused with status \(status)")
            endRun(at: now)
        }
    }

    /// Ends a load that does not get on.
    fileprivate func checkLoad(at now: UInt64) {
        guard isLoad, endedAt == nil else { return }
        endLoad(at: now)
        guard endedAt == nil, let lastLoadFailure, now > lastLoaded + settings.timeout else { return }
        failure = KVError(
            .unavailable,
            "the load phase does not get on: no write was acknowledged for \(settings.timeout / 1_000_000_000) s, the last "
                + "one failed with \(lastLoadFailure)")
        endRun(at: now)
    }
}
