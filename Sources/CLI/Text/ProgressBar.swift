/// A bar that fills up, for the last line of a terminal.
public enum ProgressBar {
    private static let roomMax = 40
    private static let roomMin = 5

    /// `[=====>    ]  53%  text`, at most `width` characters; the text alone where there is no room, or no fraction.
    public static func render(_ fraction: Double?, _ text: String, width: Int) -> String {
        guard let fraction else { return String(text.prefix(width)) }
        let percent = String(Int(fraction * 100))
        let text = String(repeating: " ", count: max(0, 3 - percent.count)) + percent + "%  " + text
        let room = min(width - text.count - 4, roomMax)
        guard room >= roomMin else { return String(text.prefix(width)) }
        let filled = Int(fraction * Double(room))
        let done = String(repeating: "=", count: max(0, filled - 1)) + (filled > 0 ? ">" : "")
        return "[\(done)\(String(repeating: " ", count: room - filled))]  \(text)"
    }
}
