import Synchronization
import Testing

@testable import LoadGenerator

@Suite struct ValueTests {
    private func value(
        _ byteCount: Int, key: UInt64 = 7, sequence: UInt64 = 9, isVerified: Bool = true, seed: UInt64 = 1
    ) -> [UInt8] {
        let writer = ValueWriter(.fixed(byteCount), isVerified: isVerified, seed: seed)
        return [UInt8](unsafeUninitializedCapacity: max(1, byteCount)) { buffer, count in
            writer.write(byteCount, key: key, sequence: sequence, to: UnsafeMutableRawPointer(buffer.baseAddress!))
            count = byteCount
        }
    }

    private func origin(_ pieces: ArraySlice<UInt8>...) -> (key: UInt64, sequence: UInt64)? {
        var reader = ValueReader()
        for piece in pieces { piece.withUnsafeBytes { reader.update($0) } }
        return reader.origin
    }

    @Test(arguments: [24, 25, 100, 5_000]) func saysWhoseItIs(byteCount: Int) throws {
        let bytes = value(byteCount, key: .max, sequence: 1 << 60)
        // In two pieces of every length.
        for cut in 0...byteCount {
            let found = try #require(origin(bytes[..<cut], bytes[cut...]), "cut at \(cut)")
            #expect(found.key == .max && found.sequence == 1 << 60)
        }
    }

    @Test func damageIsSeen() {
        let bytes = value(60)
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                #expect(origin(damaged[...]) == nil, "bit \(bit) of byte \(index)")
            }
        }
        for count in 0..<60 { #expect(origin(bytes[..<count]) == nil) }
        #expect(origin((bytes + [0])[...]) == nil)
        #expect(origin(value(60, isVerified: false)[...]) == nil)
    }

    @Test func sameSeedSameBytes() {
        #expect(value(100) == value(100))
        #expect(value(100).dropFirst(24) != value(100, seed: 2).dropFirst(24))
        #expect(value(100, isVerified: false) != value(100, sequence: 10, isVerified: false))
        #expect(value(0).isEmpty)
        #expect(Set(value(10_000, isVerified: false)).count > 200)
    }

    // MARK: The table

    private func endedWrite(
        _ table: VerificationTable, _ key: UInt64, _ sequence: UInt64, _ outcome: VerificationTable.WriteOutcome
    ) {
        #expect(table.beginWrite(key))
        table.endWrite(key, sequence: sequence, outcome)
    }

    @Test func oneWriterAKey() {
        let table = VerificationTable(records: 2, inserts: 1)
        #expect(table.beginWrite(1))
        #expect(!table.beginWrite(1))
        #expect(table.beginWrite(0))
        table.endWrite(1, sequence: 5, .acknowledged)
        #expect(table.beginWrite(1))
    }

    @Test func floors() {
        let table = VerificationTable(records: 2, inserts: 1)
        #expect(table.floor(of: 1).isPresent && !table.floor(of: 2).isPresent)
        endedWrite(table, 2, 5, .acknowledged)
        #expect(table.floor(of: 2).isPresent && table.floor(of: 2).sequence == 5)
        endedWrite(table, 2, 6, .notMade)
        #expect(table.floor(of: 2).sequence == 5 && !table.floor(of: 2).isDoubtful)
        endedWrite(table, 2, 7, .unknown)
        endedWrite(table, 2, 8, .acknowledged)
        #expect(table.floor(of: 2).sequence == 8 && table.floor(of: 2).isDoubtful)
    }

    @Test func insertsEndInAnyOrder() {
        let inserts = AcknowledgedInserts(first: 10)
        func bound() -> UInt64 { inserts.bound.load(ordering: .relaxed) }
        inserts.end(12)
        inserts.end(11)
        #expect(bound() == 10)
        inserts.end(10)
        #expect(bound() == 13)
        inserts.end(13)
        #expect(bound() == 14)
    }
}
