/// Numbers for people.
public enum Format {
    /// `1,234,567`
    public static func count(_ number: UInt64) -> String {
        let digits = Array(String(number))
        var text = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text += "," }
            text.append(digit)
        }
        return text
    }

    /// `512 B`, `1.5 KiB`, `12.0 MiB`
    public static func bytes(_ number: UInt64) -> String {
        guard number >= 1_024 else { return "\(number) B" }
        var (value, unit) = (Double(number), 0)
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        // 1023.95 would be written as 1024.0.
        while value >= 1_023.95 && unit < units.count - 1 {
            value /= 1_024
            unit += 1
        }
        return "\(decimal(value)) \(units[unit])"
    }

    /// One digit after the point.
    public static func decimal(_ number: Double) -> String {
        let tenths = UInt64((number * 10).rounded())
        return "\(count(tenths / 10)).\(tenths % 10)"
    }

    /// `0:07`, `12:34`, `1:02:03`
    public static func duration(_ seconds: Double) -> String {
        let whole = UInt64(max(0, min(seconds, 359_999)).rounded())
        func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let (hours, minutes) = (whole / 3_600, whole / 60 % 60)
        return hours > 0 ? "\(hours):\(two(minutes)):\(two(whole % 60))" : "\(minutes):\(two(whole % 60))"
    }
}
