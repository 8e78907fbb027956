import TerminalText
import ImportPipeline
import Testing

@Suite struct ProgressTextTests {
    private func counts(written: UInt64, position: UInt64, bad: UInt64 = 0) -> ImportCounts {
        var counts = ImportCounts()
        counts.read = written + bad
        counts.written = written
        counts.skipped = bad
        counts.position = position
        return counts
    }

    private func text(total: UInt64?) -> ProgressText {
        var text = ProgressText(total: total)
        for second in 0...5 {
            text.observe(
                counts(written: UInt64(second) * 1_500, position: UInt64(second) * 1_000), seconds: Double(second))
        }
        return text
    }

    @Test func aBarWithRateAndETA() {
        let bar = text(total: 10_000).bar(counts(written: 7_500, position: 5_000), width: 79)
        #expect(
            bar == "[" + String(repeating: "=", count: 19) + ">" + String(repeating: " ", count: 20)
                + "]   50%  7,500 keys  1,500/s  ETA 0:05")
        #expect(bar.count <= 79)
    }

    @Test(arguments: 1...120) func aBarFitsItsWidth(width: Int) {
        let bar = text(total: 10_000).bar(counts(written: 7_500, position: 9_999, bad: 12), width: width)
        #expect(bar.count <= width)
    }

    @Test func withoutATotalThereIsNoBarAndNoETA() {
        #expect(text(total: nil).bar(counts(written: 7_500, position: 5_000), width: 80) == "7,500 keys  1,500/s")
        #expect(text(total: nil).line(counts(written: 7_500, position: 5_000, bad: 2)) == "7,500 keys, 1,500/s, 2 bad")
    }

    @Test func aLineForALog() {
        #expect(
            text(total: 10_000).line(counts(written: 7_500, position: 5_000)) == "7,500 keys (50%), 1,500/s, ETA 0:05")
    }

    @Test func beforeAnythingIsKnown() {
        let text = ProgressText(total: 0)
        #expect(text.line(ImportCounts()) == "0 keys, 0/s")
        #expect(text.bar(ImportCounts(), width: 40) == "0 keys  0/s")
    }

    @Test func numbers() {
        #expect([0, 7, 999, 1_000, 1_234_567].map(Format.count) == ["0", "7", "999", "1,000", "1,234,567"])
        #expect(
            [0, 1_023, 1_024, 1_536, 1_048_575, 12 << 20, UInt64.max].map(Format.bytes)
                == ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "12.0 MiB", "16.0 EiB"])
        #expect([0, 7.4, 59.6, 754, 3_723].map(Format.duration) == ["0:00", "0:07", "1:00", "12:34", "1:02:03"])
        #expect(Format.duration(-1) == "0:00")
        #expect(Format.decimal(0.06) == "0.1")
    }
}
