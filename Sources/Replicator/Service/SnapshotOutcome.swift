import Core
import NIOCore
import Wire

/// A part of one file of a snapshot.
struct SnapshotRange: Sendable, Hashable {
    /// Of the snapshot.
    let id: String
    let file: String
    let offset: UInt64
    /// At least 1.
    let length: Int

    var end: UInt64 { offset + UInt64(length) }
}

/// The bytes of a range, as the leader sent them.
///
/// Invariant: there are exactly as many as the range says, and their checksum held.
struct SnapshotChunk: Sendable {
    let range: SnapshotRange
    let bytes: ByteBuffer
    /// CRC-32C, as it stands in the header field.
    let checksum: String
}

/// What came of asking a leader for a checkpoint.
enum SnapshotOpening: Sendable {
    case opened(SnapshotManifest)
    /// The leader is damaged itself: no retry will help soon.
    case damaged(String)
    case failed(String)
}

/// What came of offering a snapshot to a follower.
enum SnapshotOffering: Sendable {
    /// What it has of it: of every file.
    case receipt(SnapshotReceipt)
    /// Somebody else is bringing it one, or it is installing one.
    case busy(String)
    /// It has no use for this one: it has more, or knows a newer leader.
    case useless(String)
    case failed(String)
}

/// What came of reading a part from the leader.
enum SnapshotFetching: Sendable {
    case chunk(SnapshotChunk)
    /// The leader has no such checkpoint any more.
    case gone(String)
    /// Also where the bytes do not match their checksum.
    case failed(String)
}

/// What came of sending a part to the follower.
enum SnapshotSending: Sendable {
    /// Bytes of that file from its start that are there now.
    case taken(UInt64)
    /// Somebody else is sending: it already has more of the file, or is writing another part at this moment.
    case overtaken(String)
    case failed(String)
}

/// What came of asking a follower to put a snapshot in place.
enum SnapshotInstalling: Sendable {
    /// Its position now.
    case installed(LogPosition)
    case busy(String)
    /// Something is missing, or was damaged on disk and is removed: the next offer says what.
    case incomplete(String)
    /// It knows a newer leader meanwhile.
    case useless(String)
    /// Everything is there as the leader sent it, and it cannot be opened: no retry will help.
    case broken(String)
    case failed(String)
}
