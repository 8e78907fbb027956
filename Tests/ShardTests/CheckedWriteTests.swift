import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Shard

/// Writes that depend on what is stored, through the writer.
@Suite struct CheckedWriteTests {
    private typealias Rig = WriterCoreTests.Rig

    private func onlyIfAbsent(_ operation: WriteOperation) -> WriteOperation {
        .conditional(WriteCondition(noneMatch: .any), operation)
    }

    private func onlyIf(_ versions: [Version?], _ operation: WriteOperation) -> WriteOperation {
        .conditional(WriteCondition(match: .listed(versions.compactMap(\.self))), operation)
    }

    private func add(_ amount: Int64, to key: String) -> WriteOperation {
        .increment(key: ByteBuffer(string: key), by: amount)
    }

    private func stored(_ key: String, _ rig: Rig) throws -> String? {
        var value: String?
        try rig.sink.read(key: ByteBuffer(string: key), tier: .disk) { lookup in
            if case .value(let found) = lookup { value = String(decoding: found.bytes, as: UTF8.self) }
        }
        return value
    }

    private func isRefused(_ receipt: WriteReceipt?, _ index: Int = 0) -> Bool {
        if case .conditionFailed = receipt?.refusal(at: index) { return receipt?.version(at: index) == nil }
        return false
    }

    @Test func conditionsHoldByWhatIsStored() {
        let (one, two) = (Version(rawValue: 1), Version(rawValue: 2))
        #expect(WriteCondition(match: .any).holds(for: one))
        #expect(!WriteCondition(match: .any).holds(for: nil))
        #expect(!WriteCondition(match: .listed([])).holds(for: one))
        #expect(WriteCondition(match: .listed([two, one])).holds(for: one))
        #expect(!WriteCondition(match: .listed([two])).holds(for: one))
        #expect(!WriteCondition(match: .listed([one])).holds(for: nil))
        #expect(WriteCondition(noneMatch: .any).holds(for: nil))
        #expect(!WriteCondition(noneMatch: .any).holds(for: one))
        #expect(WriteCondition(noneMatch: .listed([two])).holds(for: one))
        #expect(!WriteCondition(noneMatch: .listed([one])).holds(for: one))
        #expect(!WriteCondition(match: .any, noneMatch: .listed([one])).holds(for: one))
        #expect(!WriteCondition(match: .any, noneMatch: .any).holds(for: nil))
    }

    @Test func earlierWritesOfTheSameBatchCount() throws {
        let rig = Rig()
        try rig.submit(1, [onlyIfAbsent(put("a", "1")), onlyIfAbsent(put("a", "2"))])
        try rig.submit(2, [delete("a")])
        try rig.submit(3, [onlyIfAbsent(put("a", "3")), put("b", "plain")])
        try rig.submit(4, [.conditional(WriteCondition(match: .any), delete("b")), onlyIfAbsent(delete("b"))])
        _ = rig.core.drain()
        #expect(rig.batches.count == 1)
        #expect(try stored("a", rig) == "3")
        #expect(try stored("b", rig) == nil)
        #expect(rig.receipt(1)?.version(at: 0) != nil)
        #expect(isRefused(rig.receipt(1), 1))
        #expect(rig.receipt(1)?.settled == 2 && rig.receipt(1)?.committed == 1 && rig.receipt(1)?.failure == nil)
        for id in 2...4 { #expect(rig.receipt(id)?.refused == 0) }
        // Position, a, delete a, a, b, two deletes of b: what is refused left nothing.
        #expect(try rig.batches[0].withUnsafeBytes { try WriteBatchReader($0).count } == 7)
    }

    @Test func aVersionIsGoodForOneWrite() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        let first = rig.receipt(1)?.version(at: 0)
        try rig.submit(2, [onlyIf([first], put("a", "2"))])
        try rig.submit(3, [onlyIf([first], put("a", "3"))])
        _ = rig.core.drain()
        let second = try #require(rig.receipt(2)?.version(at: 0))
        #expect(isRefused(rig.receipt(3)))
        #expect(try stored("a", rig) == "2")
        try rig.submit(4, [onlyIf([first, second], put("a", "4")), onlyIf([second], put("a", "5"))])
        _ = rig.core.drain()
        #expect(rig.receipt(4)?.version(at: 0).map { $0 > second } == true)
        #expect(isRefused(rig.receipt(4), 1))
        #expect(try stored("a", rig) == "4")
    }

    @Test func aBatchOfRefusalsIsNotWritten() throws {
        let rig = Rig(durability: .interval)
        try rig.submit(1, [.conditional(WriteCondition(match: .any), put("a", "1"))])
        try rig.submit(2, [onlyIf([Version(rawValue: 7)], delete("a"))])
        #expect(rig.core.drain() == nil, "nothing to sync")
        #expect(rig.batches.isEmpty)
        #expect(rig.core.position == .start && rig.log.committed == .start)
        #expect(isRefused(rig.receipt(1)) && isRefused(rig.receipt(2)))
        try rig.submit(3, [put("a", "1")])
        _ = rig.core.drain()
        #expect(rig.core.position.lsn == 1)
        #expect(rig.core.position.version == rig.receipt(3)?.version(at: 0))
    }

