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
        if let line = TOMLAssertions.lineOfUnreadableHeader(text) {
            throw KVError(
                .invalidConfiguration,
                "\(file):\(line): not valid TOML: the name of a table begins with a letter of a to z, a digit, _ or -; "
                    + "put any other in quotes")
        }
        if let line = TOMLAssertions.lineOfMissingValue(text) {
            throw KVError(.invalidConfiguration, "\(file):\(line): not valid TOML: a value is missing before \"}\"")
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
