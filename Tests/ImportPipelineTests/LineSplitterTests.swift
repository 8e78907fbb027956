import NIOCore
import Testing

@testable import ImportPipeline

@Suite struct LineSplitterTests {
    private func split(_ text: String, chunkBytes: Int, lineBytesMax: Int = 1_000) -> [String?] {
        var splitter = LineSplitter(lineBytesMax: lineBytesMax)
        var lines: [String?] = []
        func take(_ line: LineSplitter.Line) {
            lines.append(line.bytes.map { String(buffer: $0) })
            #expect(line.number == UInt64(lines.count))
        }
        let bytes = Array(text.utf8)
        for start in stride(from: 0, to: bytes.count, by: chunkBytes) {
            splitter.append(ByteBuffer(bytes: bytes[start..<min(start + chunkBytes, bytes.count)]))
            while let line = splitter.next() { take(line) }
        }
        if let line = splitter.finish() { take(line) }
        #expect(splitter.finish() == nil)
        return lines
    }

    @Test(arguments: ["", "\n", "a", "a\n", "a\nb", "a\n\nb\n", "\n\n", "one\ntwo\nthree three\n\nfive", "a\r\nb"])
    func linesDoNotDependOnChunks(text: String) {
        var expected = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if text.hasSuffix("\r\n") || text.hasSuffix("\n") || text.isEmpty { expected.removeLast() }
        // A String takes CR LF for one character.
        if text.contains("\r\n") { expected = ["a\r", "b"] }
        for chunkBytes in 1...max(1, text.utf8.count) {
            #expect(split(text, chunkBytes: chunkBytes) == expected, "chunks of \(chunkBytes)")
        }
    }

    @Test func aLineThatIsTooLongIsCountedAndDropped() {
        let text = "ok\n" + String(repeating: "x", count: 11) + "\nfine\n" + String(repeating: "y", count: 500)
        for chunkBytes in 1...30 {
            #expect(split(text, chunkBytes: chunkBytes, lineBytesMax: 10) == ["ok", nil, "fine", nil])
        }
    }
}
