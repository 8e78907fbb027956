import Core
import NIOCore
import Wire

/// A run of log frames, verified and still encoded as the leader sent them.
///
/// Invariants: at least one frame; the first continues ``base`` and each continues the one before it (lsn + 1,
/// term not falling); every checksum held; no term is above the leader's.
struct LogSegment: Sendable {
    /// The position before the first frame.
    let base: LogPosition
    /// The leader's term when it answered.
    let leaderTerm: UInt64
    /// The frames, back to back.
    let bytes: ByteBuffer
    /// The position of each frame, and where it ends, in bytes after the start of `bytes`.
    private let frames: [Frame]
    /// Held while there is a copy of a segment that only one may have at a time, for its size.
    private let turn: Turn?
    /// Of the process's memory.
    private let charge: ReplicationBudget.Charge?

    private struct Frame: Sendable {
        let position: LogPosition
        let end: Int
    }

    private init(
        base: LogPosition, leaderTerm: UInt64, bytes: ByteBuffer, frames: [Frame], turn: Turn?,
        charge: ReplicationBudget.Charge?
    ) {
        self.base = base
        self.leaderTerm = leaderTerm
        self.bytes = bytes
        self.frames = frames
        self.turn = turn
        self.charge = charge
    }

    /// Verifies the answer of a leader to a read after `base`.
    ///
    /// - Parameter budget: counts the segment as long as there is a copy.
    ///
    /// Throws `KVError(.corrupted)` where a checksum, the continuity, a term or the end of the bytes is wrong.
    init(
        verifying bytes: ByteBuffer, after base: LogPosition, leaderTerm: UInt64, turn: Turn? = nil,
        budget: ReplicationBudget? = nil
    ) throws {
        var rest = bytes
        var frames: [Frame] = []
        var previous = base
        while let frame = try LogFrame.decode(from: &rest) {
            let position = frame.position
            guard position.lsn == previous.lsn + 1 else {
                throw KVError(.corrupted, "the leader sent lsn \(position.lsn) after \(previous.lsn)")
            }
            guard (previous.term...max(leaderTerm, previous.term)).contains(position.term) else {
                throw KVError(
                    .corrupted,
                    "the leader of term \(leaderTerm) sent term \(position.term) after \(previous.term) at lsn \(position.lsn)"
                )
            }
            frames.append(Frame(position: position, end: bytes.readableBytes - rest.readableBytes))
            previous = position
        }
        guard rest.readableBytes == 0, !frames.isEmpty else {
            throw KVError(.corrupted, "the leader's answer ends within a frame, after lsn \(previous.lsn)")
        }
        self.init(
            base: base, leaderTerm: leaderTerm, bytes: bytes, frames: frames, turn: turn,
            charge: budget?.charge(LogSegment.footprint(bytes, frames)))
    }

    var last: LogPosition { frames.isEmpty ? base : frames[frames.count - 1].position }
    var frameCount: Int { frames.count }
    var byteCount: Int { bytes.readableBytes }

    /// An estimate of the memory it takes, in bytes.
    var footprint: Int { LogSegment.footprint(bytes, frames) }

    private static func footprint(_ bytes: ByteBuffer, _ frames: [Frame]) -> Int {
        bytes.storageCapacity + frames.count * MemoryLayout<Frame>.stride + 256
    }

    /// Whether only one of its kind is there at a time.
    var isInTurn: Bool { turn != nil }

    /// How many bytes into the segment what follows `position` begins; nil where it is neither the base nor the
    /// position of a frame here, term and version included.
    func offset(after position: LogPosition) -> Int? {
        if position == base { return 0 }
        guard let index = index(of: position) else { return nil }
        return frames[index].end
    }

    /// The frames after `position`; nil where it is not in the segment or nothing follows it here.
    func suffix(after position: LogPosition) -> LogSegment? {
        if position == base { return self }
        guard let index = index(of: position), index + 1 < frames.count else { return nil }
        let start = frames[index].end
        guard let slice = bytes.getSlice(at: bytes.readerIndex + start, length: byteCount - start) else { return nil }
        return LogSegment(
            base: position, leaderTerm: leaderTerm, bytes: slice,
            frames: frames[(index + 1)...].map { Frame(position: $0.position, end: $0.end - start) }, turn: turn,
            charge: charge)
    }

    /// One segment of several that continue each other; at least one.
    static func joined(_ segments: [LogSegment]) -> LogSegment {
        guard segments.count > 1 else { return segments[0] }
        var bytes = ByteBuffer()
        bytes.reserveCapacity(segments.reduce(0) { $0 + $1.byteCount })
        var frames: [Frame] = []
        frames.reserveCapacity(segments.reduce(0) { $0 + $1.frameCount })
        for (index, segment) in segments.enumerated() {
            precondition(index == 0 || segment.base == segments[index - 1].last, "joined segments continue each other")
            let start = bytes.readableBytes
            bytes.writeImmutableBuffer(segment.bytes)
            frames += segment.frames.map { Frame(position: $0.position, end: $0.end + start) }
        }
        return LogSegment(
            base: segments[0].base, leaderTerm: segments.map(\.leaderTerm).max() ?? 0, bytes: bytes, frames: frames,
            turn: nil, charge: segments[0].charge?.budget.charge(footprint(bytes, frames)))
    }

    /// lsns are consecutive, so the index is a subtraction.
    private func index(of position: LogPosition) -> Int? {
        guard position.lsn > base.lsn, position.lsn - base.lsn <= UInt64(frames.count) else { return nil }
        let index = Int(position.lsn - base.lsn - 1)
        return frames[index].position == position ? index : nil
    }
}
