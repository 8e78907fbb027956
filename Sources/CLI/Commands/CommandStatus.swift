import Core

/// How `kv` ends, for scripts to act on.
///
/// This is the one place that says so: `kv --help` prints these lines, and a test compares docs/client.md with them.
enum CommandStatus: CInt, CaseIterable {
    case done = 0
    case notFound = 1
    case usage = 2
    case unavailable = 3
    case conditionFailed = 4
    /// As a shell has it for a program that SIGINT ended.
    case interrupted = 130

    var meaning: String {
        switch self {
        case .done: "done"
        case .notFound: "there is no such key"
        case .usage: "the command line or the input is wrong"
        case .unavailable: "the cluster, or a part of it, is not available, or refuses"
        case .conditionFailed:
            "a condition does not hold, a value is no number to count with, replicas differ or are damaged, a benchmark found "
                + "wrong or lost values"
        case .interrupted: "interrupted by SIGINT or SIGTERM"
        }
    }

    /// Number and meaning, a line each.
    static let table = allCases.map { status in
        let number = String(status.rawValue)
        return number + String(repeating: " ", count: 5 - number.count) + status.meaning
    }

    init(_ error: KVError) {
        switch error.code {
        case .notFound: self = .notFound
        case .invalidArgument: self = .usage
        case .preconditionFailed, .notAnInteger, .counterOverflow, .batchRefused: self = .conditionFailed
        default: self = .unavailable
        }
    }
}

/// Ends the program with a status and, where there is something to say, a line.
struct CommandFailure: Error, Equatable {
    var status: CommandStatus
    /// One line for standard error.
    var message: String?
}
