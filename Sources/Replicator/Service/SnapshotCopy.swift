import Core
import Wire

/// Which parts of a snapshot a follower lacks, and the next one to bring. Pure.
///
/// Invariant: the cursor never stands before what the follower has, and a range never leaves its file.
struct SnapshotCopy {
    let manifest: SnapshotManifest
    /// What the checkpoint holds.
    let position: LogPosition
    private let places: [String: Int]
    /// Bytes of each file, in the order of the manifest, that the follower has.
    private var received: [UInt64]
    private(set) var bytesReceived: UInt64 = 0
    /// Where the next range begins.
    private var file = 0
    private var offset: UInt64 = 0

    /// Throws `KVError(.invalidData)` where the manifest is none.
    init(_ manifest: SnapshotManifest) throws {
        self.manifest = manifest
        position = try manifest.position.position
        received = manifest.files.map { _ in 0 }
        places = Dictionary(manifest.files.enumerated().map { ($1.name, $0) }) { first, _ in first }
    }

    /// A range to read only so that the leader knows that the checkpoint is in use; nil where it has no bytes at all.
    var smallest: SnapshotRange? {
        manifest.files.first { $0.bytes > 0 }.map {
            SnapshotRange(id: manifest.id, file: $0.name, offset: 0, length: 1)
        }
    }

    /// The follower has every byte.
    var isComplete: Bool { zip(manifest.files, received).allSatisfy { $1 >= $0.bytes } }

    /// Goes by what the follower says it has. Files it does not name it has not.
    mutating func resume(from receipt: SnapshotReceipt) {
        received = manifest.files.map { _ in 0 }
        for entry in receipt.files {
            guard let place = places[entry.name] else { continue }
            received[place] = min(entry.received, manifest.files[place].bytes)
        }
        bytesReceived = received.reduce(0, +)
        file = 0
        offset = received.first ?? 0
    }

    /// The next range to fetch, at most `bytesMax` long; nil where everything has been handed out.
    mutating func next(bytesMax: Int) -> SnapshotRange? {
        while file < manifest.files.count {
            let bytes = manifest.files[file].bytes
            if offset < bytes {
                let length = Int(min(UInt64(max(bytesMax, 1)), bytes - offset))
                defer { offset += UInt64(length) }
                return SnapshotRange(id: manifest.id, file: manifest.files[file].name, offset: offset, length: length)
            }
            file += 1
            offset = file < received.count ? received[file] : 0
        }
        return nil
    }

    /// The follower has taken the range.
    mutating func took(_ range: SnapshotRange) {
        guard let place = places[range.file], range.end > received[place] else { return }
        bytesReceived += range.end - received[place]
        received[place] = range.end
    }
}
