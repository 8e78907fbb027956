public import Wire

/// The parameters of a query, `name=value` joined by `&`, in their order, form decoding undone.
///
/// Invariant: no name stands twice. A parameter without `=` has an empty value.
public struct QueryParameters: Sendable, Hashable {
    public struct Parameter: Sendable, Hashable {
        public let name: String
        public let value: [UInt8]
    }

    public private(set) var parameters: [Parameter]

    /// - Parameter query: what follows the `?`, still percent-encoded; nil for none.
    /// - Throws: `bad-request` where a `%` is not followed by two hex digits, a name is not UTF-8 or stands twice.
    public init(_ query: Substring?) throws(Problem) {
        parameters = []
        if let query { try add(query.utf8) }
    }

    /// Adds parameters that are written as in a query: those of a form.
    ///
    /// - Throws: `bad-request` as ``init(_:)`` does.
    mutating func add(_ text: some Collection<UInt8>) throws(Problem) {
        for part in text.split(separator: UInt8(ascii: "&")) {
            let equals = part.firstIndex(of: UInt8(ascii: "="))
            let value = equals.map { part[part.index(after: $0)...] } ?? part[part.endIndex...]
            guard let nameBytes = PercentCoding.decode(part[..<(equals ?? part.endIndex)], plusIsSpace: true),
                let valueBytes = PercentCoding.decode(value, plusIsSpace: true)
            else { throw Problem(.badRequest, "A \"%\" in the query is not followed by two hex digits.") }
            guard let name = String(validating: nameBytes, as: UTF8.self) else {
                throw Problem(.badRequest, "The name of a query parameter is not UTF-8.")
            }
            guard !parameters.contains(where: { $0.name == name }) else {
                throw Problem(.badRequest, "The query parameter \"\(name)\" stands there twice.")
            }
            parameters.append(Parameter(name: name, value: valueBytes))
        }
    }

    /// The value of `name` as bytes; nil where the query does not name it.
    public func bytes(_ name: String) -> [UInt8]? { parameters.first { $0.name == name }?.value }

    /// The value of `name`; nil where the query does not name it.
    /// - Throws: `bad-request` where the value is not UTF-8.
    public func text(_ name: String) throws(Problem) -> String? {
        guard let bytes = bytes(name) else { return nil }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw Problem(.badRequest, "The query parameter \"\(name)\" is not UTF-8.")
        }
        return text
    }

    /// The value of `name` as a number in decimal; nil where the query does not name it.
    /// - Throws: `bad-request` where it is no such number or outside of `range`.
    public func integer<Number: FixedWidthInteger>(
        _ name: String, in range: ClosedRange<Number> = Number.min...Number.max
    ) throws(Problem) -> Number? {
        guard let text = try text(name) else { return nil }
        guard let number = Number(text), range.contains(number), text.utf8.first != UInt8(ascii: "+") else {
            throw Problem(
                .badRequest,
                "The query parameter \"\(name)\" must be a number from \(range.lowerBound) to \(range.upperBound).")
        }
        return number
    }

    /// `true` or `false`, or nothing at all after the name, which is true; nil where the query does not name it.
    /// - Throws: `bad-request` for any other value.
    public func flag(_ name: String) throws(Problem) -> Bool? {
        switch try text(name) {
        case nil: return nil
        case "true", "": return true
        case "false": return false
        default: throw Problem(.badRequest, "The query parameter \"\(name)\" must be true or false.")
        }
    }

    /// - Throws: `bad-request` where the query names a parameter outside of `names`.
    public func allowOnly(_ names: [String]) throws(Problem) {
        for parameter in parameters where !names.contains(parameter.name) {
            let known = names.isEmpty ? "none is known" : "known are " + names.joined(separator: ", ")
            throw Problem(.badRequest, "The query parameter \"\(parameter.name)\" is not known here: \(known).")
        }
    }
}
