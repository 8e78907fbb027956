import Core
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// Atomic submissions and reads among writes, through the writer.
@Suite struct AtomicBatchTests {
    private typealias Rig = WriterCoreTests.Rig

    private func read(_ key: String) -> WriteOperation { .read(key: ByteBuffer(string: key)) }

    private func ifAbsent(_ operation: WriteOperation) -> WriteOperation {
        .conditional(WriteCondition(noneMatch: .any), operation)
    }

    private func increment(_ key: String) -> WriteOperation { .increment(key: ByteBuffer(string: key), by: 1) }

    private func stored(_ key: String, _ rig: Rig) throws -> String? {
        var value: String?
        try rig.sink.read(key: ByteBuffer(string: key), tier: .disk) { lookup in
            if case .value(let found) = lookup { value = String(decoding: found.bytes, as: UTF8.self) }
        }
        return value
    }

    private func found(_ receipt: WriteReceipt?, _ index: Int) -> String? {
        guard let read = receipt?.read(at: index) else { return "no read" }
        return read.map { String(buffer: $0.value) }
    }

    @Test func readsHaveTheirPlaceAmongWrites() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "old")])
        _ = rig.core.drain()
        try rig.submit(
            2, [read("a"), put("a", "new"), read("a"), delete("a"), read("a"), increment("a"), read("a"), read("b")])
        _ = rig.core.drain()
        let receipt = rig.receipt(2)
        #expect([0, 2, 4, 6, 7].map { found(receipt, $0) } == ["old", "new", nil, "1", nil])
        #expect(receipt?.reads == 5 && receipt?.committed == 3 && receipt?.refused == 0)
        #expect(receipt?.version(at: 0) == nil && receipt?.version(at: 1) != nil)
        let version = receipt?.version(at: 1)
        #expect(receipt?.read(at: 2)??.version == version)
    }

    @Test func readsAloneWriteNothing() throws {
        let rig = Rig()
        try rig.submit(1, [read("a")])
        _ = rig.core.drain()
        #expect(found(rig.receipt(1), 0) == nil && rig.receipt(1)?.settled == 1)
        #expect(rig.batches.isEmpty)
    }

    @Test func oneRefusalRefusesAnAtomicSubmission() throws {
        let rig = Rig()
        try rig.submit(1, [put("there", "1"), put("n", "7")])
        _ = rig.core.drain()
        let before = rig.batches.count
        try rig.submit(
            2, [put("a", "1"), increment("n"), read("a"), ifAbsent(put("there", "2")), delete("there")], isAtomic: true)
        _ = rig.core.drain()
        let receipt = rig.receipt(2)
        #expect(receipt?.refused == 5 && receipt?.committed == 0 && receipt?.failure == nil)
        for index in 0..<5 {
            switch receipt?.refusal(at: index) {
            case .conditionFailed: #expect(index == 3)
            case .otherRefused: #expect(index != 3)
            default: Issue.record("operation \(index) has another outcome")
            }
        }
        #expect(rig.batches.count == before, "nothing is written")
        #expect(try stored("a", rig) == nil && stored("n", rig) == "7" && stored("there", rig) == "1")
    }

    /// In one log batch with others, a refused submission leaves no trace for those behind it.
    @Test func othersInTheSameBatchAreNotTouched() throws {
        let rig = Rig()
        try rig.submit(1, [put("x", "1")])
        try rig.submit(2, [put("y", "1"), increment("z"), ifAbsent(put("x", "2"))], isAtomic: true)
        try rig.submit(3, [ifAbsent(put("y", "3")), increment("z"), read("x")])
        _ = rig.core.drain()
        #expect(rig.batches.count == 1)
        #expect(rig.receipt(2)?.refused == 3)
        #expect(rig.receipt(3)?.committed == 2 && found(rig.receipt(3), 2) == "1")
        #expect(try stored("y", rig) == "3" && stored("z", rig) == "1" && stored("x", rig) == "1")
        let versions = [rig.receipt(1)?.version(at: 0), rig.receipt(3)?.version(at: 0), rig.receipt(3)?.version(at: 1)]
            .compactMap(\.self)
        #expect(versions == versions.sorted() && Set(versions).count == 3)
    }

    /// The bounds of a batch split what is not atomic, and nothing else.
    @Test(arguments: [1, 2, 3, 7, 15, 100]) func anAtomicSubmissionIsOneBatch(operationsMax: Int) throws {
        let rig = Rig { $0.batchOperationsMax = operationsMax }
        try rig.submit(1, (0..<5).map { put("p\($0)", "1") })
        try rig.submit(2, (0..<10).map { put("a\($0)", "1") }, isAtomic: true)
        try rig.submit(3, (0..<10).map { ifAbsent(put("b\($0)", "1")) }, isAtomic: true)
        try rig.submit(4, (0..<5).map { put("q\($0)", "1") })
        _ = rig.core.drain()
        let batches = try rig.batches.map { try keys($0) }
        #expect(batches.flatMap(\.self).count == 30)
        for prefix in ["a", "b"] {
            let all = (0..<10).map { "\(prefix)\($0)" }
            #expect(batches.count { $0.contains { $0.hasPrefix(prefix) } } == 1, "\(batches)")
            #expect(batches.contains { $0.filter { $0.hasPrefix(prefix) } == all })
        }
        for batch in batches where !batch.contains(where: { $0.hasPrefix("a") || $0.hasPrefix("b") }) {
            #expect(batch.count <= operationsMax)
        }
        for id in 1...4 { #expect(rig.receipt(id)?.failure == nil && rig.receipt(id)?.refused == 0) }
    }

    private func keys(_ batch: [UInt8]) throws -> [String] {
        try batch.withUnsafeBytes { bytes in
            var reader = try WriteBatchReader(bytes)
            var keys: [String] = []
            while let record = try reader.next() {
                if record.key.first == KeySpace.user { keys.append(String(decoding: record.key[1...], as: UTF8.self)) }
            }
            return keys
        }
    }

    @Test func readsFindNoMoreThanTheyMay() throws {
        let rig = Rig { $0.readBytesMax = 10 }
        try rig.submit(1, [put("a", "12345678"), put("b", "12"), put("c", "1")])
        try rig.submit(2, [read("a"), read("b"), read("c")])
        try rig.submit(3, [read("a")])
        _ = rig.core.drain()
        #expect(found(rig.receipt(2), 0) == "12345678" && found(rig.receipt(2), 1) == "12")
        guard case .tooMuchRead = rig.receipt(2)?.refusal(at: 2) else { throw KVError(.invalidData, "it was read") }
        #expect(found(rig.receipt(3), 0) == "12345678", "each submission has its own bound")
    }
}
