import Core
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// What the log holds of each write, in particular the version of a removal, of which no record has it.
@Suite struct LoggedOperationTests {
    private func operations(_ batch: [UInt8]) throws -> (LogPosition, [LoggedOperation]) {
        let position = try batch.withUnsafeBytes { bytes in
            var reader = try WriteBatchReader(bytes)
            let value = try #require(try reader.next()?.value)
            return try #require(SystemRecords.decodePosition(value))
        }
        let frame = ByteBuffer(bytes: [UInt8](repeating: 0, count: LogFrame.headerBytes) + batch)
        return (position, try LoggedOperation.all(in: frame, at: position))
    }

    private func random(_ generator: inout SeededGenerator) -> WriteOperation {
        let key = ByteBuffer(string: "key-\(generator.next() % 6)")
        let operation: WriteOperation
        switch generator.next() % 4 {
        case 0: operation = .put(key: key, value: ByteBuffer(string: "\(generator.next() % 100)"))
        case 1: operation = .increment(key: key, by: 1)
        case 2: operation = .read(key: key)
        default: operation = .delete(key: key)
        }
        switch generator.next() % 3 {
        case 0: return .conditional(WriteCondition(match: .any), operation)
        case 1: return .conditional(WriteCondition(noneMatch: .any), operation)
        default: return operation
        }
    }

    /// With refused operations and reads among them, and whole submissions that are refused.
    @Test(arguments: 0..<20 as Range<UInt64>) func versionsAreThoseOfTheReceipts(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let rig = WriterCoreTests.Rig { $0.batchOperationsMax = 7 }
        var submissions: [[WriteOperation]] = []
        for _ in 0..<30 {
            for _ in 0..<(1 + generator.next() % 4) {
                submissions.append((0..<(1 + generator.next() % 9)).map { _ in random(&generator) })
                let isAtomic = generator.next() % 3 == 0 && submissions.last?.count ?? 0 <= 7
                try rig.submit(submissions.count - 1, submissions[submissions.count - 1], isAtomic: isAtomic)
            }
            _ = rig.core.drain()
        }
        var expected: [(key: String, version: Version, isRemoval: Bool)] = []
        for (number, submission) in submissions.enumerated() {
            let receipt = try #require(rig.receipt(number))
            #expect(receipt.failure == nil && receipt.settled == submission.count)
            for (index, operation) in submission.enumerated() {
                guard let version = receipt.version(at: index) else { continue }
                var inner = operation
                while case .conditional(_, let operation) = inner { inner = operation }
                let isRemoval = if case .delete = inner { true } else { false }
                expected.append((String(buffer: operation.key), version, isRemoval))
            }
        }
        var logged: [LoggedOperation] = []
        var previous = Version.zero
        for batch in rig.batches {
            let (position, operations) = try operations(batch)
            #expect(position.version > previous)
            #expect(operations.last?.version ?? position.version == position.version)
            previous = position.version
            logged += operations
        }
        #expect(logged.map(\.version) == expected.map(\.version))
        #expect(logged.map { String(buffer: $0.key) } == expected.map(\.key))
        #expect(logged.map { $0.value == nil } == expected.map(\.isRemoval))
        #expect(
            logged.map(\.version) == logged.map(\.version).sorted() && Set(logged.map(\.version)).count == logged.count)
    }

    /// Logs of before: refused operations took versions there.
    @Test func removalsOfOlderBatchesAreNotPutAboveTheirTruth() throws {
        var builder = WriteBatchBuilder()
        builder.putPosition(LogPosition(term: 1, lsn: 1, version: Version(rawValue: 120)))
        builder.delete(key: ByteBuffer(string: "a"))
        builder.put(key: ByteBuffer(string: "b"), version: Version(rawValue: 105), value: ByteBuffer(string: "1"))
        builder.delete(key: ByteBuffer(string: "c"))
        builder.delete(key: ByteBuffer(string: "d"))
        let (_, found) = try operations(Array(builder.finish().readableBytesView))
        #expect(found.map(\.version.rawValue) == [104, 105, 106, 107])
    }
}
