import NIOCore
import TerminalText

/// Rows for scripts, and bytes as cells.
extension TextTable {
    /// Bytes of a key or value that a cell shows.
    static let cellBytesMax = 100

    /// One line per row, tabs between the cells; a tab or line break in a cell is a space.
    static func raw(_ rows: [[String]]) -> ByteBuffer {
        var text = ByteBuffer()
        for row in rows {
            let cells = row.map { cell in String(cell.map { $0 == "\t" || $0.isNewline ? " " : $0 }) }
            text.writeString(cells.joined(separator: "\t"))
            text.writeString("\n")
        }
        return text
    }

    /// Bytes of a key or value for people: text as it is, everything else as `\xNN`; the end of what is long is cut off.
    static func cell(_ bytes: some Collection<UInt8>) -> String {
        let shown = bytes.prefix(cellBytesMax)
        var text = ""
        if let whole = String(validating: shown, as: UTF8.self) {
            for scalar in whole.unicodeScalars {
                switch scalar {
                case "\\": text += "\\\\"
                case "\n": text += "\\n"
                case "\r": text += "\\r"
                case "\t": text += "\\t"
                case _ where scalar.properties.generalCategory == .control: text += escape(UInt8(scalar.value))
                default: text.unicodeScalars.append(scalar)
                }
            }
        } else {
            for byte in shown {
                if byte == UInt8(ascii: "\\") {
                    text += "\\\\"
                } else if (0x20..<0x7F).contains(byte) {
                    text.unicodeScalars.append(Unicode.Scalar(byte))
                } else {
                    text += escape(byte)
                }
            }
        }
        return bytes.count > cellBytesMax ? text + "… (\(bytes.count) bytes)" : text
    }

    private static func escape(_ byte: UInt8) -> String {
        "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
}
