/// Text as HTML and SVG have it.
enum Markup {
    /// Text between tags and in quoted attributes. What XML 1.0 has no character for becomes U+FFFD.
    static func escape(_ text: String) -> String {
        var escaped = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": escaped.append(contentsOf: "&amp;".unicodeScalars)
            case "<": escaped.append(contentsOf: "&lt;".unicodeScalars)
            case ">": escaped.append(contentsOf: "&gt;".unicodeScalars)
            case "\"": escaped.append(contentsOf: "&quot;".unicodeScalars)
            case "'": escaped.append(contentsOf: "&#39;".unicodeScalars)
            case "\t", "\n", "\r": escaped.append(scalar)
            case _ where scalar.value < 0x20 || scalar.value == 0xFFFE || scalar.value == 0xFFFF:
                escaped.append("\u{FFFD}")
            default: escaped.append(scalar)
            }
        }
        return String(escaped)
    }

    /// A coordinate, to a tenth.
    static func coordinate(_ value: Double) -> String {
        let tenths = (value * 10).rounded() / 10
        return tenths == tenths.rounded() ? String(Int(tenths)) : String(tenths)
    }

    /// - Parameter cells: escaped here.
    static func row(_ cells: [String], tag: String = "td") -> String {
        "<tr>" + cells.map { "<\(tag)>\(escape($0))</\(tag)>" }.joined() + "</tr>\n"
    }
}

/// Quantities with their units, for a page.
enum Quantity {
    /// `87 µs`, `1.25 ms`, `12.5 s`: three digits that count.
    static func latency(_ microseconds: Double) -> String {
        switch microseconds {
        // Three digits of 999.6 are those of the next unit.
        case 999_500...: "\(digits(microseconds / 1e6)) s"
        case 999.5...: "\(digits(microseconds / 1e3)) ms"
        default: "\(digits(microseconds)) µs"
        }
    }

    /// `950`, `51.2k`, `1.25M`
    static func rate(_ value: Double) -> String {
        switch value {
        case 999_500...: "\(digits(value / 1e6))M"
        case 999.5...: "\(digits(value / 1e3))k"
        default: digits(value)
        }
    }

    /// Three digits that count, without zeros behind the point.
    static func digits(_ value: Double) -> String {
        let places = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
        let power = [1, 10, 100][places]
        let scaled = Int((value * Double(power)).rounded())
        var fraction = places == 0 ? "" : String(scaled % power)
        fraction = String(repeating: "0", count: max(0, places - fraction.count)) + fraction
        while fraction.last == "0" { fraction.removeLast() }
        return String(scaled / power) + (fraction.isEmpty ? "" : "." + fraction)
    }
}
