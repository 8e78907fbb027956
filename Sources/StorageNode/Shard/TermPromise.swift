package import Core

/// What a replica has promised: to take nothing from terms below `term`, and no other candidate in it.
package struct TermPromise: Sendable, Hashable {
    package var term: UInt64
    /// Nil where a leader of the term was seen at work whose address this replica never learned.
    package var candidate: NodeAddress?

    package init(term: UInt64, candidate: NodeAddress?) {
        self.term = term
        self.candidate = candidate
    }
}

/// Where a replica keeps its newest promise across restarts: a file, or a twin of it in memory.
///
/// Called by one thread at a time.
package protocol PromiseStore: Sendable {
    /// Replaces the promise before; durable on return. After an error either of the two may be kept.
    func save(_ promise: TermPromise) throws(KVError)
}

/// The file `FENCE` beside `IDENTITY`. Not in the database, because a promise is no part of the log, and because a
/// replica that is rebuilt from a snapshot must not forget it.
struct PromiseFile: PromiseStore {
    static let fileName = "FENCE"
    private static let title = "distribKV term promise, format 2"
    /// Of before 2026-12, without a checksum.
    private static let oldTitle = "distribKV term promise, format 1"
    let directory: String

    private var path: String { "\(directory)/\(PromiseFile.fileName)" }

    /// Blocks. Nil where nothing was promised yet.
    ///
    /// Throws `KVError(.corrupted)` for anything else than what ``save(_:)`` writes, `.storageFailed`.
    func load() throws(KVError) -> TermPromise? {
        guard let text = try DurableFile.read(path) else { return nil }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let isWhole =
            lines.first.map { $0 == PromiseFile.oldTitle } ?? false
            ? lines.count == 4
            : lines.count == 5 && lines[0] == PromiseFile.title
                && lines[3] == "crc32c = \(SnapshotChecks.checksum(ofText: lines[..<3].joined(separator: "\n") + "\n"))"
        guard isWhole, lines[1].hasPrefix("term = "), let term = UInt64(lines[1].dropFirst(7)),
            term <= ShardRole.termMax, lines[2].hasPrefix("candidate = "), lines[lines.count - 1].isEmpty
        else { throw damaged() }
        let name = lines[2].dropFirst(12)
        if name == "unknown" { return TermPromise(term: term, candidate: nil) }
        guard let candidate = NodeAddress(name) else { throw damaged() }
        return TermPromise(term: term, candidate: candidate)
    }

    private func damaged() -> KVError {
        KVError(
            .corrupted,
            "\(path) is damaged, so it is not known what this replica has promised: it has to be rebuilt from its leader"
        )
    }

    /// Blocks.
    func save(_ promise: TermPromise) throws(KVError) {
        let candidate = promise.candidate.map(\.description) ?? "unknown"
        let body = "\(PromiseFile.title)\nterm = \(promise.term)\ncandidate = \(candidate)\n"
        try DurableFile.replace(
            path, with: "\(body)crc32c = \(SnapshotChecks.checksum(ofText: body))\n", in: directory)
    }
}
