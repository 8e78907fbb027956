import Core
import Testing

@Suite struct VersionTests {
    @Test func hexDigitsRoundTrip() {
        for raw: UInt64 in [0, 1, 0xFFFF, 0x0123_4567_89AB_CDEF, .max] {
            let version = Version(rawValue: raw)
            #expect(version.hexDigits.utf8.count == 16)
            #expect(Version(hexDigits: version.hexDigits) == version)
        }
        #expect(Version(rawValue: 0xAB).description == "00000000000000ab")
        #expect(Version(hexDigits: "00000000000000AB") == Version(rawValue: 0xAB))
    }

    @Test(arguments: [
        "", "0", "000000000000000", "00000000000000000", "000000000000000g", "+00000000000000a", "-00000000000000a",
        " 00000000000000a", "0x0000000000000a", "٠٠٠٠٠٠٠٠", "\"0000000000000a\"",
    ]) func otherTextIsNoVersion(text: String) {
        #expect(Version(hexDigits: text) == nil)
    }

    @Test func carriesMilliseconds() {
        var clock = HybridLogicalClock()
        let version = clock.next(wallMilliseconds: 1_764_000_000_123)
        #expect(version.milliseconds == 1_764_000_000_123)
    }
}

@Suite struct HybridLogicalClockTests {
    @Test func risesWhileTheWallClockStandsOrGoesBackwards() {
        var clock = HybridLogicalClock()
        var last = Version.zero
        for wall: UInt64 in [1_000, 1_000, 1_000, 999, 5, 0, 1_001, 1_001, 7] {
            let version = clock.next(wallMilliseconds: wall)
            #expect(version > last)
            #expect(version == clock.last)
            last = version
        }
        #expect(last.milliseconds == 1_001)
    }

    /// 65,536 versions in one millisecond use up the counter; the next one borrows from the time.
    @Test func anOverflowingCounterCarriesIntoTheTime() {
        var clock = HybridLogicalClock(last: Version(rawValue: 1_000 << 16 | 0xFFFF))
        let version = clock.next(wallMilliseconds: 1_000)
        #expect(version == Version(rawValue: 1_001 << 16))
        #expect(clock.next(wallMilliseconds: 1_001) == Version(rawValue: 1_001 << 16 | 1))
        #expect(clock.next(wallMilliseconds: 1_002) == Version(rawValue: 1_002 << 16))
    }

    @Test func neverFallsBehindWhatItObserved() {
        var clock = HybridLogicalClock()
        clock.observe(Version(rawValue: 5_000 << 16 | 7))
        #expect(clock.next(wallMilliseconds: 10) == Version(rawValue: 5_000 << 16 | 8))
        clock.observe(Version(rawValue: 3))
        #expect(clock.next(wallMilliseconds: 10) == Version(rawValue: 5_000 << 16 | 9))
    }
}

@Suite struct NodeAddressTests {
    @Test(arguments: [
        ("127.0.0.1:7001", "127.0.0.1", 7_001), ("localhost:0", "localhost", 0), ("[::1]:65535", "::1", 65_535),
        ("[fe80::1.2.3.4]:1", "fe80::1.2.3.4", 1), ("node-1.example_x:80", "node-1.example_x", 80), ("a:007", "a", 7),
    ]) func reads(text: String, host: String, port: Int) throws {
        let address = try #require(NodeAddress(text))
        #expect(address.host == host)
        #expect(address.port == port)
        #expect(NodeAddress(address.description) == address)
    }

    @Test(arguments: [
        "", ":", "a", "a:", ":1", "a:b", "a:65536", "a:-1", "a:+1", "a: 1", " a:1", "a b:1", "a:1 ", "::1:7001",
        "[::1]",
        "[::1]:", "[::1:7001", "[]:1", "[a]:1", "[::g]:1", "http://a:1", "a:1/x", "ä:1", "a:١", "[::1]7001",
        "a:99999999999999999999",
    ]) func refuses(text: String) {
        #expect(NodeAddress(text) == nil)
    }

    @Test func knowsLoopback() {
        for (text, expected) in [
            ("127.0.0.1:1", true), ("127.9.9.9:1", true), ("localhost:1", true), ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false), ("10.0.0.1:1", false), ("127.example.com:1", false), ("127.0.0.1.example:1", false),
            ("128.0.0.1:1", false), ("127.0.0.256:1", false), ("127.0.0:1", false),
        ] { #expect(NodeAddress(text)?.isLoopback == expected, "\(text)") }
    }

    @Test func ordersByHostAndPort() {
        let sorted = ["a:1", "a:2", "b:1"].compactMap { NodeAddress($0) }
        #expect(sorted.reversed().sorted() == sorted)
    }
}

@Suite struct LogPositionTests {
    @Test func ordersByTermAndThenByLsn() {
        func position(_ term: UInt64, _ lsn: UInt64) -> LogPosition {
            LogPosition(term: term, lsn: lsn, version: Version(rawValue: 9))
        }
        #expect(LogPosition.start < position(0, 1))
        #expect(position(1, 9) < position(2, 1))
        #expect(position(2, 1) < position(2, 2))
        #expect(!(position(2, 2) < position(2, 2)))
        #expect(position(3, 4).description == "term 3 lsn 4")
    }
}

@Suite struct CRC32CTests {
    /// Any length and any alignment, in any pieces.
    @Test func bothWaysOfComputingItAgree() {
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<4_096).map { _ in UInt8.random(in: 0...255, using: &random) }
        bytes.withUnsafeBytes { bytes in
            for length in Array(0..<80) + [1_000, 4_000] {
                let offset = Int.random(in: 0..<16, using: &random)
                let part = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length])
                var software = CRC32C()
                software.updateInSoftware(part)
                var pieces = CRC32C()
                let cut = Int.random(in: 0...length, using: &random)
                pieces.update(UnsafeRawBufferPointer(rebasing: part[..<cut]))
                pieces.update(UnsafeRawBufferPointer(rebasing: part[cut...]))
                #expect(CRC32C.checksum(part) == software.value && pieces.value == software.value)
            }
        }
    }

    private func crc(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { CRC32C.checksum($0) } }

    /// RFC 3720 appendix B.4, and the check value of the catalogue of CRC algorithms.
    @Test func publishedVectors() {
        #expect(crc(Array("123456789".utf8)) == 0xE306_9283)
        #expect(crc([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(crc([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(crc(Array(0..<32)) == 0x46DD_794E)
        #expect(crc(Array((0..<32).reversed())) == 0x113F_DB5C)
        #expect(crc([]) == 0)
    }

    @Test func doesNotDependOnHowTheBytesArrive() {
        let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let whole = crc(bytes)
        for cut in 0...bytes.count {
            var checksum = CRC32C()
            bytes[..<cut].withUnsafeBytes { checksum.update($0) }
            bytes[cut...].withUnsafeBytes { checksum.update($0) }
            guard checksum.value == whole else {
                Issue.record("cut at \(cut)")
                return
            }
        }
    }
}

@Suite struct KVErrorTests {
    @Test func showsMessageAndCause() {
        let inner = KVError(.storageFailed, "write failed")
        let outer = KVError(.unavailable, "the shard takes no writes", cause: inner)
        #expect(outer.description == "the shard takes no writes (write failed)")
        #expect(outer.location.file.hasSuffix("CoreTests.swift"))
        #expect(outer.code == .unavailable)
        #expect(outer.code != inner.code)
    }
}
