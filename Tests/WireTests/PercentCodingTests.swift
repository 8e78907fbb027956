import Testing
import Wire

@Suite struct PercentCodingTests {
    @Test func everyByteRoundTrips() {
        for byte in UInt8.min ... .max {
            let encoded = PercentCoding.encode([byte])
            #expect(PercentCoding.decode(encoded.utf8) == [byte])
            #expect(encoded.utf8.count == 1 || encoded.utf8.count == 3)
        }
        let all = Array(UInt8.min ... .max)
        #expect(PercentCoding.decode(PercentCoding.encode(all).utf8) == all)
        #expect(PercentCoding.decode(PercentCoding.encode(all).utf8, plusIsSpace: true) == all)
    }

    @Test func leavesUnreservedCharactersAndSlashes() {
        let plain = "abcXYZ019-._~/"
        #expect(PercentCoding.encode(plain.utf8) == plain)
        #expect(PercentCoding.encode("a b?c#d%e+f&g=ü{".utf8) == "a%20b%3Fc%23d%25e%2Bf%26g%3D%C3%BC%7B")
        #expect(APIPath.key("a/b c".utf8) == "/kv/a/b%20c")
    }

    @Test func decodesEitherCaseAndFormEncoding() {
        #expect(PercentCoding.decode("%c3%BC+".utf8) == [0xC3, 0xBC, UInt8(ascii: "+")])
        #expect(PercentCoding.decode("a+b%2B".utf8, plusIsSpace: true) == Array("a b+".utf8))
        #expect(PercentCoding.decode("".utf8) == [])
    }

    @Test(arguments: ["%", "%4", "a%", "%G0", "%0G", "% 1", "%%41", "%+1", "%-1", "%0x"])
    func refusesBrokenEscapes(text: String) {
        #expect(PercentCoding.decode(text.utf8) == nil)
    }
}
