import FoundationEssentials
import Glibc
import NIOPosix
import Synchronization

/// How a process ended.
enum ExitStatus: Sendable, Hashable {
    case exited(Int32)
    case signalled(Int32)
}

/// One real process of the cluster, its output in files.
///
/// The kernel kills it when the test process ends, however that happens. `deinit` kills it too.
final class ChildProcess: Sendable {
    struct SpawnFailed: Error, CustomStringConvertible {
        let description: String
    }

    private enum State {
        case running(pid_t)
        case ended(ExitStatus)
    }

    let name: String
    let commandLine: [String]
    /// Standard error, appended to over restarts.
    let logPath: String
    /// Standard output, likewise.
    let outputPath: String
    private let state: Mutex<State>

    /// The kernel's "parent died" signal goes by the thread that forked, so one thread that never ends starts all.
    private static let spawner: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
        return pool
    }()

    private init(name: String, commandLine: [String], logPath: String, outputPath: String, pid: pid_t) {
        self.name = name
        self.commandLine = commandLine
        self.logPath = logPath
        self.outputPath = outputPath
        state = Mutex(.running(pid))
    }

    deinit {
        if case .running(let pid) = state.withLock({ $0 }) {
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
        }
    }

    /// - Parameters:
    ///   - directory: takes `NAME.log` and `NAME.out`, and is where the process runs.
    ///   - environment: beside what this process has, less what would configure the project.
    static func start(
        _ name: String, _ commandLine: [String], directory: String, environment: [String: String] = [:]
    ) async throws -> ChildProcess {
        let logPath = "\(directory)/\(name).log"
        let outputPath = "\(directory)/\(name).out"
        let pid = try await spawner.runIfActive {
            try spawn(commandLine, environment: environment, outputPath: outputPath, logPath: logPath)
        }
        return ChildProcess(
            name: name, commandLine: commandLine, logPath: logPath, outputPath: outputPath, pid: pid)
    }

    private static func spawn(
        _ commandLine: [String], environment: [String: String], outputPath: String, logPath: String
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_addopen(&actions, 2, logPath, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        guard let closeFrom = ChildProcess.addCloseFrom, closeFrom(&actions, 3) == 0 else {
            throw SpawnFailed(description: "this C library cannot close descriptors in a new process")
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var variables = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("DISTRIBKV_") }
        variables.merge(environment) { $1 }
        let arguments = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"] + commandLine
        let argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        let envp: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in argv + envp { free(text) } }
        var pid: pid_t = 0
        let failure = posix_spawn(&pid, arguments[0], &actions, &attributes, argv, envp)
        guard failure == 0 else {
            throw SpawnFailed(description: "cannot start \(commandLine[0]): \(String(cString: strerror(failure)))")
        }
        return pid
    }

    /// `posix_spawn_file_actions_addclosefrom_np` of glibc 2.34, which its headers hide from Swift.
    ///
    /// Without it a process inherits the test's own connections, and they stay open as long as it runs.
    private static let addCloseFrom = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np").map {
        unsafeBitCast(
            $0, to: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32).self)
    }

    /// nil while it runs.
    var exitStatus: ExitStatus? {
        state.withLock { state in
            guard case .running(let pid) = state else {
                if case .ended(let status) = state { return status }
                return nil
            }
            var raw: Int32 = 0
            guard waitpid(pid, &raw, WNOHANG) == pid else { return nil }
            // WIFEXITED, WEXITSTATUS and WTERMSIG are macros that Swift does not see.
            let status: ExitStatus = raw & 0x7F == 0 ? .exited((raw >> 8) & 0xFF) : .signalled(raw & 0x7F)
            state = .ended(status)
            return status
        }
    }

    var isRunning: Bool { exitStatus == nil }

    var pid: pid_t? {
        state.withLock { if case .running(let pid) = $0 { pid } else { nil } }
    }

    /// Does nothing once the process has been seen to end: its number may be another's by then.
    func signal(_ number: Int32) {
        state.withLock { if case .running(let pid) = $0 { _ = Glibc.kill(pid, number) } }
    }

    @discardableResult
    func waitForExit() async throws -> ExitStatus {
        try await eventually("the end of \(name)") { exitStatus }
    }

    /// SIGKILL, and gone when it returns.
    func killHard() async throws {
        signal(SIGKILL)
        try await waitForExit()
    }

    /// SIGSTOP, and standing still when it returns.
    func freeze() async throws {
        signal(SIGSTOP)
        let pid = pid ?? 0
        try await eventually("\(name) to stand still") {
            // The state is the first word behind the name in brackets.
            let fields = kernelText("/proc/\(pid)/stat").split(separator: ")").last?.split(separator: " ")
            return fields?.first == "T"
        }
    }

    /// SIGCONT.
    func thaw() { signal(SIGCONT) }

    /// SIGTERM, and gone when it returns.
    @discardableResult
    func terminate() async throws -> ExitStatus {
        signal(SIGTERM)
        return try await waitForExit()
    }

    var log: String { text(ofFile: logPath) }
    var output: String { text(ofFile: outputPath) }
}

/// Empty where there is no such file.
func text(ofFile path: String) -> String {
    guard let bytes = FileManager.default.contents(atPath: path) else { return "" }
    return String(decoding: bytes, as: UTF8.self)
}
