/// Where a value stands in a TOML document: `shards[1].replicas[0]`.
struct SettingPath: Hashable, CustomStringConvertible {
    enum Component: Hashable {
        case key(String)
        case index(Int)
    }

    var components: [Component] = []

    static let root = SettingPath()

    func appending(_ key: String) -> SettingPath { SettingPath(components: components + [.key(key)]) }
    func appending(_ index: Int) -> SettingPath { SettingPath(components: components + [.index(index)]) }

    var description: String {
        var text = ""
        for component in components {
            switch component {
            case .key(let key):
                if !text.isEmpty { text += "." }
                text += SettingPath.isBare(key) ? key : SettingText.quote(key)
            case .index(let index): text += "[\(index)]"
            }
        }
        return text
    }

    private static func isBare(_ key: String) -> Bool {
        !key.isEmpty && key.utf8.allSatisfy(SourceLines.isBareKeyByte)
    }
}

/// Text as error messages show it.
enum SettingText {
    /// What a message shows of a value from the file.
    static let shownCharactersMax = 80

    /// In double quotes, on one line, cut where it is long.
    static func quote(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(shownCharactersMax) {
            shown +=
                scalar == "\"" || scalar == "\\" || scalar.value < 0x20
                ? scalar.escaped(asASCII: false) : String(scalar)
        }
        return "\"\(shown)\(text.unicodeScalars.count > shownCharactersMax ? "…" : "")\""
    }

    /// The one of `known` that `word` was most likely meant to be; nil where none is near.
    static func nearest(to word: String, in known: [String]) -> String? {
        let candidates = known.map { (name: $0, distance: editDistance(word.lowercased(), $0)) }
        guard let best = candidates.min(by: { ($0.distance, $0.name) < ($1.distance, $1.name) }) else { return nil }
        // Two slips in a short word, a third of a long one: beyond that the guess would mislead.
        return best.distance <= max(2, best.name.count / 3) ? best.name : nil
    }

    /// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other (Damerau).
    static func editDistance(_ left: String, _ right: String) -> Int {
        let left = Array(left.unicodeScalars.prefix(shownCharactersMax))
        let right = Array(right.unicodeScalars.prefix(shownCharactersMax))
        var rows = [Array(0...right.count)]
        for i in 1..<(left.count + 1) {
            var row = [i]
            for j in 1..<(right.count + 1) {
                var distance = min(
                    rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (left[i - 1] == right[j - 1] ? 0 : 1))
                if i > 1, j > 1, left[i - 1] == right[j - 2], left[i - 2] == right[j - 1] {
                    distance = min(distance, rows[i - 2][j - 2] + 1)
                }
                row.append(distance)
            }
            rows.append(row)
        }
        return rows[left.count][right.count]
    }
}
