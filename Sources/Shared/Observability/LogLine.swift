import Logging

/// How log events are written.
public enum LogFormat: String, Sendable, Hashable, CaseIterable {
    /// `2026-11-24T08:12:31.123Z info storage-node: message key=value`
    case text
    /// One JSON object per line.
    case json
}

/// Turns one log event into one line of bytes, its newline included.
struct LogLine {
    private(set) var bytes: [UInt8] = []

    init(
        format: LogFormat, program: String, milliseconds: Int64, level: Logger.Level, message: String,
        metadata: Logger.Metadata
    ) {
        bytes.reserveCapacity(160)
        let entries = metadata.sorted { $0.key < $1.key }
        switch format {
        case .text:
            append(LogTime.text(milliseconds: milliseconds))
            append(" \(level.rawValue) \(program): ")
            appendText(message)
            for (key, value) in entries {
                append(" ")
                append(key)
                append("=")
                appendTextValue(value)
            }
        case .json:
            append(
                "{\"time\":\"\(LogTime.text(milliseconds: milliseconds))\",\"level\":\"\(level.rawValue)\",\"program\":"
            )
            appendJSON(program)
            append(",\"message\":")
            appendJSON(message)
            for (key, value) in entries {
                append(",")
                // The four members above keep their meaning whatever a caller names its metadata.
                appendJSON(LogLine.reserved.contains(key) ? "_\(key)" : key)
                append(":")
                appendJSONValue(value)
            }
            append("}")
        }
        bytes.append(UInt8(ascii: "\n"))
    }

    private static let reserved: Set<String> = ["time", "level", "program", "message"]

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    // MARK: text

    /// Free text on one line: control characters are escaped, quotes and blanks stay.
    private mutating func appendText(_ text: String) {
        for byte in text.utf8 { appendEscapingControl(byte) }
    }

    private mutating func appendTextValue(_ value: Logger.MetadataValue) {
        switch value {
        case .string(let text): appendTextWord(text)
        case .stringConvertible(let value): appendTextWord("\(value)")
        case .array, .dictionary:
            // Nested values are rare; JSON is the one notation a reader already knows.
            appendJSONValue(value)
        }
    }

    /// A word as it is, anything else in double quotes.
    private mutating func appendTextWord(_ text: String) {
        let isWord =
            !text.isEmpty
            && text.utf8.allSatisfy {
                $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=")
                    && $0 != UInt8(ascii: "\\")
            }
        if isWord { return append(text) }
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { bytes.append(UInt8(ascii: "\\")) }
            appendEscapingControl(byte)
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func appendEscapingControl(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\n"): append("\\n")
        case UInt8(ascii: "\r"): append("\\r")
        case UInt8(ascii: "\t"): append("\\t")
        case 0..<0x20, 0x7F:
            append("\\x")
            appendHex(byte)
        default: bytes.append(byte)
        }
    }

    private mutating func appendHex(_ byte: UInt8) {
        let digits = "0123456789abcdef".utf8
        for nibble in [byte >> 4, byte & 15] {
            bytes.append(digits[digits.index(digits.startIndex, offsetBy: Int(nibble))])
        }
    }

    // MARK: JSON

    private mutating func appendJSON(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): append("\\\"")
            case UInt8(ascii: "\\"): append("\\\\")
            case UInt8(ascii: "\n"): append("\\n")
            case UInt8(ascii: "\r"): append("\\r")
            case UInt8(ascii: "\t"): append("\\t")
            case 0..<0x20, 0x7F:
                append("\\u00")
                appendHex(byte)
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func appendJSONValue(_ value: Logger.MetadataValue) {
        switch value {
        case .string(let text): appendJSON(text)
        case .stringConvertible(let value):
            switch value {
            case let number as any FixedWidthInteger: append("\(number)")
            case let number as Double where number.isFinite: append("\(number)")
            case let flag as Bool: append("\(flag)")
            default: appendJSON("\(value)")
            }
        case .array(let values):
            append("[")
            for (position, value) in values.enumerated() {
                if position > 0 { append(",") }
                appendJSONValue(value)
            }
            append("]")
        case .dictionary(let members):
            append("{")
            for (position, member) in members.sorted(by: { $0.key < $1.key }).enumerated() {
                if position > 0 { append(",") }
                appendJSON(member.key)
                append(":")
                appendJSONValue(member.value)
            }
            append("}")
        }
    }
}

/// Time stamps of RFC 3339, in UTC, to the millisecond.
enum LogTime {
    /// - Parameter milliseconds: since the Unix epoch.
    static func text(milliseconds: Int64) -> String {
        let (days, inDay) = floored(milliseconds, 86_400_000)
        let (year, month, day) = civil(days: days)
        let (hour, inHour) = floored(inDay, 3_600_000)
        let (minute, inMinute) = floored(inHour, 60_000)
        let (second, fraction) = floored(inMinute, 1_000)
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(padded(hour, 2)):\(padded(minute, 2))"
            + ":\(padded(second, 2)).\(padded(fraction, 3))Z"
    }

    /// Days since 1970-01-01 to a Gregorian date; Howard Hinnant, "chrono-compatible low-level date algorithms".
    private static func civil(days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let (era, dayOfEra) = floored(days + 719_468, 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1)
    }

    private static func floored(_ value: Int64, _ divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let remainder = (value % divisor + divisor) % divisor
        return ((value - remainder) / divisor, remainder)
    }

    private static func padded(_ value: Int64, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
