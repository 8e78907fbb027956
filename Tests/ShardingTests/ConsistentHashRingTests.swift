import Core
import TestSupport
import Testing

@testable import Sharding

/// 65 names of one kind.
enum NamingScheme: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case shardNumber, number, letters, region, random1, random2

    var names: [String] {
        (0...64).map(name)
    }

    private func name(_ index: Int) -> String {
        switch self {
        case .shardNumber: return "shard-\(index)"
        case .number: return "\(index)"
        case .letters: return String(repeating: Array("abcdefgh")[index % 8], count: index / 8 + 1)
        case .region: return "eu-west-1.orders.\(index)"
        case .random1: return random(seed: 1, index)
        case .random2: return random(seed: 2, index)
        }
    }

    private func random(seed: UInt64, _ index: Int) -> String {
        var generator = SeededGenerator(seed: seed << 32 | UInt64(index))
        let letters = Array("abcdefghijklmnopqrstuvwxyz0123456789.-_")
        var name = ""
        for _ in 0..<Int.random(in: 3...24, using: &generator) {
            name.append(letters[Int.random(in: 0..<letters.count, using: &generator)])
        }
        return name
    }

    var testDescription: String { rawValue }
}

@Suite struct ConsistentHashRingTests {
    /// 64-bit FNV-1a over the table as little-endian 16-bit numbers.
    private func digest(_ table: [UInt16]) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for entry in table {
            for byte in [entry & 0xFF, entry >> 8] { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        }
        return hash
    }

    /// The values come from a second implementation, in another language, of the documented algorithm. They never
    /// change: a different table would make every node look for every key in the wrong place.
    @Test func placesAndTablesAreTheSameInEveryVersion() {
        #expect(ConsistentHashRing.place(name: "shard-0", index: 0) == 0x2A3A_7F5D_758E_38AA)
        #expect(ConsistentHashRing.place(name: "shard-0", index: 1) == 0x02C8_3E8E_4469_5BB4)
        #expect(ConsistentHashRing.place(name: "shard-0", index: 255) == 0xA954_20E7_0673_F4F6)
        #expect(ConsistentHashRing.place(name: "", index: 0) == 0xC381_7C01_6BA4_FF30)
        #expect(ConsistentHashRing.place(name: "größe", index: 0) == 0xA9B5_4142_5F6E_8284)
        let golden: [(shards: Int, digest: UInt64)] = [
            (1, 0x8F69_55BF_94EC_2325), (2, 0x979A_889C_9091_53CC), (3, 0x9A50_0E8C_CF37_238E),
            (4, 0xEA0E_F2EE_EFAE_344F), (7, 0x17C6_A43B_8E74_0D1E), (16, 0x26CE_743D_73AB_2F87),
            (64, 0xCDB4_A55F_FB75_5592),
        ]
        for (shards, expected) in golden {
            let table = ConsistentHashRing.assign(shards: (0..<shards).map { "shard-\($0)" })
            #expect(digest(table) == expected, "\(shards) shards")
        }
        #expect(digest(ConsistentHashRing.assign(shards: ["b", "a", "größe"])) == 0xB4F8_B794_0FD8_CAAD)
    }

    @Test(arguments: NamingScheme.allCases)
    func isBalancedStableAndMadeOfFewRanges(scheme: NamingScheme) {
        let names = scheme.names
        var table = ConsistentHashRing.assign(shards: Array(names[..<1]))
        for shards in 1...64 {
            #expect(table.count == HashSlot.count)
            var owned = [Int](repeating: 0, count: shards)
            for shard in table { owned[Int(shard)] += 1 }
            let mean = Double(HashSlot.count) / Double(shards)
            #expect(Double(owned.max() ?? 0) <= 1.10 * mean, "\(shards) shards: balance")
            #expect((owned.min() ?? 0) > Int(mean / 2), "\(shards) shards: smallest")
            let ranges = SlotRange.ranges(of: table, shards: shards).map(\.count).max() ?? 0
            #expect(ranges <= 320, "\(shards) shards: ranges")

            let larger = ConsistentHashRing.assign(shards: Array(names[...shards]))
            let moved = zip(table, larger).filter { $0 != $1 }
            let ideal = Double(HashSlot.count) / Double(shards + 1)
            #expect(Double(moved.count) <= 1.25 * ideal, "\(shards) + 1 shards: moved")
            let elsewhere = moved.count { $0.1 != UInt16(shards) }
            #expect(Double(elsewhere) <= 0.15 * Double(moved.count), "\(shards) + 1 shards: moved, not to the new one")
            table = larger
        }
    }

    /// Names decide, positions do not: reordering the file moves no slot to another name.
    @Test func theOrderOfNamesMovesNothing() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let names = (0..<12).map { "shard-\($0)" }
        let shuffled = names.shuffled(using: &generator)
        let left = ConsistentHashRing.assign(shards: names).map { names[Int($0)] }
        let right = ConsistentHashRing.assign(shards: shuffled).map { shuffled[Int($0)] }
        #expect(left == right, "seed \(seed)")
    }

    @Test func everySlotHasAnOwnerUpToTheMostShards() {
        for shards in [65, 100, 333, ConsistentHashRing.shardsMax] {
            let table = ConsistentHashRing.assign(shards: (0..<shards).map { "s\($0)" })
            #expect(table.count == HashSlot.count)
            #expect(Set(table).count == shards)
        }
    }
}
