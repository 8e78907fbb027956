import Core
import Dispatch
import Synchronization

/// What all scrubs of the process have come to.
public enum ScrubTotals {
    static let bytesRead = Atomic<UInt64>(0)
    static let passesDone = Atomic<UInt64>(0)
    static let damagedFilesFound = Atomic<UInt64>(0)
    static let differencesFound = Atomic<UInt64>(0)

    public static var bytes: UInt64 { bytesRead.load(ordering: .relaxed) }
    /// Passes that read everything.
    public static var passes: UInt64 { passesDone.load(ordering: .relaxed) }
    public static var damagedFiles: UInt64 { damagedFilesFound.load(ordering: .relaxed) }
    /// Followers whose content was another than their leader's.
    public static var differences: UInt64 { differencesFound.load(ordering: .relaxed) }
}

/// One pass of a scrub: its pace and its end. Thread-safe.
final class ScrubPass: Sendable {
    let number: UInt64
    /// nil for as fast as the disk is.
    let bytesPerSecond: Int?
    private let isEnded = Atomic<Bool>(false)
    private let wake = DispatchSemaphore(value: 0)
    private let bytes = Atomic<UInt64>(0)

    /// - Parameter bytesPerSecond: at least 1.
    init(number: UInt64, bytesPerSecond: Int?) {
        precondition(bytesPerSecond.map { $0 > 0 } ?? true, "a pass without a pace would never end")
        self.number = number
        self.bytesPerSecond = bytesPerSecond
    }

    static let ended = KVError(.unavailable, "the scrub was ended before it was through")

    /// Has the pass end before its next read.
    func end() {
        isEnded.store(true, ordering: .relaxed)
        wake.signal()
    }

    /// Bytes read of the file that is being read.
    var bytesOfFile: UInt64 { bytes.load(ordering: .relaxed) }

    func beginFile() { bytes.store(0, ordering: .relaxed) }

    /// Waits until `count` bytes may be read; false if the pass is to end.
    ///
    /// After a pause nothing is made up for: a disk that was busy is not read faster later.
    func allow(_ count: Int) -> Bool {
        if let bytesPerSecond {
            let microseconds = count.multipliedReportingOverflow(by: 1_000_000).partialValue / bytesPerSecond
            _ = wake.wait(timeout: .now() + .microseconds(microseconds))
        }
        guard !isEnded.load(ordering: .relaxed) else { return false }
        bytes.wrappingAdd(UInt64(count), ordering: .relaxed)
        ScrubTotals.bytesRead.wrappingAdd(UInt64(count), ordering: .relaxed)
        return true
    }
}
