import FoundationEssentials
import Testing

/// What a file of a data directory may suffer.
enum FileDamage: String, CaseIterable, Sendable {
    case flipped = "a bit is wrong"
    case cut = "its end is missing"
    case removed = "it is gone"

    /// - Parameter place: of the bit that flips, as a byte counted from the start, or from the end if it is negative; nil
    ///   for the middle.
    func apply(to path: String, place: Int?) throws {
        guard self != .removed else { return try FileManager.default.removeItem(atPath: path) }
        var bytes = Array(try #require(FileManager.default.contents(atPath: path), "no \(path)"))
        let place = place.map { $0 < 0 ? bytes.count + $0 : $0 } ?? bytes.count / 2
        switch self {
        case .flipped: bytes[place] ^= 4
        case .cut: bytes.removeLast(bytes.count - place)
        case .removed: break
        }
        try Data(bytes).write(to: URL(filePath: path))
    }
}

/// A kind of file, and where a cluster has one to damage.
struct DamageCase: Sendable {
    enum Situation: CaseIterable, Sendable {
        /// The node leads and has led before; there were writes that only it had.
        case leader
        /// A snapshot is on its way: the node gives it out.
        case givingSnapshot
        /// A snapshot is on its way: the node receives it.
        case receivingSnapshot
        /// A new follower that has nothing yet.
        case joining

        /// The other one is whole.
        var node: Int {
            switch self {
            case .leader, .givingSnapshot: 0
            case .receivingSnapshot, .joining: 1
            }
        }
    }

    /// As the table names it.
    let name: String
    let situation: Situation
    /// Below the data directory; `*` stands for anything in one name.
    let pattern: String
    /// Of several matches, which is the newest otherwise, in the order of names.
    var isOldest = false
    /// The one that has the value of this key, which is what is damaged.
    var holds: String?
    var place: Int?
    var damages = FileDamage.allCases

    /// Every kind of file that a data directory can have.
    static let all: [DamageCase] = [
        DamageCase(name: "LOCK", situation: .leader, pattern: "LOCK", damages: [.removed]),
        DamageCase(name: "node.json", situation: .leader, pattern: "node.json"),
        DamageCase(name: "topology.json", situation: .leader, pattern: "topology.json"),
        DamageCase(name: "shards/NAME/IDENTITY", situation: .leader, pattern: "\(shard)/IDENTITY"),
        DamageCase(name: "shards/NAME/FENCE", situation: .leader, pattern: "\(shard)/FENCE"),
        DamageCase(name: "shards/NAME/SYNCED", situation: .leader, pattern: "\(shard)/SYNCED"),
        DamageCase(name: "shards/NAME/JOINING", situation: .joining, pattern: "\(shard)/JOINING"),
        DamageCase(name: "db", situation: .leader, pattern: "\(shard)/db", damages: [.removed]),
        DamageCase(name: "db/CURRENT", situation: .leader, pattern: "\(shard)/db/CURRENT"),
        DamageCase(name: "db/MANIFEST-*", situation: .leader, pattern: "\(shard)/db/MANIFEST-*"),
        DamageCase(name: "db/IDENTITY", situation: .leader, pattern: "\(shard)/db/IDENTITY"),
        DamageCase(name: "db/OPTIONS-*", situation: .leader, pattern: "\(shard)/db/OPTIONS-*"),
        DamageCase(name: "db/*.sst, its data", situation: .leader, pattern: "\(shard)/db/*.sst", place: 100),
        DamageCase(
            name: "db/*.sst, its footer", situation: .leader, pattern: "\(shard)/db/*.sst", place: -10,
            damages: [.flipped, .cut]),
        DamageCase(name: "db/*.log, newest, its middle", situation: .leader, pattern: "\(shard)/db/*.log"),
        DamageCase(
            name: "db/*.log, newest, its last record", situation: .leader, pattern: "\(shard)/db/*.log", place: -100,
            damages: [.flipped, .cut]),
        DamageCase(
            name: "db/archive/*.log, oldest", situation: .leader, pattern: "\(shard)/db/archive/*.log", isOldest: true,
            place: 30),
        DamageCase(name: "db/archive/*.log, newest", situation: .leader, pattern: "\(shard)/db/archive/*.log"),
        DamageCase(
            name: "snapshots/*", situation: .givingSnapshot, pattern: "\(shard)/snapshots/*/*.sst", damages: [.removed]),
        DamageCase(
            name: "db/*.sst, its data, on a leader from which a follower is being rebuilt", situation: .givingSnapshot,
            pattern: "\(shard)/db/*.sst", holds: "key-9", damages: [.flipped]),
        DamageCase(name: "db.new/*", situation: .receivingSnapshot, pattern: "\(shard)/db.new/*.sst"),
        DamageCase(name: "db.new.json", situation: .receivingSnapshot, pattern: "\(shard)/db.new.json"),
        DamageCase(name: "diverged/*.ndjson", situation: .leader, pattern: "diverged/*.ndjson"),
        DamageCase(name: "diverged/*.json", situation: .leader, pattern: "diverged/*.json"),
    ]

