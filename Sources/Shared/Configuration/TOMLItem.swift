import Core
import TOMLKit

/// A value of a TOML document, free of the library that parsed it.
///
/// The rest of this module knows only this type; the library is named in this file and nowhere else.
indirect enum TOMLItem {
    case string(String)
    case integer(Int)
    case double(Double)
    case bool(Bool)
    case dateOrTime
    case array([TOMLItem])
    case table([String: TOMLItem])

    /// Parses a document; its root is a table.
    /// - Parameter file: the name that error messages carry.
    /// - Throws: `KVError(.invalidConfiguration)` with file and line where the text is no TOML.
    static func parse(_ text: String, file: String) throws -> [String: TOMLItem] {
        if let end = text.utf8.firstIndex(of: 0) {
            // The library reads a C string and would silently ignore what follows.
            let line = text.utf8[..<end].count { $0 == UInt8(ascii: "\n") } + 1
            throw KVError(.invalidConfiguration, "\(file):\(line): not valid TOML: the file contains a NUL byte")
        }
        if let line = lineOfUnreadableHeader(text) {
            throw KVError(
                .invalidConfiguration,
                "\(file):\(line): not valid TOML: the name of a table begins with a letter of a to z, a digit, _ or -; "
                    + "put any other in quotes")
        }
        do {
            return try members(of: TOMLTable(string: text))
        } catch let error as TOMLParseError {
            let description = error.description.split(whereSeparator: \.isNewline).joined(separator: " ")
            throw KVError(
                .invalidConfiguration,
                "\(file):\(error.source.begin.line): not valid TOML: \(ShownText.of(description, charactersMax: 500))",
                cause: nil)
        }
    }

    /// The line of a `[` at whose name the library would not throw but end the process, by an assertion; nil for none.
    private static func lineOfUnreadableHeader(_ text: String) -> Int? {
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

    private static func members(of table: TOMLTable) -> [String: TOMLItem] {
        var members: [String: TOMLItem] = [:]
        for key in table.keys { members[key] = table[key].map(item) }
        return members
    }

    private static func item(_ value: any TOMLValueConvertible) -> TOMLItem {
        if let string = value.string { return .string(string) }
        if let integer = value.int { return .integer(integer) }
        if let bool = value.bool { return .bool(bool) }
        if let double = value.double { return .double(double) }
        if let array = value.array { return .array((0..<array.count).map { item(array[$0]) }) }
        if let table = value.table { return .table(members(of: table)) }
        return .dateOrTime
    }

    /// For "… is a string": article and type.
    var kind: String {
        switch self {
        case .string: "a string"
        case .integer: "an integer"
        case .double: "a floating-point number"
        case .bool: "a boolean"
        case .dateOrTime: "a date or time"
        case .array: "an array"
        case .table: "a table"
        }
    }
}
