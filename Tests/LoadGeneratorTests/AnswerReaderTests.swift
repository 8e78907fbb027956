import Testing

@testable import LoadGenerator

@Suite struct AnswerReaderTests {
    private struct Answer: Equatable {
        var status: Int
        var content: String
        var epoch: UInt64
        var location: String?
        var isLast: Bool
    }

    /// Reads `text` in pieces that end at `cuts`, as a connection does: what is not consumed comes again with more.
    private func read(_ text: String, cuts: [Int] = []) throws -> [Answer] {
        let bytes = Array(text.utf8)
        var reader = AnswerReader()
        var (answers, held, content): ([Answer], [UInt8], [UInt8]) = ([], [], [])
        var start = 0
        for cut in cuts + [bytes.count] {
            held += bytes[start..<cut]
            start = cut
            while !held.isEmpty {
                let given = held
                let progress = try given.withUnsafeBytes { try reader.read($0) }
                content += given[progress.content]
                held.removeFirst(progress.consumed)
                guard progress.isComplete else { break }
                let head = reader.head
                answers.append(
                    Answer(
                        status: head.status, content: String(decoding: content, as: UTF8.self), epoch: head.epoch,
                        location: head.location.map { String(decoding: $0, as: UTF8.self) }, isLast: head.isLast))
                content = []
            }
        }
        #expect(held.isEmpty && content.isEmpty, "an answer is not complete")
        return answers
    }

    private static let stream = """
        HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: "01a2"\r\nKV-Epoch: 12\r\n\r\nhello\
        HTTP/1.1 204 No Content\r\nkv-version: 01a2\r\nkv-epoch:1\r\n\r\n\
        HTTP/1.1 307 Temporary Redirect\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:7001/kv/a?hops=1\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nContent-Length:  4 \r\nConnection: Close\r\n\r\n\r\n\r\n\
        HTTP/1.1 503\r\ncontent-length: 1\r\n\r\nx
        """
    private static let expected = [
        Answer(status: 200, content: "hello", epoch: 12, location: nil, isLast: false),
        Answer(status: 204, content: "", epoch: 1, location: nil, isLast: false),
        Answer(status: 307, content: "", epoch: 0, location: "http://127.0.0.1:7001/kv/a?hops=1", isLast: false),
        Answer(status: 404, content: "\r\n\r\n", epoch: 0, location: nil, isLast: true),
        Answer(status: 503, content: "x", epoch: 0, location: nil, isLast: false),
    ]

    @Test func answersInOnePiece() throws { #expect(try read(Self.stream) == Self.expected) }

    @Test func answersTornAnywhere() throws {
        let count = Self.stream.utf8.count
        for cut in 0...count { #expect(try read(Self.stream, cuts: [cut]) == Self.expected, "cut at \(cut)") }
        #expect(try read(Self.stream, cuts: Array(1..<count)) == Self.expected)
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\netag: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
    ])
    func unsupportedFraming(text: String) {
        #expect(throws: AnswerReader.Defect.unsupportedFraming) { try read(text) }
    }

    @Test(arguments: [
        "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 0\n\n", "\n", "\r\n",
    ])
    func noHTTP(text: String) { #expect(throws: AnswerReader.Defect.notHTTP) { try read(text) } }

    @Test func headsAreBounded() {
        let field = "x: " + String(repeating: "y", count: AnswerReader.headBytesMax)
        #expect(throws: AnswerReader.Defect.headTooLong) { try read("HTTP/1.1 200 OK\r\n" + field) }
        #expect(throws: AnswerReader.Defect.headTooLong) {
            try read("HTTP/1.1 200 OK\r\n" + field + "\r\ncontent-length: 0\r\n\r\n")
        }
    }
}
