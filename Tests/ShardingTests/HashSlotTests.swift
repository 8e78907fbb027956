import TestSupport
import Testing

@testable import Sharding

@Suite struct HashSlotTests {
    private func crc(_ text: String) -> UInt16 { Array(text.utf8).withUnsafeBytes { CRC16.checksum($0) } }

    private func hashed(_ key: String) -> String {
        Array(key.utf8).withUnsafeBytes { String(decoding: HashSlot.hashedPart(of: $0), as: UTF8.self) }
    }

    @Test func crcOfPublishedVectors() {
        // The check value of CRC-16/XMODEM and of the Redis Cluster specification, appendix A.
        #expect(crc("123456789") == 0x31C3)
        #expect(crc("") == 0)
        #expect(crc("A") == 0x58E5)
        #expect(crc("foo") & 16_383 == 12_182)
        #expect(crc("bar") & 16_383 == 5_061)
        #expect(crc("hello") & 16_383 == 866)
    }

    /// The examples of the Redis Cluster specification, "Hash tags", and the edges of its rule.
    @Test(arguments: [
        ("{user1000}.following", "user1000"), ("{user1000}.followers", "user1000"), ("foo{}{bar}", "foo{}{bar}"),
        ("foo{{bar}}zap", "{bar"), ("foo{bar}{zap}", "bar"), ("foo{bar", "foo{bar"), ("foo}bar{", "foo}bar{"),
        ("}{a}", "a"), ("{}", "{}"), ("{", "{"), ("{a}", "a"), ("", ""), ("{}{a}", "{}{a}"),
    ])
    func onlyANonEmptyTagIsHashed(key: String, part: String) {
        #expect(hashed(key) == part)
    }

    @Test func keysOfOneTagShareASlot() {
        #expect(HashSlot(key: "{user1000}.following".utf8) == HashSlot(key: "user1000".utf8))
        #expect(HashSlot(key: "123456789".utf8).rawValue == 0x31C3)
        // A sequence without contiguous storage takes the other way to the same slot.
        #expect(HashSlot(key: AnySequence("{user1000}.following".utf8)) == HashSlot(key: "user1000".utf8))
    }

    @Test func anyBytesHaveASlot() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2_000 {
            let key = (0..<Int.random(in: 0...40, using: &generator)).map { _ in
                // Braces often, so that tags of all shapes come up.
                [UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8.random(in: 0...255, using: &generator)]
                    .randomElement(using: &generator)!
            }
            #expect(HashSlot(key: key).rawValue < 16_384, "seed \(seed)")
        }
    }
}
