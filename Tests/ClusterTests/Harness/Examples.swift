import FoundationEssentials
import Testing

/// A command of a document with the answer that stands below it.
struct Example {
    /// Lines of the document, counted from 0: the command's, and those of its answer.
    var commandLines: Range<Int>
    var answerLines: Range<Int>
    var command: String
    var answer: String
    /// What is done with the cluster before the block that it stands in.
    var directives: [String]
}

/// The examples of a document: in its code blocks, lines that begin with `$ ` are commands, and what follows each is its
/// answer. A backslash at its end continues a command. Above a block may stand `<!-- example: DIRECTIVE -->`.
struct ExampleDocument {
    private(set) var lines: [String]
    private(set) var examples: [Example] = []

    init(_ text: String) {
        lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        var directives: [String] = []
        var index = 0
        while index < lines.count {
            if let match = lines[index].wholeMatch(of: /<!-- example: (.+) -->/) {
                directives.append(String(match.output.1))
            } else if lines[index].hasPrefix("```") {
                let end = lines[(index + 1)...].firstIndex { $0.hasPrefix("```") } ?? lines.count
                readBlock(index + 1..<end, directives)
                directives = []
                index = end
            }
            index += 1
        }
    }

    private mutating func readBlock(_ block: Range<Int>, _ directives: [String]) {
        var directives = directives
        var index = block.lowerBound
        while index < block.upperBound {
            guard lines[index].hasPrefix("$ ") else {
                index += 1
                continue
            }
            let start = index
            while lines[index].hasSuffix("\\"), index + 1 < block.upperBound { index += 1 }
            let command = start..<index + 1
            index += 1
            var end = lines[index..<block.upperBound].firstIndex { $0.hasPrefix("$ ") } ?? block.upperBound
            while end > index, lines[end - 1].isEmpty { end -= 1 }
            examples.append(
                Example(
                    commandLines: command, answerLines: index..<end,
                    command: String(lines[command].joined(separator: "\n").dropFirst(2)),
                    answer: lines[index..<end].joined(separator: "\n"), directives: directives))
            directives = []
            index = end
        }
    }

    /// The document with other answers, by the example's number.
    func replacing(_ answers: [Int: String]) -> String {
        var lines = lines
        for (number, answer) in answers.sorted(by: { $0.key > $1.key }) {
            let example = examples[number]
            lines.replaceSubrange(
                example.answerLines,
                with: answer.isEmpty
                    ? [] : answer.split(separator: "\n", omittingEmptySubsequences: false).map(String.init))
        }
        return lines.joined(separator: "\n")
    }

    /// Whether an answer is the expected one: what differs from run to run is alike, and `…` stands for anything.
    static func matches(_ answer: String, _ expected: String) -> Bool {
        wildcardMatch(
            Array(steady(answer).utf8),
            steady(expected).split(separator: "…", omittingEmptySubsequences: false).map { Array($0.utf8) })
    }

    /// The text with versions, lags and lives replaced.
    private static func steady(_ text: String) -> String {
        text
            .replacing(/\b01[0-9a-f]{14}\b/, with: "VERSION")
            .replacing(/kv-lag: \d+/, with: "kv-lag: N")
            .replacing(/date: .{29}/, with: "date: NOW")
            .replacing(/\b\d+ms\b/, with: "Nms")
            .replacing(/(?m)[ \t]+$/, with: "")
    }

    private static func wildcardMatch(_ text: [UInt8], _ parts: [[UInt8]]) -> Bool {
        guard let first = parts.first, let last = parts.last, text.starts(with: first) else { return false }
        guard parts.count > 1 else { return text == first }
        var position = first.count
        for part in parts.dropFirst().dropLast() {
            guard let found = text[position...].firstRange(of: part) else { return false }
            position = found.upperBound
        }
        return text.count - position >= last.count && text.reversed().starts(with: last.reversed())
    }
}
