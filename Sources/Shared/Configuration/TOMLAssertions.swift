/// Faults in a file at which the TOML library would not throw but end the process, by an assertion.
enum TOMLAssertions {
    /// The line of a `[` whose name does not begin as a name does; nil for none.
    static func lineOfUnreadableHeader(_ text: String) -> Int? {
        for (number, line) in text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            .enumerated()
        {
            let header = line.drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
            guard header.first == UInt8(ascii: "[") else { continue }
            let brackets = header.dropFirst().first == UInt8(ascii: "[") ? 2 : 1
            let name = header.dropFirst(brackets).drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
            guard let first = name.first else { return number + 1 }
            switch first {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "\""),
                UInt8(ascii: "'"), UInt8(ascii: "]"):
                continue
            default: return number + 1
            }
        }
        return nil
    }

    /// The line of a `}` where a value of an array has to be; nil for none.
    static func lineOfMissingValue(_ text: String) -> Int? {
        var rest = text.utf8[...]
        var line = 1
        /// The last byte outside of strings and comments that is no space.
        var previous: UInt8 = 0
        while let byte = rest.first {
            switch byte {
            case UInt8(ascii: "#"):
                rest = rest.drop { $0 != UInt8(ascii: "\n") }
                continue
            case UInt8(ascii: "\""), UInt8(ascii: "'"):
                line += skipString(&rest, byte)
                previous = byte
                continue
            case UInt8(ascii: "\n"): line += 1
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): break
            case UInt8(ascii: "}") where previous == UInt8(ascii: "[") || previous == UInt8(ascii: ","): return line
            default: previous = byte
            }
            rest = rest.dropFirst()
        }
        return nil
    }

    /// Skips a string, to the end of its line where it does not end.
    /// - Returns: how many line ends are in it.
    private static func skipString(_ rest: inout Substring.UTF8View, _ quote: UInt8) -> Int {
        let isLong = rest.starts(with: [quote, quote, quote])
        rest = rest.dropFirst(isLong ? 3 : 1)
        var lines = 0
        while let byte = rest.first {
            if byte == UInt8(ascii: "\n") {
                guard isLong else { return lines }
                lines += 1
            } else if byte == UInt8(ascii: "\\"), quote == UInt8(ascii: "\""),
                rest.dropFirst().first != UInt8(ascii: "\n")
            {
                rest = rest.dropFirst()
            } else if byte == quote, !isLong || rest.starts(with: [quote, quote, quote]) {
                rest = rest.dropFirst(isLong ? 3 : 1)
                // Two more may belong to a long string's content.
                while isLong, rest.first == quote { rest = rest.dropFirst() }
                return lines
            }
            rest = rest.dropFirst()
        }
        return lines
    }
}
