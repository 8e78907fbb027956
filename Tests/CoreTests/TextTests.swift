import Core
import TestSupport
import Testing

@Suite struct AckLevelTests {
    @Test func textsAreRead() {
        #expect(AckLevel("leader") == .leader)
        #expect(AckLevel("quorum") == .quorum)
        #expect(AckLevel("all") == .all)
        #expect(AckLevel("1") == .leader, "the leader counts")
        #expect(AckLevel("2") == .replicas(2))
        #expect(AckLevel("0012") == .replicas(12))
        for level in [AckLevel.leader, .replicas(3), .quorum, .all] { #expect(AckLevel(level.description) == level) }
    }

    @Test(arguments: [
        "", "0", "00", "-1", "+1", " 1", "1 ", "1.0", "Leader", "ALL", "majority", "٢", "99999999999999999999",
    ]) func otherTextIsNoLevel(text: String) {
        #expect(AckLevel(text) == nil)
    }

    /// Level, replicas, and how many that takes.
    @Test func levelsTakeSoManyReplicas() {
        for replicas in 1...7 {
            #expect(AckLevel.leader.required(of: replicas) == 1)
            #expect(AckLevel.all.required(of: replicas) == replicas)
            #expect(AckLevel.replicas(4).required(of: replicas) == (replicas >= 4 ? 4 : nil))
        }
        #expect((1...7).map { AckLevel.quorum.required(of: $0) } == [1, 2, 2, 3, 3, 4, 4])
    }
}

@Suite struct DurationTextTests {
    @Test func unitsAreRead() {
        let cases: [(String, UInt64)] = [
            ("0ms", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000),
            ("007s", 7_000), ("18446744073709551615ms", .max), ("18446744073709551s", 18_446_744_073_709_551_000),
        ]
        for (text, milliseconds) in cases { #expect(DurationText.milliseconds(text) == milliseconds, "\(text)") }
    }

    @Test(arguments: [
        "", "5", "s", "ms", "-5s", "+5s", " 5s", "5 s", "5s ", "1.5s", "5S", "5sec", "5ss", "1h30m", "٥s",
        "18446744073709551616ms", "18446744073709552s", "99999999999999999999d",
    ]) func otherTextIsNoDuration(text: String) {
        #expect(DurationText.milliseconds(text) == nil)
    }
}

@Suite struct CombinedChecksumTests {
    @Test(arguments: [UInt64(1), 2]) func twoPiecesMakeTheWhole(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        func sum(_ bytes: some Sequence<UInt8>) -> UInt32 { Array(bytes).withUnsafeBytes { CRC32C.checksum($0) } }
        for count in [0, 1, 2, 7, 8, 9, 100, 1_000, 70_000] {
            let bytes = generator.bytes(count)
            let cut = Int.random(in: 0...count, using: &generator)
            let combined = CRC32C.combine(
                sum(bytes[..<cut]), sum(bytes[cut...]), secondBytes: UInt64(count - cut))
            #expect(combined == sum(bytes), "seed \(seed): \(count) bytes, cut at \(cut)")
        }
        #expect(CRC32C.combine(7, 0, secondBytes: 0) == 7)
    }
}

@Suite struct ShownTextTests {
    @Test func controlCharactersAndLengthAreHeldBack() {
        #expect(ShownText.of("a é 😀", charactersMax: 64) == "a é 😀")
        #expect(
            ShownText.of("a\nb\r\0\u{7f}\u{85}\u{1b}[0m", charactersMax: 64)
                == "a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}[0m")
        #expect(ShownText.of("éééé", charactersMax: 4) == "éééé")
        #expect(ShownText.of("ééééé", charactersMax: 4) == "éééé…")
    }
}
