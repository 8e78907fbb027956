import Core
import HTTPServer
import NIOHTTP1
import ServiceSupport
import TestSupport
import Testing
import Wire

private func bytes<Result>(_ target: String, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    HTTPRequest(method: .GET, target: target).withTargetBytes(body)
}

/// The key in `target`; nil where the path is not below `/kv/`.
private func key(_ target: String) -> Result<[UInt8], Problem>? {
    bytes(target) { bytes in
        guard let place = KeyTarget(bytes) else { return nil }
        do throws(Problem) {
            return .success(try place.withKey(in: bytes) { Array($0) })
        } catch {
            return .failure(error)
        }
    }
}

@Suite struct KeyTargetTests {
    @Test(arguments: [
        ("/kv/a", "a"), ("/kv/a/b/c", "a/b/c"), ("/kv//", "/"), ("/kv/a?x=1", "a"), ("/kv/a?x=1?y", "a"),
        ("/kv/%41", "A"), ("/kv/a%2Fb", "a/b"), ("/kv/a%2fb%3F", "a/b?"), ("/kv/%25", "%"), ("/kv/a+b", "a+b"),
        ("/kv/ü", "ü"), ("/kv/%C3%BC", "ü"), ("/kv/{tag}x", "{tag}x"), ("/kv/.", "."), ("/kv/a?", "a"),
    ])
    func decodes(target: String, expected: String) throws {
        #expect(try key(target)?.get() == Array(expected.utf8))
    }

    @Test func keysAreBytes() throws {
        #expect(try key("/kv/%00%FF%fe")?.get() == [0, 0xFF, 0xFE])
    }

    @Test(arguments: ["/kv", "/", "", "/kvx", "/KV/a", "/status", "kv/a"])
    func otherPaths(target: String) { #expect(key(target) == nil) }

    @Test(arguments: [
        "/kv/", "/kv/?a=b", "/kv/%", "/kv/%4", "/kv/%4g", "/kv/a%zz", "/kv/a%?x=1", "/kv/%%%", "/kv/a#b", "/kv/a?x#y",
    ])
    func refused(target: String) throws {
        let outcome = try #require(key(target))
        guard case .failure(let problem) = outcome else {
            Issue.record("\(target) is taken for a key")
            return
        }
        #expect(problem.kind == .badRequest)
    }

    @Test func lengthIsThatOfTheDecodedKey() throws {
        let longest = String(repeating: "k", count: Limits.keyBytesMax)
        let longestEncoded = String(repeating: "%00", count: Limits.keyBytesMax)
        #expect(try key("/kv/" + longest)?.get().count == Limits.keyBytesMax)
        #expect(try key("/kv/" + longestEncoded)?.get().count == Limits.keyBytesMax)
        for target in ["/kv/k" + longest, "/kv/%00" + longestEncoded, "/kv/%00" + longest] {
            guard case .failure(let problem) = try #require(key(target)) else {
                Issue.record("a key over the limit is taken")
                continue
            }
            #expect(problem.kind == .badRequest)
            #expect(problem.detail.contains("4096"))
        }
    }

    @Test func saysWhereThingsStand() {
        let plain = bytes("/kv/abc?x=1") { KeyTarget($0) }
        #expect(plain?.encodedKey == 4..<7)
        #expect(plain?.query == 8..<11)
        #expect(plain?.isPlain == true)
        let encoded = bytes("/kv/%61") { KeyTarget($0) }
        #expect(encoded?.query == nil)
        #expect(encoded?.isPlain == false)
    }

    /// Whatever the bytes, encoding a key and reading it again gives the key.
    @Test func roundTrip() throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            let original = (0..<Int.random(in: 1...40, using: &random)).map { _ in
                UInt8.random(in: .min ... .max, using: &random)
            }
            #expect(try key(APIPath.key(original))?.get() == original, "seed \(seed)")
        }
    }
}
