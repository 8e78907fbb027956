import Core
import LSM
import Logging
import NIOCore
import Synchronization
import TestSupport
import Wire

@testable import Shard

/// Clocks that stand still until they are moved.
final class ManualClock: Sendable {
    private let wall = Atomic<UInt64>(1_000_000)
    private let monotonic = Atomic<UInt64>(0)

    var clock: ShardClock {
        ShardClock(
            wallMilliseconds: { [self] in wall.load(ordering: .relaxed) },
            monotonicMilliseconds: { [self] in monotonic.load(ordering: .relaxed) })
    }

    func setWall(_ milliseconds: UInt64) { wall.store(milliseconds, ordering: .relaxed) }
    func advance(_ milliseconds: UInt64) { monotonic.wrappingAdd(milliseconds, ordering: .relaxed) }
}

/// Keeps what is written in memory, fails and holds on demand.
final class TwinSink: WriteSink {
    struct State {
        var batches: [[UInt8]] = []
        var syncedWrites = 0
        var syncs = 0
        var failWrites: KVError?
        var failSyncs: KVError?
        var reads = 0
        var failReads: KVError?
    }

    let state = Mutex(State())
    private let behind: (any WriteSink)?
    private let gate = Gate()

    init(behind: (any WriteSink)? = nil) { self.behind = behind }

    /// From now on a write waits inside until ``release()``.
    func hold() { gate.close() }
    func release() { gate.open() }
    /// How many writes wait inside.
    var waiting: Int { gate.waiting }

    func write(_ batch: UnsafeRawBufferPointer, sync: Bool) throws(KVError) {
        gate.pass()
        let failure = state.withLock { state in
            if let failure = state.failWrites { return Optional(failure) }
            state.batches.append(Array(batch))
            if sync { state.syncedWrites += 1 }
            return nil
        }
        if let failure { throw failure }
        try behind?.write(batch, sync: sync)
    }

    func syncWAL() throws(KVError) {
        let failure = state.withLock { state in
            state.syncs += 1
            return state.failSyncs
        }
        if let failure { throw failure }
        try behind?.syncWAL()
    }

    func trimArchivedLogs(keepingBytes bytes: Int) throws(KVError) -> Int {
        try behind?.trimArchivedLogs(keepingBytes: bytes) ?? 0
    }
}

/// Finds what was written last.
extension TwinSink: ValueSource {
    func read(key: ByteBuffer, tier: ReadTier, _ body: (Lookup) -> Void) throws(KVError) {
        let (batches, failure) = state.withLock { state in
            state.reads += 1
            return (state.batches, state.failReads)
        }
        if let failure { throw failure }
        for batch in batches.reversed() {
            let outcome = batch.withUnsafeBytes { bytes -> Result<Bool, KVError> in
                do throws(KVError) {
                    guard let lookup = try TwinSink.last(key, in: bytes) else { return .success(false) }
                    body(lookup)
                    return .success(true)
                } catch {
                    return .failure(error)
                }
            }
            if try outcome.get() { return }
        }
        body(.missing)
    }

    /// What a batch leaves of a key; nil where it does not touch it.
    private static func last(_ key: ByteBuffer, in batch: UnsafeRawBufferPointer) throws(KVError) -> Lookup? {
        var found: Lookup?
        var reader = try WriteBatchReader(batch)
        while let record = try reader.next() {
            guard record.key.first == KeySpace.user, record.key.dropFirst().elementsEqual(key.readableBytesView) else {
                continue
            }
            let stored = record.value.flatMap { StoredValue(decoding: $0) }
            found = stored.map { .value($0) } ?? .missing
        }
        return found
    }
}

/// Keeps the promise in memory, fails on demand.
final class TwinPromises: PromiseStore {
    struct State {
        var promise: TermPromise?
        var saves = 0
        var fail: KVError?
    }

    let state = Mutex(State())

    func save(_ promise: TermPromise) throws(KVError) {
        let failure = state.withLock { state in
            state.saves += 1
            if state.fail == nil { state.promise = promise }
            return state.fail
        }
        if let failure { throw failure }
    }
}

