/// Durations as people write them in queries, flags and configuration: `500ms`, `30s`, `5m`, `2h`, `7d`.
public enum DurationText {
    private static let units: [(suffix: String, milliseconds: UInt64)] = [
        ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000),
    ]

    /// The milliseconds; nil for anything but a whole number and a unit, and where they do not fit.
    public static func milliseconds(_ text: some StringProtocol) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty, let number = UInt64(digits) else { return nil }
        let suffix = text[digits.endIndex...]
        guard let unit = units.first(where: { $0.suffix == suffix }) else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: unit.milliseconds)
        return overflow ? nil : product
    }
}
