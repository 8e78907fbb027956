/// Readers with a defect each, to see that it is found.
enum PlantedTargets {
    static let all: [(name: String, target: any FuzzTarget)] = [
        ("planted-trap", PlantedTarget(kind: .trap)), ("planted-property", PlantedTarget(kind: .property)),
        ("planted-hang", PlantedTarget(kind: .hang)), ("planted-memory", PlantedTarget(kind: .memory)),
    ]
}

struct PlantedTarget: FuzzTarget {
    enum Kind { case trap, property, hang, memory }

    let kind: Kind
    let words = ["%", "ff"]
    let seeds: [[UInt8]] = [Array("abc".utf8), Array("a%20b".utf8)]

    nonisolated(unsafe) private static var kept: [[UInt8]] = []

    func run(_ input: [UInt8]) throws {
        guard let percent = input.firstIndex(of: UInt8(ascii: "%")) else { return }
        switch kind {
        // Two digits are not always behind it.
        case .trap: _ = input[percent + 1] &+ input[percent + 2]
        case .property: try expect(!input.starts(with: "%%".utf8), "an escape in an escape")
        case .hang:
            var place = percent
            // Does not move on from a last one.
            while place < input.count { place += input.count > place + 1 || place == 0 ? 1 : 0 }
        case .memory: PlantedTarget.kept.append(Array(repeating: 1, count: 4_096))
        }
    }
}
