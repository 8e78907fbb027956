import Core
import FoundationEssentials
import NIOCore
import Wire

/// What the replicator reads in a problem document; nil members where the body is none.
struct ProblemReading {
    private struct Document: Decodable {
        var type: String?
        var detail: String?
        var term: String?
        var lsn: String?
        var version: String?
    }

    let type: String?
    let detail: String?
    /// The follower's position, from the members of a log mismatch.
    let position: LogPosition?

    init(_ body: ByteBuffer) {
        // An error answer need not have a document: a proxy between may have answered.
        let document = try? JSONDecoder().decode(Document.self, from: Data(body.readableBytesView))
        type = document?.type
        detail = document?.detail
        if let term = document?.term.flatMap(UInt64.init), let lsn = document?.lsn.flatMap(UInt64.init),
            let version = document?.version.flatMap({ Version(hexDigits: $0) })
        {
            position = LogPosition(term: term, lsn: lsn, version: version)
        } else {
            position = nil
        }
    }
}
