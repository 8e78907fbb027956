import Core
import Wire

/// What a replica remembers of its scrubs across restarts, in the file `SCRUB` of its directory.
///
/// Nothing depends on it: one that is damaged or gone has the next pass begin at the first table.
struct ScrubRecord: Codable, Sendable, Hashable {
    static let fileName = "SCRUB"
    private static let bytesMax = 64 << 10

    var document: ScrubDocument
    /// Of the background's pass, if one was interrupted: the database it read, by the id that RocksDB gives to each, and the last table it
    /// is through with. Tables with lower numbers need not be read again: those that came later have higher ones.
    var database: String?
    var tableNumber: UInt64 = 0

    /// Blocks. An empty one if there is none that can be read.
    static func load(directory: String, shard: String) -> ScrubRecord {
        let none = ScrubRecord(document: ScrubDocument(shard: shard))
        guard let bytes = (try? Files.read("\(directory)/\(fileName)", bytesMax: bytesMax)) ?? nil,
            var record = try? DocumentCoding.decode(ScrubRecord.self, from: bytes), record.document.shard == shard
        else { return none }
        // What was damaged may still be: to be read again soon.
        if !record.document.damage.isEmpty { record.document.lastWholeMilliseconds = nil }
        if record.document.isRunning {
            record.document.isRunning = false
            record.document.failure = "the replica was closed meanwhile"
        }
        return record
    }

    /// Blocks; durable on return.
    func save(directory: String) throws(KVError) {
        let bytes: [UInt8]
        do {
            bytes = try DocumentCoding.encode(self)
        } catch {
            throw KVError(.internalError, "what is known of the scrub cannot be written down", cause: error)
        }
        try Files.replace("\(directory)/\(ScrubRecord.fileName)", with: bytes)
    }
}
