import Core
import DistribKVClient
import NIOHTTP1
import TestSupport
import Wire

/// Writes of one client, one after the other, with the moments of a trace at which they were sent and acknowledged.
struct WriteHistory {
    struct Write {
        let key: String
        /// nil for a removal.
        let value: [UInt8]?
        let sent: Int
        let acknowledged: Int
    }

    typealias Content = [String: [UInt8]]

    private(set) var writes: [Write] = []
    /// Few, so that most are written again and again.
    static let keys = (0..<24).map { "key-\($0)" }

    /// Writes `count` times and notes when, by the trace of `preload`.
    mutating func write(
        _ count: Int, valueBytesMax: Int, to node: NodeAddress, _ preload: DiskPreload,
        using random: inout SeededGenerator
    ) async throws {
        for _ in 0..<count {
            let key = Self.keys.randomElement(using: &random) ?? ""
            let value = Self.value(bytesMax: valueBytesMax, using: &random)
            let sent = preload.now
            let target = APIPath.key(key.utf8)
            let answer =
                if let value {
                    try await HTTP.send(.PUT, target, to: node, body: value)
                } else {
                    try await HTTP.send(.DELETE, target, to: node)
                }
            guard answer.status == 204 || (value == nil && answer.status == 404) else {
                throw UnexpectedAnswer(target, answer)
            }
            writes.append(Write(key: key, value: value, sent: sent, acknowledged: preload.now))
        }
    }

    /// Mostly noise, sometimes zeros as an unwritten page has them, sometimes a removal.
    private static func value(bytesMax: Int, using random: inout SeededGenerator) -> [UInt8]? {
        let size = [0, 10, 500, 5_000, bytesMax].randomElement(using: &random) ?? 0
        switch Int.random(in: 0..<10, using: &random) {
        case 0: return nil
        case 1: return [UInt8](repeating: 0, count: size)
        default: return random.bytes(min(size, 64)) + [UInt8](repeating: 0x5A, count: max(0, size - 64))
        }
    }

    /// How many writes had been acknowledged by `time`.
    func acknowledged(by time: Int) -> Int { writes.prefix { $0.acknowledged <= time }.count }
    /// How many had been sent.
    func sent(by time: Int) -> Int { writes.prefix { $0.sent <= time }.count }

    func content(after count: Int) -> Content {
        writes.prefix(count).reduce(into: [:]) { $0[$1.key] = $1.value }
    }

    /// The largest number of writes in `range` after which the content was `found`; nil if it never was.
    func count(in range: ClosedRange<Int>, explaining found: Content) -> Int? {
        range.reversed().first { content(after: $0) == found }
    }

    /// For the report of a failure.
    func explanation(of found: Content, sent: Int) -> String {
        let newest = (writes.prefix(sent).lastIndex { $0.value != nil && found[$0.key] == $0.value } ?? -1) + 1
        let wanted = content(after: newest)
        let differing = Self.keys.filter { wanted[$0] != found[$0] }
        return "its newest write is number \(newest), and \(differing) are not as they were then"
    }

    /// What a node answers for every key.
    static func read(from node: NodeAddress) async throws -> Content {
        var content: Content = [:]
        for key in keys {
            let target = APIPath.key(key.utf8)
            let answer = try await HTTP.get(target, from: node)
            if answer.status == 404 { continue }
            guard answer.status == 200 else { throw UnexpectedAnswer(target, answer) }
            content[key] = answer.bytes
        }
        return content
    }
}
