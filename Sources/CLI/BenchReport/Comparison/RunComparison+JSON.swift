extension RunComparison: Encodable {
    private enum CodingKeys: String, CodingKey {
        case format
        case program
        case baseline
        case candidate
        case spread
        case differences
        case total
        case operations
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(Self.currentFormat, forKey: .format)
        try values.encode("kv bench compare", forKey: .program)
        try values.encode(baseline, forKey: .baseline)
        try values.encode(candidate, forKey: .candidate)
        try values.encode(spread, forKey: .spread)
        try values.encode(differences, forKey: .differences)
        try values.encode(total, forKey: .total)
        try values.encode(operations, forKey: .operations)
    }

    /// One line, with its newline.
    public func json() throws -> [UInt8] { try ReportCoding.encode(self) }
}

extension RunComparison.Ratio: Encodable {
    private enum CodingKeys: String, CodingKey {
        case baseline
        case candidate
        case ratio
        case low
        case high
        case change
    }

    /// To four places: more is noise.
    public func encode(to encoder: any Encoder) throws {
        func rounded(_ value: Double?) -> Double? { value.map { ($0 * 1e4).rounded() / 1e4 } }
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encodeIfPresent(rounded(baseline), forKey: .baseline)
        try values.encodeIfPresent(rounded(candidate), forKey: .candidate)
        try values.encodeIfPresent(rounded(ratio), forKey: .ratio)
        try values.encodeIfPresent(rounded(low), forKey: .low)
        try values.encodeIfPresent(rounded(high), forKey: .high)
        try values.encodeIfPresent(change, forKey: .change)
    }
}