    @Test func aSubmissionOverSeveralBatchesKeepsItsIndices() throws {
        let rig = Rig { $0.batchOperationsMax = 2 }
        try rig.submit(
            1, [put("a", "1"), onlyIfAbsent(put("a", "2")), onlyIfAbsent(put("a", "3")), add(4, to: "n"), put("z", "")])
        _ = rig.core.drain()
        let receipt = try #require(rig.receipt(1))
        #expect(rig.batches.count == 3)
        #expect(receipt.settled == 5 && receipt.committed == 3)
        #expect(isRefused(receipt, 1) && isRefused(receipt, 2))
        let versions = [0, 3, 4].compactMap { receipt.version(at: $0) }
        #expect(versions.count == 3 && versions == versions.sorted() && Set(versions).count == 3)
        #expect(receipt.number(at: 3) == 4 && receipt.number(at: 4) == nil)
        #expect(receipt.position == rig.core.position)
    }

    @Test func countersCount() throws {
        let rig = Rig()
        try rig.submit(1, [add(5, to: "n"), add(-7, to: "n")])
        _ = rig.core.drain()
        #expect(rig.receipt(1)?.number(at: 0) == 5 && rig.receipt(1)?.number(at: 1) == -2)
        try rig.submit(2, [add(1, to: "n"), put("n", "41"), add(1, to: "n"), delete("n"), add(9, to: "n")])
        _ = rig.core.drain()
        let receipt = try #require(rig.receipt(2))
        #expect([0, 2, 4].map { receipt.number(at: $0) } == [-1, 42, 9])
        #expect(try stored("n", rig) == "9")
        try rig.submit(3, [onlyIf([receipt.version(at: 4)], add(1, to: "n")), onlyIfAbsent(add(1, to: "n"))])
        _ = rig.core.drain()
        #expect(rig.receipt(3)?.number(at: 0) == 10)
        #expect(isRefused(rig.receipt(3), 1))
    }

    @Test func whatIsNoCounterIsLeftAlone() throws {
        let rig = Rig()
        try rig.submit(1, [put("text", "12 "), put("max", "\(Int64.max)"), put("min", "\(Int64.min)")])
        _ = rig.core.drain()
        try rig.submit(2, [add(1, to: "text"), add(1, to: "max"), add(-1, to: "min"), add(-1, to: "max")])
        _ = rig.core.drain()
        let receipt = try #require(rig.receipt(2))
        if case .notAnInteger = receipt.refusal(at: 0) {} else { Issue.record("text is no integer") }
        if case .overflow = receipt.refusal(at: 1) {} else { Issue.record("max + 1 overflows") }
        if case .overflow = receipt.refusal(at: 2) {} else { Issue.record("min - 1 overflows") }
        #expect(receipt.number(at: 3) == Int64.max - 1)
        #expect(try stored("text", rig) == "12 ")
        #expect(try stored("min", rig) == "\(Int64.min)")
    }

    @Test func onlyDecimalIntegersAreNumbers() {
        for number in [Int64.min, -1, 0, 1, Int64.max] { #expect(Int64(decimal: Array("\(number)".utf8)) == number) }
        #expect(Int64(decimal: Array("-007".utf8)) == -7)
        for text in [
            "", "-", "+1", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "-9223372036854775809",
            "000000000000000000001", "1-", "--1", "\u{0661}",
        ] {
            #expect(Int64(decimal: Array(text.utf8)) == nil, "\(text)")
        }
    }

    @Test func plainWritesLookNothingUp() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1"), delete("a"), put("b", "1")])
        _ = rig.core.drain()
        #expect(rig.sink.state.withLock { $0.reads } == 0)
    }

    @Test func aValueThatCannotBeReadRefusesItsWriteAlone() throws {
        let rig = Rig()
        rig.sink.state.withLock { $0.failReads = KVError(.corrupted, "a damaged block") }
        try rig.submit(1, [onlyIfAbsent(put("a", "1"))])
        try rig.submit(2, [put("b", "1")])
        _ = rig.core.drain()
        if case .unreadable(let error) = rig.receipt(1)?.refusal(at: 0) {
            #expect(error.code == .corrupted)
        } else {
            Issue.record("the read failed")
        }
        #expect(rig.receipt(2)?.version(at: 0) != nil)
        #expect(rig.core.failure == nil)
    }

    @Test func whatIsDecidedInAFailedBatchFailsWithIt() throws {
        let rig = Rig()
        rig.sink.state.withLock { $0.failWrites = KVError(.storageFailed, "I/O error") }
        try rig.submit(1, [put("a", "1"), onlyIfAbsent(put("a", "2"))])
        _ = rig.core.drain()
        let receipt = try #require(rig.receipt(1))
        #expect(receipt.settled == 0 && receipt.refusal(at: 1) == nil && receipt.failure?.code == .storageFailed)
    }

    @Test func aDatabaseIsAskedAcrossRestarts() async throws {
        let directory = try TemporaryDirectory()
        let first: WriteReceipt
        do {
            let replica = try ShardReplica.openTest(.test(directory))
            first = try await replica.write([put("a", "1"), add(3, to: "n"), put("gone", "1"), delete("gone")])
            try await replica.close()
        }
        let replica = try ShardReplica.openTest(.test(directory))
        let second = try await replica.write([
            onlyIf([first.version(at: 0)], put("a", "2")), onlyIfAbsent(put("n", "x")), add(4, to: "n"),
            onlyIfAbsent(put("gone", "2")),
        ])
        #expect(second.version(at: 0) != nil && isRefused(second, 1) && second.number(at: 2) == 7)
        #expect(second.version(at: 3) != nil)
        try await replica.close()
    }
}
