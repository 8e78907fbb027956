/// `kv bench --json FILE`, where every other command's `--json` is a flag.
///
/// The parser has one meaning for a name, wherever it stands, and takes the flag that all commands share. So a benchmark's
/// gets another name before it sees it.
enum BenchArguments {
    static let jsonFile = "json-file"
    private static let optionsWithValue: Set = ["--router", "--timeout", "--output"]
    /// Whose `--json` is the flag.
    private static let commandsWithFlag: Set = ["compare"]

    /// - Parameter arguments: without the program's name.
    static func rewritten(_ arguments: [String]) -> [String] {
        var words: [(index: Int, text: String)] = []
        var index = 0
        while index < arguments.count, words.count < 2 {
            let argument = arguments[index]
            if !argument.hasPrefix("-") { words.append((index, argument)) }
            index += optionsWithValue.contains(argument) ? 2 : 1
        }
        guard let first = words.first, first.text == "bench",
            !(words.count > 1 && words[1].index == first.index + 1 && commandsWithFlag.contains(words[1].text))
        else { return arguments }
        return arguments.enumerated().map { index, argument in
            guard index > first.index else { return argument }
            if argument == "--json" { return "--\(jsonFile)" }
            let prefix = "--json="
            return argument.hasPrefix(prefix) ? "--\(jsonFile)=\(argument.dropFirst(prefix.count))" : argument
        }
    }
}
