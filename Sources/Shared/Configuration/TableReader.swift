import Core

/// What is wrong with a file, collected so that the most telling complaint can be shown.
final class Diagnostics {
    /// An unknown key comes first: a misspelt key also shows up as a missing one, which would mislead.
    enum Kind: Int { case unknownKey, wrongValue }

    private struct Complaint {
        let kind: Kind
        let line: Int?
        let text: String
    }

    let file: String
    private let lines: SourceLines
    private var complaints: [Complaint] = []

    init(file: String, lines: SourceLines) {
        self.file = file
        self.lines = lines
    }

    var isEmpty: Bool { complaints.isEmpty }

    func line(of path: SettingPath) -> Int? { lines.line(of: path) }

    func complain(_ path: SettingPath, _ message: String, kind: Kind = .wrongValue) {
        let line = lines.line(of: path)
        let place = line.map { "\(file):\($0)" } ?? file
        complaints.append(Complaint(kind: kind, line: line, text: "\(place): \(path): \(message)"))
    }

    /// Throws `KVError(.invalidConfiguration)` with the first complaint, where there is one.
    func throwFirst() throws {
        let first = complaints.enumerated().min {
            ($0.element.kind.rawValue, $0.element.line ?? 0, $0.offset)
                < ($1.element.kind.rawValue, $1.element.line ?? 0, $1.offset)
        }
        if let first {
            throw KVError(.invalidConfiguration, ShownText.of(first.element.text, charactersMax: 1_000))
        }
    }
}

/// Reads the values of one table.
///
/// A value that is wrong or missing is a complaint, and the reader goes on with the default. Every key asked for is
/// known from then on, so ``finish()`` can tell which keys of the file nothing asks for. ``settings`` keeps what was
/// asked for, which is how the reference in the documentation is checked against this code.
struct TableReader {
    let path: SettingPath
    let members: [String: TOMLItem]
    let diagnostics: Diagnostics
    private(set) var settings: [SettingReference] = []

    init(path: SettingPath, members: [String: TOMLItem], diagnostics: Diagnostics) {
        self.path = path
        self.members = members
        self.diagnostics = diagnostics
    }

    /// A member that no scalar reader below reads: an array or a table.
    mutating func item(_ key: String, allowed: String) -> TOMLItem? {
        settings.append(SettingReference(table: "\(path)", key: key, defaultText: nil, allowed: allowed, isTable: true))
        return members[key]
    }

    mutating func string(
        _ key: String, default fallback: String?, allowed: String, where isAllowed: (String) -> Bool
    ) -> String? {
        value(key, default: fallback, defaultText: fallback.map(SettingText.quote), allowed: allowed) { item in
            guard case .string(let text) = item else { return .wrongType }
            return isAllowed(text) ? .value(text) : .wrong(SettingText.quote(text) + " is not allowed")
        }
    }

    mutating func integer(_ key: String, default fallback: Int?, in range: ClosedRange<Int>) -> Int? {
        let allowed = "an integer from \(range.lowerBound) to \(range.upperBound)"
        return value(key, default: fallback, defaultText: fallback.map { "\($0)" }, allowed: allowed) { item in
            guard case .integer(let number) = item else { return .wrongType }
            return range.contains(number) ? .value(number) : .wrong("\(number) is out of range")
        }
    }

    /// A size: an integer of bytes or a string such as `"256MiB"`.
    mutating func bytes(_ key: String, default fallback: Int, in range: ClosedRange<Int>) -> Int {
        let bounds = "\(ByteSize.describe(range.lowerBound)) to \(ByteSize.describe(range.upperBound))"
        let allowed = "\(bounds), as bytes or as a string like \"256MiB\""
        let defaultText = SettingText.quote(ByteSize.describe(fallback))
        return value(key, default: fallback, defaultText: defaultText, allowed: allowed) { item in
            TableReader.size(item, in: range)
        } ?? fallback
    }

    /// As ``bytes(_:default:in:)``, or `"auto"`, the default, for which this is nil.
    mutating func bytesOrAuto(_ key: String, in range: ClosedRange<Int>) -> Int? {
        let bounds = "\(ByteSize.describe(range.lowerBound)) to \(ByteSize.describe(range.upperBound))"
        let allowed = "\"auto\" or \(bounds), as bytes or as a string like \"256MiB\""
        let bytes: Int?? = value(key, default: .some(nil), defaultText: "\"auto\"", allowed: allowed) { item in
            if case .string("auto") = item { return .value(nil) }
            return switch TableReader.size(item, in: range) {
            case .value(let number): .value(number)
            case .wrongType: .wrongType
            case .wrong(let complaint): .wrong(complaint)
            }
        }
        return bytes ?? nil
    }