/// Blocks a thread until it is opened.
final class Gate: Sendable {
    private let isOpen = Atomic<Bool>(true)
    private let inside = Atomic<Int>(0)

    var waiting: Int { inside.load(ordering: .sequentiallyConsistent) }
    func open() { isOpen.store(true, ordering: .sequentiallyConsistent) }
    func close() { isOpen.store(false, ordering: .sequentiallyConsistent) }

    func pass() {
        inside.wrappingAdd(1, ordering: .sequentiallyConsistent)
        defer { inside.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
        while !isOpen.load(ordering: .sequentiallyConsistent) { _ = DispatchYield.yield() }
    }
}

/// Collects values from other threads.
final class Collector<Value: Sendable>: Sendable {
    private let values = Mutex<[Value]>([])

    func add(_ value: Value) { values.withLock { $0.append(value) } }
    var all: [Value] { values.withLock { $0 } }
}

struct DeadlineExceeded: Error {}

/// Waits for a condition, at most ten seconds.
func eventually(_ condition: () -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(10)
    while !condition() {
        guard ContinuousClock.now < deadline else { throw DeadlineExceeded() }
        await Task.yield()
    }
}

extension ShardConfiguration {
    static func test(_ directory: TemporaryDirectory, name: String = "shard-0") -> ShardConfiguration {
        var configuration = ShardConfiguration(name: name, cluster: "test", directory: directory.path + "/" + name)
        configuration.durability = .os
        return configuration
    }
}

extension SyncedMark {
    /// Changes what a replica that is closed knows of its log.
    static func change(in configuration: ShardConfiguration, _ body: (inout SyncedMark) -> Void) throws {
        guard case .mark(var mark) = try load(from: configuration.directory) else {
            throw KVError(.internalError, "there is no mark in \(configuration.directory)")
        }
        body(&mark)
        try mark.save(to: configuration.directory)
    }
}

let quietLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

func put(_ key: String, _ value: String) -> WriteOperation {
    .put(key: ByteBuffer(string: key), value: ByteBuffer(string: value))
}

func delete(_ key: String) -> WriteOperation { .delete(key: ByteBuffer(string: key)) }

extension ShardReplica {
    static func openTest(
        _ configuration: ShardConfiguration, role: ShardRole = .leader(term: 1), clock: ShardClock = .system,
        sink: (Database) -> any WriteSink = { $0 }
    ) throws -> ShardReplica {
        try open(
            configuration, role: role, shared: SharedResources(), clock: clock, logger: quietLogger, sink: sink)
    }

    /// Submits and waits.
    func write(_ operations: [WriteOperation]) async throws -> WriteReceipt {
        try await withCheckedThrowingContinuation { continuation in
            do {
                try submit(operations) { continuation.resume(returning: $0) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// Every user record, as text.
    func content() throws -> [String] {
        var records: [String] = []
        try database.forEachUserRecord { key, value in
            let text = String(decoding: value.bytes, as: UTF8.self)
            let expiry = value.expiresMilliseconds.map { " until \($0)" } ?? ""
            records.append("\(String(decoding: key, as: UTF8.self)) \(value.version) \(text)\(expiry)")
            return true
        }
        return records
    }

    /// Reads the log to its end, checking continuity.
    func readAll(
        after start: LogPosition = .start, bytesMax: Int = 1 << 20, fromDisk: Bool = true
    ) throws -> [LogFrame] {
        var position = start
        var frames: [LogFrame] = []
        while true {
            let answer =
                fromDisk
                ? try log.readFromDisk(after: position, bytesMax: bytesMax)
                : log.readFromMemory(after: position, bytesMax: bytesMax)
            guard case .frames(var buffer, let last) = answer else {
                guard case .caughtUp = answer else { throw KVError(.internalError, "the log answers \(answer)") }
                return frames
            }
            while let frame = try LogFrame.decode(from: &buffer) {
                guard frame.position.lsn == position.lsn + 1 else {
                    throw KVError(.internalError, "lsn \(frame.position.lsn) follows \(position.lsn)")
                }
                position = frame.position
                frames.append(frame)
            }
            guard position == last, buffer.readableBytes == 0 else {
                throw KVError(.internalError, "the answer does not end with its last frame")
            }
        }
    }
}
