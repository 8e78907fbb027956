import TestSupport

/// Makes inputs from a target's seeds and words: the same ones for the same number.
struct Mutator {
    static let inputBytesMax = 1 << 16

    private let seeds: [[UInt8]]
    private let words: [[UInt8]]
    private static let bytes: [UInt8] = [
        0, 1, 9, 10, 13, 32, 34, 35, 37, 43, 44, 45, 47, 58, 59, 61, 92, 127, 128, 255,
    ]
    private static let numbers = [
        "0", "1", "-1", "+1", "00", "127", "128", "255", "256", "4095", "4096", "4097", "65535", "65536", "2147483647",
        "2147483648",
        "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615",
        "18446744073709551616",
        "1e400", "0x10", "1.5", "1_0", "99999999999999999999999999999999",
    ].map { Array($0.utf8) }

    init(_ target: any FuzzTarget) {
        seeds = target.seeds
        words = target.words.map { Array($0.utf8) }
    }

    /// The input of a number.
    func input(_ number: UInt64) -> [UInt8] {
        var random = SeededGenerator(seed: number)
        var input = pick(seeds, &random)
        // A seed as it is now and then, mostly a few changes, seldom many.
        let changes = [0, 1, 1, 2, 2, 3, 4, 6, 12, 40][below(10, &random)]
        for _ in 0..<changes { change(&input, &random) }
        if input.count > Mutator.inputBytesMax { input.removeSubrange(Mutator.inputBytesMax...) }
        return input
    }

    private func below(_ bound: Int, _ random: inout SeededGenerator) -> Int {
        Int(random.next() % UInt64(max(1, bound)))
    }

    private func pick<Element>(_ from: [Element], _ random: inout SeededGenerator) -> Element {
        from[below(from.count, &random)]
    }

    private func range(in input: [UInt8], max length: Int, _ random: inout SeededGenerator) -> Range<Int> {
        let start = below(input.count + 1, &random)
        return start..<min(input.count, start + below(length + 1, &random))
    }

    private func change(_ input: inout [UInt8], _ random: inout SeededGenerator) {
        let place = below(input.count + 1, &random)
        switch below(14, &random) {
        case 0 where place < input.count: input[place] ^= 1 << UInt8(below(8, &random))
        case 1 where place < input.count: input[place] = pick(Mutator.bytes, &random)
        case 2: input.insert(pick(Mutator.bytes, &random), at: place)
        case 3: input.insert(contentsOf: random.bytes(1 + below(16, &random)), at: place)
        case 4,
            5 where !words.isEmpty:
            input.insert(contentsOf: pick(words, &random), at: place)
        case 6 where !words.isEmpty:
            input.replaceSubrange(range(in: input, max: 16, &random), with: pick(words, &random))
        case 7: input.removeSubrange(range(in: input, max: 32, &random))
        case 8: input.insert(contentsOf: input[range(in: input, max: 64, &random)], at: place)
        case 9: repeatPart(of: &input, &random)
        case 10:
            input.replaceSubrange(range(in: input, max: 200, &random), with: part(of: pick(seeds, &random), &random))
        case 11: changeNumber(in: &input, &random)
        case 12: input.removeSubrange(place...)
        default: input += pick(seeds, &random)
        }
    }

    private func part(of seed: [UInt8], _ random: inout SeededGenerator) -> ArraySlice<UInt8> {
        seed[range(in: seed, max: 200, &random)]
    }

    /// Deep nesting and long rows are where readers use up their stack or their time.
    private func repeatPart(of input: inout [UInt8], _ random: inout SeededGenerator) {
        let part = Array(input[range(in: input, max: 8, &random)])
        guard !part.isEmpty, input.count < Mutator.inputBytesMax else { return }
        let times = 1 << below(13, &random)
        let room = (Mutator.inputBytesMax - input.count) / part.count
        input.insert(
            contentsOf: Array(repeating: part, count: min(times, room)).joined(), at: below(input.count + 1, &random))
    }

    private func changeNumber(in input: inout [UInt8], _ random: inout SeededGenerator) {
        let from = below(input.count + 1, &random)
        guard let start = input[from...].firstIndex(where: { $0 >= 48 && $0 < 58 }) else { return }
        let end = input[start...].firstIndex { $0 < 48 || $0 >= 58 } ?? input.count
        input.replaceSubrange(start..<end, with: pick(Mutator.numbers, &random))
    }
}
