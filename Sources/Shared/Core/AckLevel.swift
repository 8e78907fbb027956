/// On how many replicas a write has to be before it is acknowledged. The leader counts.
public enum AckLevel: Sendable, Hashable {
    case leader
    case replicas(Int)
    /// More than half of the shard's replicas.
    case quorum
    case all

    /// `leader`, `quorum`, `all` or a number from 1; nil for anything else.
    public init?(_ text: some StringProtocol) {
        switch text {
        case "leader": self = .leader
        case "quorum": self = .quorum
        case "all": self = .all
        default:
            guard text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
                let count = Int(text), count >= 1
            else { return nil }
            self = count == 1 ? .leader : .replicas(count)
        }
    }

    /// How many replicas that is, the leader included.
    /// - Parameter replicas: of the shard, the leader included.
    /// - Returns: nil where the shard has too few.
    public func required(of replicas: Int) -> Int? {
        switch self {
        case .leader: 1
        case .replicas(let count): count <= replicas ? count : nil
        case .quorum: replicas / 2 + 1
        case .all: replicas
        }
    }
}

extension AckLevel: CustomStringConvertible {
    public var description: String {
        switch self {
        case .leader: "leader"
        case .replicas(let count): "\(count)"
        case .quorum: "quorum"
        case .all: "all"
        }
    }
}
