/// The line of every key and array element of a TOML document.
///
/// The TOML library gives positions for syntax errors only, so this walks the text once more. It relies on the
/// text being valid TOML: on anything else it still ends, but its lines mean nothing.
struct SourceLines {
    private var lines: [SettingPath: Int] = [:]

    /// The line of `path`, or of the nearest table or array around it; nil at the root.
    func line(of path: SettingPath) -> Int? {
        var path = path
        while !path.components.isEmpty {
            if let line = lines[path] { return line }
            path.components.removeLast()
        }
        return nil
    }

    init(_ text: String) {
        var scanner = Scanner(bytes: Array(text.utf8))
        scanner.scan()
        lines = scanner.lines
    }

    static func isBareKeyByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }
}

extension SourceLines {
    private struct Scanner {
        let bytes: [UInt8]
        var position = 0
        var line = 1
        var lines: [SettingPath: Int] = [:]
        /// Tables seen so far of every `[[array of tables]]`.
        var tableCounts: [SettingPath: Int] = [:]

        init(bytes: [UInt8]) { self.bytes = bytes }

        /// 0 at the end; a NUL cannot stand in TOML.
        private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

        private func at(_ text: StaticString) -> Bool {
            position + text.utf8CodeUnitCount <= bytes.count
                && text.withUTF8Buffer { bytes[position..<(position + $0.count)].elementsEqual($0) }
        }

        private mutating func advance(_ count: Int = 1) {
            for _ in 0..<count where position < bytes.count {
                if bytes[position] == UInt8(ascii: "\n") { line += 1 }
                position += 1
            }
        }

        mutating func scan() {
            var table = SettingPath.root
            skipBlank()
            while position < bytes.count {
                let start = position
                if at("[[") {
                    advance(2)
                    table = header(isArray: true)
                    advance(2)
                } else if at("[") {
                    advance()
                    table = header(isArray: false)
                    advance()
                } else {
                    assignment(in: table)
                }
                skipBlank()
                if position == start { advance() }
            }
        }

        /// Reads the key of a table header and enters it.
        private mutating func header(isArray: Bool) -> SettingPath {
            let line = line
            var path = SettingPath.root
            let keys = key()
            for (offset, key) in keys.enumerated() {
                path = path.appending(key)
                if isArray, offset == keys.count - 1 {
                    let index = tableCounts[path, default: 0]
                    tableCounts[path] = index + 1
                    record(path, line)
                    path = path.appending(index)
                } else if let count = tableCounts[path] {
                    path = path.appending(count - 1)
                }
                record(path, line)
            }
            return path
        }

        /// `key = value`
        private mutating func assignment(in table: SettingPath) {
            var path = table
            for key in key() {
                path = path.appending(key)
                record(path, line)
            }
            if at("=") { advance() }
            skipSpaces()
            value(path)
        }

        private mutating func record(_ path: SettingPath, _ line: Int) {
            if lines[path] == nil { lines[path] = line }
        }

        /// A possibly dotted key, and the blanks after it.
        private mutating func key() -> [String] {
            var keys: [String] = []
            while true {
                skipSpaces()
                if at("\"") || at("'") {
                    let start = position + 1
                    string()
                    keys.append(String(decoding: bytes[start..<max(start, position - 1)], as: UTF8.self))
                } else {
                    let start = position
                    while SourceLines.isBareKeyByte(current) { advance() }
                    keys.append(String(decoding: bytes[start..<position], as: UTF8.self))
                }
                skipSpaces()
                guard at(".") else { return keys }
                advance()
            }
        }

        private mutating func value(_ path: SettingPath) {
            switch current {
            case UInt8(ascii: "\""), UInt8(ascii: "'"): string()
            case UInt8(ascii: "["): array(path)
            case UInt8(ascii: "{"): inlineTable(path)
            default: while position < bytes.count, !at(","), !at("]"), !at("}"), !at("#"), !at("\n") { advance() }
            }
        }

        private mutating func array(_ path: SettingPath) {
            advance()
            skipBlank()
            var index = 0
            while position < bytes.count, !at("]") {
                let start = position
                record(path.appending(index), line)
                value(path.appending(index))
                index += 1
                skipBlank()
                if at(",") { advance() }
                skipBlank()
                if position == start { return }
            }
            advance()
        }

        private mutating func inlineTable(_ path: SettingPath) {
            advance()
            skipBlank()
            while position < bytes.count, !at("}") {
                let start = position
                assignment(in: path)
                skipBlank()
                if at(",") { advance() }
                skipBlank()
                if position == start { return }
            }
            advance()
        }

        /// Any of the four kinds of string.
        private mutating func string() {
            let quote = current
            let isBasic = quote == UInt8(ascii: "\"")
            let isMultiline = isBasic ? at("\"\"\"") : at("'''")
            advance(isMultiline ? 3 : 1)
            while position < bytes.count {
                if isBasic, at("\\") {
                    advance(2)
                } else if isMultiline ? (isBasic ? at("\"\"\"") : at("'''")) : current == quote {
                    advance(isMultiline ? 3 : 1)
                    // Up to two quotes may stand before the closing three.
                    while isMultiline, current == quote { advance() }
                    return
                } else {
                    advance()
                }
            }
        }

        private mutating func skipSpaces() { while at(" ") || at("\t") { advance() } }

        /// Blanks, line ends and comments.
        private mutating func skipBlank() {
            while position < bytes.count {
                if at(" ") || at("\t") || at("\r") || at("\n") {
                    advance()
                } else if at("#") {
                    while position < bytes.count, !at("\n") { advance() }
                } else {
                    return
                }
            }
        }
    }
}
