public import Core
import FoundationEssentials

extension RunReport.Operation: Codable {
    private enum CodingKeys: String, CodingKey {
        case count
        case errors
        case errorsByType = "errors_by_type"
        case max = "max_us"
    }

    /// The latencies stand beside the counts.
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        count = try values.decode(UInt64.self, forKey: .count)
        errors = try values.decode(UInt64.self, forKey: .errors)
        errorsByType = try values.decode([String: UInt64].self, forKey: .errorsByType)
        latency = values.contains(.max) ? try LatencySummary(from: decoder) : nil
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(count, forKey: .count)
        try values.encode(errors, forKey: .errors)
        try values.encode(errorsByType, forKey: .errorsByType)
        try latency?.encode(to: encoder)
    }
}

/// How the documents of `kv bench` are written and read: one line of JSON, members by name, times in UTC.
enum ReportCoding {
    private struct Header: Decodable {
        var format: Int
        var program: String
    }

    static func encode(_ document: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .iso8601
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(document)) + [UInt8(ascii: "\n")]
    }

    /// Throws `KVError(.invalidArgument)` where the bytes are not a document of `program` in the format `format`.
    static func decode<Document: Decodable>(
        _ type: Document.Type, from bytes: [UInt8], name: String, program: String, format: Int
    ) throws(KVError) -> Document {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        let data = Data(bytes)
        guard let header = try? decoder.decode(Header.self, from: data), header.program == program else {
            throw KVError(.invalidArgument, "\(name) is no report of \(program): give a file that its --json wrote")
        }
        guard header.format == format else {
            throw KVError(
                .invalidArgument,
                "\(name) has format \(header.format), and this kv reads \(format): measure again with one version")
        }
        do {
            return try decoder.decode(type, from: data)
        } catch {
            throw KVError(.invalidArgument, "\(name) is damaged: \(reason(error))")
        }
    }

    private static func reason(_ error: any Error) -> String {
        func path(_ keys: [any CodingKey]) -> String {
            keys.isEmpty ? "a number" : keys.map(\.stringValue).joined(separator: ".")
        }
        switch error {
        case DecodingError.keyNotFound(let key, let context): return "\(path(context.codingPath + [key])) is missing"
        case DecodingError.typeMismatch(_, let context), DecodingError.valueNotFound(_, let context),
            DecodingError.dataCorrupted(let context):
            return "\(path(context.codingPath)) is not what it should be"
        default: return "\(error)"
        }
    }
}

extension RunReport {
    /// One line, with its newline.
    public func json() throws -> [UInt8] { try ReportCoding.encode(self) }

    /// Reads what ``json()`` wrote.
    ///
    /// Throws `KVError(.invalidArgument)`, in one line, where it is something else, of another format, or damaged.
    /// - Parameter name: of the file, for messages.
    public init(json bytes: [UInt8], name: String) throws(KVError) {
        self = try ReportCoding.decode(
            RunReport.self, from: bytes, name: name, program: "kv bench", format: Self.currentFormat)
    }
}
