import Glibc

/// Runs inputs through a target, one after another. What it finds it prints with all that is needed to see it again.
struct Runner {
    /// Bytes that may be in use at the end beyond those after the first tenth of the inputs.
    static let memoryGrowthMax = 16 << 20

    let name: String
    let target: any FuzzTarget
    /// Of the processor's time: an input that takes longer is taken for an endless loop.
    var inputSecondsMax = 20

    /// - Parameters:
    ///   - start: the number of the first input; the others follow.
    ///   - seconds: ends earlier when they are over; nil for never.
    /// - Returns: false where something was found.
    func run(from start: UInt64, inputs: UInt64, seconds: Double?) -> Bool {
        CurrentInput.install(name)
        let mutator = Mutator(target)
        Runner.say("fuzz \(name): inputs \(inputs), seed \(start)")
        let began = Runner.now()
        var bytesBefore = 0
        var done: UInt64 = 0
        while done < inputs {
            let number = start &+ done
            if let defect = check(mutator.input(number)) {
                Runner.say("fuzz \(name): DEFECT at seed \(number): \(defect)")
                return false
            }
            done += 1
            if done == max(1, inputs / 10) { bytesBefore = Runner.bytesInUse() }
            if let seconds, done.isMultiple(of: 64), Runner.now() - began > seconds { break }
        }
        // A run that was cut short before it was warm says nothing about memory.
        let growth = bytesBefore == 0 ? 0 : Runner.bytesInUse() - bytesBefore
        Runner.say(
            "fuzz \(name): \(done) inputs in \(Int(Runner.now() - began)) s, memory \(growth >= 0 ? "+" : "")\(growth >> 10) KiB"
        )
        guard growth <= Runner.memoryGrowthMax else {
            Runner.say("fuzz \(name): DEFECT: \(growth) bytes more are in use than at the start")
            return false
        }
        return true
    }

    /// Runs one input.
    /// - Returns: what is wrong; nil where nothing is.
    func check(_ input: [UInt8]) -> String? {
        CurrentInput.begin(input, secondsMax: inputSecondsMax)
        defer { CurrentInput.end() }
        do {
            try target.run(input)
            return nil
        } catch {
            return "\(error)\n  replay: fuzz \(name) --replay \(Runner.hex(input))"
        }
    }

    /// At once: a trap later must not lose it.
    static func say(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    }

    static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef")
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Of the process, as the system counts them.
    private static func bytesInUse() -> Int {
        var text = [CChar](repeating: 0, count: 128)
        let descriptor = open("/proc/self/statm", O_RDONLY)
        defer { close(descriptor) }
        guard read(descriptor, &text, text.count - 1) > 0 else { return 0 }
        let pages = text.split(separator: 32).dropFirst().first.flatMap { digits in
            Int(String(decoding: digits.map { UInt8(bitPattern: $0) }, as: UTF8.self))
        }
        return (pages ?? 0) * sysconf(Int32(_SC_PAGESIZE))
    }
}

/// The input that is being read, where a signal's handler finds it: after a trap nothing else is left of it.
enum CurrentInput {
    nonisolated(unsafe) private static let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: Mutator.inputBytesMax)
    nonisolated(unsafe) private static var count = 0
    nonisolated(unsafe) private static let line = UnsafeMutablePointer<UInt8>.allocate(capacity: 128)
    nonisolated(unsafe) private static var lineCount = 0

    /// - Parameter name: of the target.
    static func install(_ name: String) {
        let text = Array(
            "fuzz \(name.prefix(40)): DEFECT: it crashed or hung\n  replay: fuzz \(name.prefix(40)) --replay ".utf8)
        text.withUnsafeBufferPointer { line.update(from: $0.baseAddress.unsafelyUnwrapped, count: $0.count) }
        lineCount = text.count
        // Whoever started this process may have held signals back.
        var none = sigset_t()
        sigemptyset(&none)
        sigprocmask(SIG_SETMASK, &none, nil)
        for signal in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGVTALRM] {
            Glibc.signal(signal) { number in
                CurrentInput.report()
                Glibc.signal(number, SIG_DFL)
                raise(number)
            }
        }
    }

    static func begin(_ input: [UInt8], secondsMax: Int) {
        count = min(input.count, Mutator.inputBytesMax)
        input.withUnsafeBufferPointer { if let start = $0.baseAddress { bytes.update(from: start, count: count) } }
        setTimer(seconds: secondsMax)
    }

    static func end() { setTimer(seconds: 0) }

    private static func setTimer(seconds: Int) {
        var timer = itimerval(it_interval: timeval(), it_value: timeval(tv_sec: seconds, tv_usec: 0))
        setitimer(__itimer_which_t(ITIMER_VIRTUAL.rawValue), &timer, nil)
    }

    /// Only what a signal's handler may call.
    private static func report() {
        write(1, line, lineCount)
        var pair: (UInt8, UInt8) = (0, 0)
        for index in 0..<count {
            let byte = bytes[index]
            pair.0 = digit(byte >> 4)
            pair.1 = digit(byte & 15)
            withUnsafeBytes(of: &pair) { _ = write(1, $0.baseAddress, 2) }
        }
        pair.0 = 10
        withUnsafeBytes(of: &pair) { _ = write(1, $0.baseAddress, 1) }
    }

    private static func digit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 48 + nibble : 87 + nibble }
}
