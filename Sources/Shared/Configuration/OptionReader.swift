public import Core
import FoundationEssentials

/// Finds the value of a flag: on the command line, else in the environment, else the default.
///
/// The variable of `--data-dir` is `DISTRIBKV_DATA_DIR`. A variable that is set to nothing counts as not set.
/// Every error is `KVError(.invalidArgument)` and names where the value came from.
public struct OptionReader: Sendable {
    let environment: [String: String]

    public init(environment: [String: String]) { self.environment = environment }

    /// Reads the environment of this process.
    public static var process: OptionReader { OptionReader(environment: ProcessInfo.processInfo.environment) }

    /// `--log-format` → `DISTRIBKV_LOG_FORMAT`
    public static func variable(of flag: String) -> String {
        "DISTRIBKV_" + flag.drop { $0 == "-" }.replacing("-", with: "_").uppercased()
    }

    /// A value and where it came from.
    struct Found {
        let text: String
        /// `--listen` or `DISTRIBKV_LISTEN`
        let origin: String
    }

    func find(_ flag: String, _ given: String?) -> Found? {
        if let given { return Found(text: given, origin: flag) }
        let variable = OptionReader.variable(of: flag)
        guard let text = environment[variable], !text.isEmpty else { return nil }
        return Found(text: text, origin: variable)
    }

    /// - Parameter given: what the command line said; nil where it did not.
    public func string(_ flag: String, _ given: String?) -> String? { find(flag, given)?.text }

    public func string(_ flag: String, _ given: String?, default fallback: String) -> String {
        find(flag, given)?.text ?? fallback
    }

    public func integer(_ flag: String, _ given: String?, in range: ClosedRange<Int>) throws -> Int? {
        guard let found = find(flag, given) else { return nil }
        guard let number = Int(found.text), range.contains(number) else {
            throw refuse(found, "an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    public func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ flag: String, _ given: String?, default fallback: Choice
    ) throws -> Choice {
        guard let found = find(flag, given) else { return fallback }
        guard let choice = Choice(rawValue: found.text) else {
            throw refuse(found, Choice.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return choice
    }

    /// - Parameter allowsPortZero: port 0 lets the system choose.
    public func address(_ flag: String, _ given: String?, allowsPortZero: Bool) throws -> NodeAddress? {
        guard let found = find(flag, given) else { return nil }
        guard let address = NodeAddress(found.text), allowsPortZero || address.port > 0 else {
            throw refuse(found, "host:port with a port from \(allowsPortZero ? 0 : 1) to 65535")
        }
        return address
    }

    /// A comma-separated list of routers or nodes, each `http://host:port` or `host:port`; nil where it is not given.
    public func seeds(_ flag: String, _ given: String?) throws -> [NodeAddress]? {
        guard let found = find(flag, given) else { return nil }
        var seeds: [NodeAddress] = []
        for entry in OptionReader.entries(of: found.text) {
            let authority = entry.hasPrefix("http://") ? entry.dropFirst("http://".count) : entry[...]
            let isURL = authority.last == "/" && authority.startIndex > entry.startIndex
            guard let seed = NodeAddress(isURL ? authority.dropLast() : authority), seed.port > 0 else {
                throw refuse(found, "the address of a router or node as http://host:port, several with commas")
            }
            if !seeds.contains(seed) { seeds.append(seed) }
        }
        guard !seeds.isEmpty else {
            throw refuse(found, "the address of a router or node as http://host:port, several with commas")
        }
        return seeds
    }

    /// The values of a flag that may be given several times, each a comma-separated list; each value once.
    public func list(_ flag: String, _ given: [String]) -> [String] {
        let texts = given.isEmpty ? find(flag, nil).map { [$0.text] } ?? [] : given
        var values: [String] = []
        for value in texts.flatMap(OptionReader.entries) where !values.contains(value) { values.append(value) }
        return values
    }

    private static func entries(of text: String) -> [String] {
        text.split(separator: ",").map { $0.trimmingPrefix { $0 == " " } }
            .map { String($0.reversed().trimmingPrefix { $0 == " " }.reversed()) }.filter { !$0.isEmpty }
    }

    /// A flag without a value; its variable is `true` or `false`.
    public func flag(_ flag: String, _ given: Bool) throws -> Bool {
        if given { return true }
        guard let found = find(flag, nil) else { return false }
        switch found.text.lowercased() {
        case "true", "yes", "1": return true
        case "false", "no", "0": return false
        default: throw refuse(found, "true or false")
        }
    }

    private func refuse(_ found: Found, _ allowed: String) -> KVError {
        KVError(
            .invalidArgument, "\(found.origin): \(SettingText.quote(found.text)) is not allowed; allowed: \(allowed)")
    }
}