    private static func size(_ item: TOMLItem, in range: ClosedRange<Int>) -> Reading<Int> {
        switch item {
        case .integer(let number):
            return range.contains(number) ? .value(number) : .wrong("\(number) is out of range")
        case .string(let text):
            guard let number = ByteSize.parse(text) else {
                return .wrong(SettingText.quote(text) + " is not a size")
            }
            return range.contains(number) ? .value(number) : .wrong(SettingText.quote(text) + " is out of range")
        default: return .wrongType
        }
    }

    mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ key: String, default fallback: Choice
    ) -> Choice {
        let allowed = Choice.allCases.map { SettingText.quote($0.rawValue) }.joined(separator: ", ")
        let defaultText = SettingText.quote(fallback.rawValue)
        return value(key, default: fallback, defaultText: defaultText, allowed: allowed) { item in
            guard case .string(let text) = item else { return .wrongType }
            return Choice(rawValue: text).map { .value($0) } ?? .wrong(SettingText.quote(text) + " is not allowed")
        } ?? fallback
    }

    mutating func address(_ key: String) -> NodeAddress? {
        value(key, default: nil, defaultText: nil, allowed: TableReader.addressAllowed, TableReader.address)
    }

    /// An array of addresses; empty where it is missing.
    mutating func addresses(_ key: String) -> [NodeAddress] {
        let allowed = "an array of addresses, each \(TableReader.addressAllowed)"
        let (path, diagnostics) = (path, diagnostics)
        return value(key, default: [], defaultText: "[]", allowed: allowed) { item in
            guard case .array(let items) = item else { return .wrongType }
            return .value(
                items.enumerated().compactMap { index, item in
                    let path = path.appending(key).appending(index)
                    return TableReader.checked(
                        item, at: path, diagnostics, allowed: TableReader.addressAllowed, TableReader.address)
                })
        } ?? []
    }

    /// Complains about every member that nothing asked for.
    func finish(noun: String = "key") {
        let known = settings.map(\.key)
        for key in members.keys.sorted() where !known.contains(key) {
            let guess = SettingText.nearest(to: key, in: known).map { "did you mean \"\($0)\"? " } ?? ""
            diagnostics.complain(
                path.appending(key), "unknown \(noun); \(guess)known here: \(known.sorted().joined(separator: ", "))",
                kind: .unknownKey)
        }
    }

    private enum Reading<Value> {
        case value(Value)
        case wrongType
        case wrong(String)
    }

    private static let addressAllowed = "\"host:port\" with a port from 1 to 65535"

    private static func address(_ item: TOMLItem) -> Reading<NodeAddress> {
        guard case .string(let text) = item else { return .wrongType }
        guard let address = NodeAddress(text), address.port > 0 else {
            return .wrong(SettingText.quote(text) + " is not an address")
        }
        return .value(address)
    }

    private mutating func value<Value>(
        _ key: String, default fallback: Value?, defaultText: String?, allowed: String,
        _ read: (TOMLItem) -> Reading<Value>
    ) -> Value? {
        settings.append(SettingReference(table: "\(path)", key: key, defaultText: defaultText, allowed: allowed))
        guard let item = members[key] else {
            if fallback == nil { diagnostics.complain(path.appending(key), "missing; required: \(allowed)") }
            return fallback
        }
        return TableReader.checked(item, at: path.appending(key), diagnostics, allowed: allowed, read) ?? fallback
    }

    private static func checked<Value>(
        _ item: TOMLItem, at path: SettingPath, _ diagnostics: Diagnostics, allowed: String,
        _ read: (TOMLItem) -> Reading<Value>
    ) -> Value? {
        switch read(item) {
        case .value(let value): return value
        case .wrongType: diagnostics.complain(path, "\(item.kind) is not allowed; allowed: \(allowed)")
        case .wrong(let complaint): diagnostics.complain(path, "\(complaint); allowed: \(allowed)")
        }
        return nil
    }
}

/// One key of `sharding.toml` as the documentation describes it.
struct SettingReference: Hashable {
    /// Empty at the top of the file.
    let table: String
    let key: String
    /// As it would stand in the file; nil where the key is required or is a table.
    let defaultText: String?
    let allowed: String
    var isTable = false
}
