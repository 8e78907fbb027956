import Core

/// Who waits for the writer to stand exactly at some position: called back between two batches, right there.
///
/// Joined batches end at a stop, so that a follower does not run past it. Bounded in number and time.
struct PositionStops {
    typealias Callback = @Sendable (Result<LogPosition, KVError>) -> Void

    private struct Stop {
        var lsn: UInt64
        var untilMilliseconds: UInt64
        var callback: Callback
    }

    private let shard: String
    private let max: Int
    private var stops: [Stop] = []

    init(shard: String, max: Int) {
        self.shard = shard
        self.max = max
    }

    /// - Parameter lsn: nil for wherever the replica stands.
    mutating func add(
        _ lsn: UInt64?, at position: LogPosition, untilMilliseconds: UInt64, _ callback: @escaping Callback
    ) {
        guard let lsn, lsn != position.lsn else { return callback(.success(position)) }
        guard lsn > position.lsn else {
            return callback(
                .failure(KVError(.logMismatch, "\(shard) has gone past lsn \(lsn) here and stands at \(position.lsn)")))
        }
        guard stops.count < max else {
            return callback(
                .failure(KVError(.overloaded, "\(max) requests wait for positions of \(shard); try again in a moment")))
        }
        stops.append(Stop(lsn: lsn, untilMilliseconds: untilMilliseconds, callback: callback))
    }

    var count: Int { stops.count }

    func contains(_ lsn: UInt64) -> Bool { stops.contains { $0.lsn == lsn } }

    /// After every batch.
    mutating func reached(_ position: LogPosition) {
        guard contains(position.lsn) else { return }
        for stop in stops where stop.lsn == position.lsn { stop.callback(.success(position)) }
        stops.removeAll { $0.lsn == position.lsn }
    }

    /// Calls back those whose time is over.
    mutating func expire(now: UInt64, at position: LogPosition) {
        for stop in stops where stop.untilMilliseconds <= now {
            stop.callback(
                .failure(
                    KVError(.timedOut, "\(shard) stands at lsn \(position.lsn) here and has not reached \(stop.lsn)")))
        }
        stops.removeAll { $0.untilMilliseconds <= now }
    }

    /// When ``expire(now:at:)`` has to be called next; nil where nobody waits.
    var nextMilliseconds: UInt64? { stops.lazy.map(\.untilMilliseconds).min() }

    mutating func fail(_ error: KVError) {
        for stop in stops { stop.callback(.failure(error)) }
        stops = []
    }
}
