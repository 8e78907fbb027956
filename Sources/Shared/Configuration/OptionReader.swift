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
