import Dispatch
import Glibc
import ImportPipeline
import Synchronization

/// Shows an import that is running on standard error: a bar on a terminal, else a line now and then.
final class ImportDisplay: Sendable {
    private static let barInterval = Duration.milliseconds(200)
    private static let lineInterval = Duration.seconds(5)

    private let start: ContinuousClock.Instant
    private let isTerminal: Bool
    private let state: Mutex<State>

    private struct State {
        var text: ProgressText
        /// A bar stands on the terminal's last line.
        var isBarShown = false
    }

    init(total: UInt64?, start: ContinuousClock.Instant) {
        self.start = start
        isTerminal = Console.terminalWidth != nil
        state = Mutex(State(text: ProgressText(total: total)))
    }

    /// Runs `work` and shows `progress` meanwhile.
    func show<Result: Sendable>(
        _ progress: ImportProgress, while work: @escaping @Sendable () async -> Result
    ) async -> Result {
        // Where the rate is counted from.
        state.withLock { $0.text.observe(progress.counts, seconds: 0) }
        return await withTaskGroup(of: Void.self) { group in
            group.addTask {
                // Ends with the group's cancellation, which the sleep throws.
                while (try? await Task.sleep(for: self.isTerminal ? Self.barInterval : Self.lineInterval)) != nil {
                    self.draw(progress.counts)
                }
            }
            let result = await work()
            group.cancelAll()
            await group.waitForAll()
            if isTerminal { draw(progress.counts) }
            endBar()
            return result
        }
    }

    /// Writes a line, above the bar where there is one.
    func say(_ line: String) {
        endBar()
        Console.error(line)
    }

    private func draw(_ counts: ImportCounts) {
        let seconds = (ContinuousClock.now - start).seconds
        let width = Console.terminalWidth
        let text = state.withLock { state in
            state.text.observe(counts, seconds: seconds)
            state.isBarShown = width != nil
            return width.map { state.text.bar(counts, width: $0 - 1) } ?? state.text.line(counts)
        }
        if width == nil { Console.error(text) } else { Console.draw(bar: text) }
    }

    private func endBar() {
        let wasShown = state.withLock { state in
            defer { state.isBarShown = false }
            return state.isBarShown
        }
        if wasShown { Console.errorText("\n") }
    }
}

/// Lets SIGINT and SIGTERM end work by cancelling its task, so that it can say where it was.
enum Interruptible {
    static func run<Result: Sendable>(_ work: @escaping @Sendable () async -> Result) async -> Result {
        let task = Task { await work() }
        let sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                task.cancel()
                // From a moment later on, another one ends the program at once. Not before: some shells and wrappers
                // send the same one twice.
                DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(500)) { signal(number, SIG_DFL) }
            }
            source.resume()
            return source
        }
        let result = await task.value
        for (number, source) in zip([SIGINT, SIGTERM], sources) {
            source.cancel()
            signal(number, SIG_DFL)
        }
        return result
    }
}
