import Core
import LSM
import NIOCore

/// Finds where a replica's history parts from its leader's within one term.
///
/// That happens where a leader lost the end of its log, which the follower has, and wrote on in the same term: with
/// `durability = "os"` a power failure does it. The lists of terms do not show it then. What shows it is that the leader's
/// database holds a write of the follower's log under the very version it has there: every batch up to that one is shared.
/// What was overwritten, removed or has expired since leaves no trace, so the place found may be before the real one, never after it.
struct ForkSearch {
    let own: Database
    /// A checkpoint of the leader.
    let theirs: Database
    let ownHistory: TermHistory
    let theirHistory: TermHistory

    /// The last batch that the two are known to share, by their terms and by what is in the log and in the checkpoint.
    /// Blocks.
    ///
    /// To be asked only where the leader does not have the batch at the end of the own history.
    /// Throws `KVError`: `.corrupted`, `.storageFailed`.
    func common() throws(KVError) -> TermHistory.Common {
        let byTerms = ownHistory.common(with: theirHistory)
        // Only the own last term can be in doubt: a term that another one follows here ended here as it did there.
        guard let last = ownHistory.starts.last, theirHistory.starts.contains(last),
            byTerms.lsn == ownHistory.end.lsn || byTerms.lsn + 1 == last.firstLsn
        else { return byTerms }
        var found = TermHistory.Common(lsn: last.firstLsn - 1, version: last.previousVersion)
        let cursor = LogCursor(own, sequence: 1)
        while let record = try cursor.load(framesFrom: last.firstLsn), record.last < last.firstLsn {}
        while let batch = try cursor.peek(), batch.position.lsn < ownHistory.end.lsn {
            for operation in try LoggedOperation.all(in: batch.frame, at: batch.position)
            where try isThere(operation) {
                found = TermHistory.Common(lsn: batch.position.lsn, version: batch.position.version)
                break
            }
            cursor.advance()
        }
        return found
    }

    private func isThere(_ operation: LoggedOperation) throws(KVError) -> Bool {
        guard operation.value != nil else { return false }
        var isThere = false
        try theirs.read(key: operation.key, tier: .disk) { found in
            if case .value(let value) = found { isThere = value.version == operation.version }
        }
        return isThere
    }
}
