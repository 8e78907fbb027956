/// Text that came from outside, as part of a message in one line.
public enum ShownText {
    /// As `text`, with U+FFFD for every control character and "…" for what is beyond `charactersMax`.
    public static func of(_ text: String, charactersMax: Int) -> String {
        guard text.utf8.count > charactersMax || text.utf8.contains(where: isControl) else { return text }
        var shown = String(
            String.UnicodeScalarView(
                text.unicodeScalars.prefix(charactersMax).map {
                    $0.properties.generalCategory == .control ? "\u{FFFD}" : $0
                }))
        if text.unicodeScalars.count > charactersMax { shown += "…" }
        return shown
    }

    /// ASCII's, or the first byte of those that are written in two bytes.
    private static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 || byte == 0x7F || byte == 0xC2 }
}
