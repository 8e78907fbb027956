import TestSupport
import Testing

@testable import Configuration

@Suite struct SourceLinesTests {
    private func path(_ components: Any...) -> SettingPath {
        components.reduce(SettingPath.root) { path, component in
            if let index = component as? Int { return path.appending(index) }
            return path.appending("\(component)")
        }
    }

    @Test func findsKeysInEveryNotation() {
        let lines = SourceLines(
            #"""
            # comment = 1
            top = "a # no comment"
            "quoted key" = '''
            [not.a.table]
            ''' # c
            a . b = { x = 1, y = [ 1, # one
              2,
              { z = 3 } ] }
            [[list]]
            k = """
            \""" k2 = 1 """"
            [[list]]
            k = [[1],
              [2, 3]]
            [list.sub]
            s = 1979-05-27 07:32:00
            [ c . d ]
            e = -1.5e3
            """#)
        #expect(lines.line(of: path("top")) == 2)
        #expect(lines.line(of: path("quoted key")) == 3)
        #expect(lines.line(of: path("not")) == nil)
        #expect(lines.line(of: path("a", "b", "x")) == 6)
        #expect(lines.line(of: path("a", "b", "y", 0)) == 6)
        #expect(lines.line(of: path("a", "b", "y", 1)) == 7)
        #expect(lines.line(of: path("a", "b", "y", 2, "z")) == 8)
        #expect(lines.line(of: path("list", 0, "k")) == 10)
        #expect(lines.line(of: path("list", 0, "k2")) == 9)
        #expect(lines.line(of: path("list", 1, "k")) == 13)
        #expect(lines.line(of: path("list", 1, "k", 1, 1)) == 14)
        #expect(lines.line(of: path("list", 1, "sub", "s")) == 16)
        #expect(lines.line(of: path("c", "d", "e")) == 18)
        #expect(lines.line(of: path("c", "d", "missing")) == 17)
        #expect(lines.line(of: .root) == nil)
    }

    /// It is meant for valid text only, but must end on any.
    @Test func endsOnAnyText() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let pieces = [
            "[", "]", "[[", "]]", "{", "}", "\"", "'", "\"\"\"", "'''", "=", ",", "#", "\n", "\\", "a", ".", " ", "1",
        ]
        for _ in 0..<5_000 {
            let text = (0..<Int.random(in: 0...30, using: &generator)).map { _ in
                pieces[Int.random(in: 0..<pieces.count, using: &generator)]
            }.joined()
            _ = SourceLines(text)
        }
        print("seed \(seed)")
    }
}

@Suite struct NearestNameTests {
    @Test(
        arguments: [
            ("adress", "address"), ("durabilty", "durability"), ("nmae", "name"), ("NAME", "name"), ("index", "idx"),
            ("zzz", nil), ("", nil), ("completely_different", nil),
        ] as [(String, String?)])
    func findsWhatWasMeant(word: String, expected: String?) {
        #expect(SettingText.nearest(to: word, in: ["address", "durability", "name", "idx"]) == expected)
    }

    @Test func distancesOfKnownPairs() {
        for (left, right, distance) in [
            ("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 1), ("abc", "abc", 0),
            ("abcd", "acbd", 1),
        ] {
            #expect(SettingText.editDistance(left, right) == distance, "\(left) \(right)")
            #expect(SettingText.editDistance(right, left) == distance, "\(right) \(left)")
        }
    }
}
