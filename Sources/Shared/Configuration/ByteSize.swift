/// Sizes as people write them: `256MiB`.
public enum ByteSize {
    private static let units: [(name: String, bytes: Int)] = [
        ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1),
    ]

    /// Reads a whole number with a binary unit, `B`, `KiB`, `MiB`, `GiB` or `TiB`, with or without a blank before it.
    ///
    /// Nil for anything else: `256MB` is refused because half its readers would take it for 256,000,000.
    public static func parse(_ text: String) -> Int? {
        for unit in units where text.hasSuffix(unit.name) {
            var number = text.dropLast(unit.name.count)
            if number.last == " " { number.removeLast() }
            guard !number.isEmpty, number.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
                let count = Int(number)
            else { return nil }
            let (bytes, overflow) = count.multipliedReportingOverflow(by: unit.bytes)
            return overflow ? nil : bytes
        }
        return nil
    }

    /// The shortest exact form: 268435456 is `256MiB`, 1000 is `1000B`.
    public static func describe(_ bytes: Int) -> String {
        for unit in units where bytes >= unit.bytes && bytes % unit.bytes == 0 {
            return "\(bytes / unit.bytes)\(unit.name)"
        }
        return "\(bytes)B"
    }
}
