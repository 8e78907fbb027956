/// What has to hold of the value stored under a key for a write to be made; RFC 9110, section 13.1.
public struct WriteCondition: Sendable, Hashable {
    /// The versions that a header field names.
    public enum Versions: Sendable, Hashable {
        /// `*`: whatever version there is.
        case any
        case listed([Version])

        public func names(_ version: Version) -> Bool {
            switch self {
            case .any: true
            case .listed(let versions): versions.contains(version)
            }
        }
    }

    /// `If-Match`: there is a value, and its version is one of these. Nil for no demand.
    public var match: Versions?
    /// `If-None-Match`: there is no value, or its version is none of these. Nil for no demand.
    public var noneMatch: Versions?

    public init(match: Versions? = nil, noneMatch: Versions? = nil) {
        self.match = match
        self.noneMatch = noneMatch
    }

    /// - Parameter current: the version of the value that is stored; nil where there is none.
    public func holds(for current: Version?) -> Bool {
        guard let current else { return match == nil }
        return match?.names(current) ?? true && !(noneMatch?.names(current) ?? false)
    }
}