    private static let shard = "shards/shard-0"

    /// Those of a data directory, oldest first.
    private func files(in directory: String) throws -> [String] {
        try pattern.split(separator: "/").reduce([directory]) { paths, part in
            try paths.flatMap { path -> [String] in
                guard part.contains("*") else {
                    let child = "\(path)/\(part)"
                    return FileManager.default.fileExists(atPath: child) ? [child] : []
                }
                let (prefix, suffix) = (part.prefix { $0 != "*" }, part.drop { $0 != "*" }.dropFirst())
                return try FileManager.default.contentsOfDirectory(atPath: path).sorted()
                    .filter { $0.hasPrefix(prefix) && $0.hasSuffix(suffix) }
                    .map { "\(path)/\($0)" }
            }
        }
    }

    /// Damages a node's file.
    /// - Returns: false if there is none of the kind.
    func apply(_ damage: FileDamage, in directory: String, content: [String: [UInt8]]) throws -> Bool {
        guard let holds else {
            let files = try files(in: directory)
            guard let file = isOldest ? files.first : files.last else { return false }
            try damage.apply(to: file, place: place)
            return true
        }
        let value = Data(try #require(content[holds]).prefix(32))
        for file in try files(in: directory) {
            guard let found = FileManager.default.contents(atPath: file)?.firstRange(of: value) else { continue }
            try damage.apply(to: file, place: found.lowerBound)
            return true
        }
        return false
    }
}

/// The table of docs/operations.md.
struct DamageTable {
    private(set) var rows: [(file: String, damage: FileDamage, outcome: String)] = []

    mutating func add(_ file: String, _ damage: FileDamage, _ outcome: String) { rows.append((file, damage, outcome)) }

    /// Damages of a file that end alike share a line.
    var markdown: String {
        var lines = ["| file | if | then |", "|---|---|---|"]
        var next = rows[...]
        while let first = next.first {
            let file = next.prefix { $0.file == first.file }
            next = next.dropFirst(file.count)
            let words = first.file.split(separator: ", ", maxSplits: 1)
            var name = (["`\(words[0])`"] + words.dropFirst()).joined(separator: ", ")
            var outcomes: [String] = []
            for row in file where !outcomes.contains(row.outcome) { outcomes.append(row.outcome) }
            for outcome in outcomes {
                let damages = file.filter { $0.outcome == outcome }.map(\.damage.rawValue)
                lines.append("| \(name) | \(damages.joined(separator: ", ")) | \(outcome) |")
                name = ""
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    static let begin = "<!-- damage: the table below is made by DamagedFileTests -->\n"
    static let end = "<!-- damage: end -->\n"

    /// The page with this table between its two marks; nil where they are missing.
    func replacing(in page: String) -> String? {
        guard let begin = page.firstRange(of: Self.begin), let end = page.firstRange(of: Self.end) else { return nil }
        return page[..<begin.upperBound] + "\n" + markdown + "\n" + page[end.lowerBound...]
    }
}
