import DistribKVClient
import NIOCore

/// Sessions of a web application: each is gone when nobody has used it for a while, and two requests of one session
/// that run at once do not overwrite each other's changes.
public struct SessionStore: Sendable {
    /// A session's content and the version it was read at.
    public struct Session: Sendable, Equatable {
        public var content: String
        public var version: Version
    }

    private static let attemptsMax = 10

    private let client: KVClient
    private let lifetime: TimeAmount

    public init(client: KVClient, lifetime: TimeAmount = .minutes(30)) {
        self.client = client
        self.lifetime = lifetime
    }

    /// Begins a session under an identifier that is not taken; false where it is.
    public func begin(_ id: String, content: String) async throws -> Bool {
        let options = WriteOptions(condition: .absent, ttl: lifetime)
        do {
            try await client.put(key(id), ByteBuffer(string: content), options: options)
            return true
        } catch {
            guard error.code == .preconditionFailed else { throw error }
            return false
        }
    }

    /// The session, nil where there is none or it is over.
    public func find(_ id: String) async throws -> Session? {
        guard let entry = try await client.get(key(id)) else { return nil }
        return Session(content: String(buffer: entry.value), version: entry.version)
    }

    /// Changes a session and prolongs its life; nil where there is none any more.
    ///
    /// Where somebody else has changed it meanwhile, `change` is made to what they left.
    public func update(_ id: String, _ change: @Sendable (String) -> String) async throws -> Session? {
        for _ in 1...Self.attemptsMax {
            guard let session = try await find(id) else { return nil }
            let content = change(session.content)
            if let version = try await replace(session.version, of: id, content) {
                return Session(content: content, version: version)
            }
        }
        throw KVError(.conflict, "the session \(id) changes all the time")
    }

    /// The version of the new content; nil where the session is not at `version` any more.
    private func replace(_ version: Version, of id: String, _ content: String) async throws -> Version? {
        let options = WriteOptions(condition: .version(version), ttl: lifetime)
        do {
            return try await client.put(key(id), ByteBuffer(string: content), options: options)
        } catch {
            guard error.code == .preconditionFailed else { throw error }
            return nil
        }
    }

    /// Ends a session.
    public func end(_ id: String) async throws {
        try await client.delete(key(id))
    }

    private func key(_ id: String) -> String.UTF8View { "session/\(id)".utf8 }
}
