public import Core
public import NIOCore

/// Positions of followers on their way to the leader, one line each: `host:port term lsn version`.
///
/// Only positions that followers gave in answer to batches or heartbeats of this leader's own term count.
public struct AckReport: Sendable, Hashable {
    public struct Ack: Sendable, Hashable {
        public var follower: NodeAddress
        public var position: LogPosition

        public init(follower: NodeAddress, position: LogPosition) {
            self.follower = follower
            self.position = position
        }
    }

    public static let linesMax = 1_024
    public var acks: [Ack]

    public init(acks: [Ack]) { self.acks = acks }

    /// As the body of a request.
    public func encoded() -> ByteBuffer {
        var buffer = ByteBuffer()
        for ack in acks {
            let position = ack.position
            buffer.writeString("\(ack.follower) \(position.term) \(position.lsn) \(position.version.hexDigits)\n")
        }
        return buffer
    }

    /// Throws `KVError(.invalidData)` that names the line.
    public init(decoding buffer: ByteBuffer) throws(KVError) {
        var acks: [Ack] = []
        for line in buffer.readableBytesView.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false).map {
                String(decoding: $0, as: UTF8.self)
            }
            guard acks.count < AckReport.linesMax, fields.count == 4, let follower = NodeAddress(fields[0]),
                let term = UInt64(fields[1]), let lsn = UInt64(fields[2]), let version = Version(hexDigits: fields[3])
            else { throw KVError(.invalidData, "line \(acks.count + 1) is not \"host:port term lsn version\"") }
            acks.append(Ack(follower: follower, position: LogPosition(term: term, lsn: lsn, version: version)))
        }
        self.acks = acks
    }
}
