/// What a path below `/replication/` asks of a shard's snapshots.
struct SnapshotTarget: Equatable {
    enum Resource: Equatable {
        /// The checkpoints that a leader gives out; one of them; a file of one.
        case given
        case givenOne(id: String)
        case givenFile(id: String, name: String)
        /// The snapshot that a follower receives; a file of it; its installation.
        case received
        case receivedFile(name: String)
        case installation
    }

    let shard: Substring
    let resource: Resource

    /// Whether it is about a snapshot that the replica takes.
    var isReceived: Bool {
        switch resource {
        case .given, .givenOne, .givenFile: false
        case .received, .receivedFile, .installation: true
        }
    }

    /// Nil for any other path.
    init?(_ path: Substring) {
        guard path.hasPrefix(ReplicationHandler.pathPrefix) else { return nil }
        let parts = path.dropFirst(ReplicationHandler.pathPrefix.count)
            .split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count >= 2 else { return nil }
        shard = parts[0]
        switch (parts[1], parts.count) {
        case ("snapshots", 2): resource = .given
        case ("snapshots", 3): resource = .givenOne(id: String(parts[2]))
        case ("snapshots", 4): resource = .givenFile(id: String(parts[2]), name: String(parts[3]))
        case ("received-snapshot", 2): resource = .received
        case ("received-snapshot", 3): resource = .receivedFile(name: String(parts[2]))
        case ("install-snapshot", 2): resource = .installation
        default: return nil
        }
    }
}
