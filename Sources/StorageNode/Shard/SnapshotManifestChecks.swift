import Core
import Wire

/// What a manifest may say. It comes from another process, and its names become names of files here.
enum SnapshotChecks {
    static let filesMax = 100_000
    private static let nameBytesMax = 128
    private static let idBytesMax = 64

    /// A plain name of letters, digits, `-`, `_` and `.`, that does not begin with a dot.
    static func isFileName(_ name: some StringProtocol) -> Bool {
        guard let first = name.utf8.first, first != UInt8(ascii: "."), name.utf8.count <= nameBytesMax else {
            return false
        }
        return name.utf8.allSatisfy { isWordByte($0) || $0 == UInt8(ascii: ".") }
    }

    /// Letters, digits, `-` and `_`.
    static func isIdentifier(_ id: some StringProtocol) -> Bool {
        !id.isEmpty && id.utf8.count <= idBytesMax && id.utf8.allSatisfy(isWordByte)
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// Eight lower-case hex digits.
    static func text(_ checksum: UInt32) -> String {
        let digits = String(checksum, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    /// The CRC-32C of a text, eight lower-case hex digits.
    static func checksum(ofText text: String) -> String {
        var text = text
        return text.withUTF8 { SnapshotChecks.text(CRC32C.checksum(UnsafeRawBufferPointer($0))) }
    }

    /// Nil for anything but eight hex digits.
    static func checksum(_ text: some StringProtocol) -> UInt32? {
        guard text.utf8.count == 8, text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }) else {
            return nil
        }
        return UInt32(text, radix: 16)
    }

    /// Throws `KVError(.invalidArgument)` that says what is wrong.
    static func check(_ manifest: SnapshotManifest, shard: String) throws(KVError) {
        func fail(_ what: String) -> KVError { KVError(.invalidArgument, "the snapshot's manifest \(what)") }
        guard manifest.shard == shard, manifest.position.shard == shard else {
            throw fail("is for shard \(manifest.shard.prefix(64)), not \(shard)")
        }
        guard isIdentifier(manifest.id) else { throw fail("has an id that is none") }
        guard manifest.files.count <= filesMax else { throw fail("names more than \(filesMax) files") }
        var names: Set<String> = []
        var total: UInt64 = 0
        for file in manifest.files {
            guard isFileName(file.name), file.name != SnapshotFolder.completeMark else {
                throw fail("names a file \(file.name.prefix(64)) that no checkpoint has")
            }
            guard names.insert(file.name).inserted else { throw fail("names \(file.name) twice") }
            guard checksum(file.crc32c) != nil else { throw fail("has no checksum of \(file.name)") }
            let (sum, overflow) = total.addingReportingOverflow(file.bytes)
            guard !overflow, sum <= UInt64(Int64.max) else { throw fail("claims an impossible size") }
            total = sum
        }
        guard names.contains("CURRENT") else { throw fail("lacks the file CURRENT") }
        guard try history(of: manifest).end.term <= manifest.leaderTerm else {
            throw fail("holds a term above its leader's")
        }
    }

    /// Throws `KVError(.invalidArgument)` where it is not well-formed.
    static func history(of manifest: SnapshotManifest) throws(KVError) -> TermHistory {
        do {
            return try manifest.history
        } catch {
            throw KVError(.invalidArgument, "the snapshot's manifest holds a history that is none", cause: error)
        }
    }
}
