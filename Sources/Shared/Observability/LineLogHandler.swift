public import Logging

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Writes every log event as one line to a file descriptor, standard error by default.
///
/// A line leaves in one `write(2)`, so lines of several threads and processes do not mix. What cannot be written
/// (a full disk behind a redirected standard error) is dropped: logging never stops a node.
public struct LineLogHandler: LogHandler {
    public var logLevel: Logger.Level
    public var metadata: Logger.Metadata = [:]
    public var metadataProvider: Logger.MetadataProvider?
    private let format: LogFormat
    private let program: String
    private let descriptor: Int32

    /// - Parameters:
    ///   - program: `storage-node`, `router`, …: who writes the line.
    ///   - descriptor: stays open as long as the handler is used.
    public init(program: String, format: LogFormat, level: Logger.Level, descriptor: Int32 = 2) {
        self.program = program
        self.format = format
        self.logLevel = level
        self.descriptor = descriptor
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var all = metadataProvider?.get() ?? [:]
        all.merge(metadata) { $1 }
        if let metadata = event.metadata { all.merge(metadata) { $1 } }
        if let error = event.error { all["error"] = .string("\(error)") }
        let line = LogLine(
            format: format, program: program, milliseconds: LineLogHandler.now(), level: event.level,
            message: event.message.description, metadata: all)
        write(line.bytes)
    }

    private func write(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            var written = 0
            // One call, normally; a pipe that is full may take a line in pieces.
            while written < bytes.count {
                let count = unistdWrite(descriptor, bytes.baseAddress?.advanced(by: written), bytes.count - written)
                if count > 0 { written += count } else if errno != EINTR { return }
            }
        }
    }

    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// Makes this the handler of every `Logger` of the process. Once, before the first logger is made.
    ///
    /// Also ignores SIGPIPE: whoever reads standard error may go away, and that must not end the process.
    public static func bootstrap(program: String, format: LogFormat, level: Logger.Level) {
        signal(SIGPIPE, SIG_IGN)
        LoggingSystem.bootstrap { _ in LineLogHandler(program: program, format: format, level: level) }
    }
}

/// `write(2)`, which a method of the same name would hide.
private func unistdWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}
