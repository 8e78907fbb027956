import Core
import NIOCore
import TestSupport
import Testing
import Wire

@Suite struct AckReportTests {
    private func ack(_ port: Int, _ term: UInt64, _ lsn: UInt64, _ version: UInt64) -> AckReport.Ack {
        AckReport.Ack(
            follower: NodeAddress(host: "127.0.0.1", port: port),
            position: LogPosition(term: term, lsn: lsn, version: Version(rawValue: version)))
    }

    @Test func reportsAreLines() throws {
        var report = AckReport(acks: [ack(7_002, 3, 41, 0xAB), ack(7_003, 0, 0, 0)])
        report.acks.append(
            AckReport.Ack(
                follower: NodeAddress(host: "::1", port: 7_004),
                position: LogPosition(term: .max, lsn: .max, version: Version(rawValue: .max))))
        let golden = """
            127.0.0.1:7002 3 41 00000000000000ab
            127.0.0.1:7003 0 0 0000000000000000
            [::1]:7004 18446744073709551615 18446744073709551615 ffffffffffffffff

            """
        #expect(String(buffer: report.encoded()) == golden)
        #expect(try AckReport(decoding: ByteBuffer(string: golden)) == report)
        #expect(try AckReport(decoding: ByteBuffer()) == AckReport(acks: []))
    }

    /// A line that is none, and its number.
    @Test(arguments: [
        ("127.0.0.1:7002 3 41", 1), ("127.0.0.1:7002 3 41 00000000000000ab x", 1), ("7002 3 41 00000000000000ab", 1),
        ("127.0.0.1:7002  41 00000000000000ab", 1), ("127.0.0.1:7002 -3 41 00000000000000ab", 1),
        ("127.0.0.1:7002 3 41 ab", 1), ("127.0.0.1:7002 3 18446744073709551616 00000000000000ab", 1),
        ("127.0.0.1:7002 3 41 00000000000000ab\r", 1), ("127.0.0.1:7002 3 41 00000000000000ab\nx", 2),
        ("\u{0}", 1),
    ]) func otherTextIsRefused(text: String, line: Int) {
        let error = #expect(throws: KVError.self) { try AckReport(decoding: ByteBuffer(string: text)) }
        #expect(error?.code == .invalidData)
        #expect(error?.message == "line \(line) is not \"host:port term lsn version\"")
    }

    @Test func reportsAreBounded() throws {
        let full = AckReport(acks: (0..<AckReport.linesMax).map { ack($0, 1, UInt64($0), 1) })
        #expect(try AckReport(decoding: full.encoded()) == full)
        var more = full
        more.acks.append(ack(1, 1, 1, 1))
        #expect(throws: KVError.self) { try AckReport(decoding: more.encoded()) }
    }

    @Test(arguments: [UInt64(5)]) func noBytesTrap(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let sound = AckReport(acks: (0..<5).map { ack(7_000 + $0, 2, UInt64($0), 7) })
        for _ in 0..<2_000 {
            var buffer = sound.encoded()
            for _ in 0...Int.random(in: 0...3, using: &generator) {
                let index = Int.random(in: 0..<buffer.readableBytes, using: &generator)
                buffer.setInteger(UInt8.random(in: 0...255, using: &generator), at: index)
            }
            do throws(KVError) {
                #expect(try AckReport(decoding: buffer).acks.count <= 8, "seed \(seed)")
            } catch {
                #expect(error.code == .invalidData, "seed \(seed)")
            }
        }
    }
}
