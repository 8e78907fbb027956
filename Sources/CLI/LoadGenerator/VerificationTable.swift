import Glibc
import Synchronization

/// What is known about each key: which write was acknowledged last.
///
/// Every value carries the sequence of its write. Sequences rise, and a key is written by one operation at a time, so a read
/// must find the last write acknowledged before its beginning, or a later one. After a write whose outcome is unknown, which
/// may come to pass late, nothing can be said about the order: such a key is checked for damage and foreign values only.
/// For any number of threads. 8 bytes a key.
final class VerificationTable: Sendable {
    /// A moment's knowledge about one key.
    struct Floor: Hashable {
        fileprivate(set) var word: UInt64
        static let none = Floor(word: 0)

        fileprivate static let busy: UInt64 = 1 << 63
        fileprivate static let doubtful: UInt64 = 1 << 62
        fileprivate static let present: UInt64 = 1 << 61
        fileprivate static let sequences: UInt64 = present - 1

        /// There must be a value.
        var isPresent: Bool { word & Self.present != 0 }
        var isDoubtful: Bool { word & Self.doubtful != 0 }
        /// Of the last write that was acknowledged; 0 where there was none.
        var sequence: UInt64 { word & Self.sequences }
    }

    enum WriteOutcome { case acknowledged, notMade, unknown }

    /// Keys that exist from the beginning on.
    private let records: UInt64
    let capacity: UInt64
    /// The table's own until it is deinitialised, and atomic: safe to use from any thread.
    private nonisolated(unsafe) let words: UnsafeMutablePointer<Atomic<UInt64>>

    /// - Parameters:
    ///   - records: keys from 0 on that exist; any write is new enough for them.
    ///   - inserts: keys that may be inserted.
    init(records: UInt64, inserts: UInt64) {
        self.records = records
        capacity = records + inserts
        // Zeroed when it is touched: what is not used takes no memory.
        guard let memory = calloc(Int(capacity), MemoryLayout<Atomic<UInt64>>.stride) else {
            fatalError("there is no memory for the verification of \(capacity) keys")
        }
        words = memory.bindMemory(to: Atomic<UInt64>.self, capacity: Int(capacity))
    }

    deinit { free(words) }

    func floor(of key: UInt64) -> Floor {
        var word = words[Int(key)].load(ordering: .acquiring)
        if key < records && word & Floor.doubtful == 0 { word |= Floor.present }
        return Floor(word: word)
    }

    /// Takes the key for a write; false where another write of it is under way.
    func beginWrite(_ key: UInt64) -> Bool {
        let word = words[Int(key)].load(ordering: .relaxed)
        guard word & Floor.busy == 0 else { return false }
        return words[Int(key)].compareExchange(
            expected: word, desired: word | Floor.busy, ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Ends what ``beginWrite(_:)`` began.
    func endWrite(_ key: UInt64, sequence: UInt64, _ outcome: WriteOutcome) {
        // Nobody else changes a word that is busy.
        var word = words[Int(key)].load(ordering: .relaxed) & ~Floor.busy
        switch outcome {
        case .acknowledged: word = word & Floor.doubtful | Floor.present | sequence & Floor.sequences
        case .notMade: break
        case .unknown: word |= Floor.doubtful
        }
        words[Int(key)].store(word, ordering: .releasing)
    }
}

/// What the verification of a run found.
public struct Verification: Sendable, Equatable {
    /// Reads whose answer was looked at.
    public var checked = 0
    /// Older than what had been acknowledged before the read began.
    public var stale = 0
    /// Another key's value, or a damaged one, or one that no benchmark wrote.
    public var wrong = 0
    /// Of a key that exists.
    public var missing = 0
    /// The first ones, in words; at most ``examplesMax``.
    public var examples: [String] = []

    public static let examplesMax = 5

    mutating func add(_ other: Verification) {
        checked += other.checked
        stale += other.stale
        wrong += other.wrong
        missing += other.missing
        examples = Array((examples + other.examples).prefix(Self.examplesMax))
    }

    mutating func note(_ example: @autoclosure () -> String) {
        if examples.count < Self.examplesMax { examples.append(example()) }
    }
}
