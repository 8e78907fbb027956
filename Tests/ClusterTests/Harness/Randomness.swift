import FoundationEssentials

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same test.
struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}

/// `DISTRIBKV_TEST_SEED`, else random; printed, so that a failure can be run again.
func testSeed(_ test: String) -> UInt64 {
    let given = ProcessInfo.processInfo.environment["DISTRIBKV_TEST_SEED"].flatMap { UInt64($0) }
    let seed = given ?? UInt64.random(in: 0...UInt64(UInt32.max))
    print("\(test): DISTRIBKV_TEST_SEED=\(seed)")
    return seed
}

/// A number from the environment, for longer runs by hand.
func testSetting(_ name: String, default fallback: Int) -> Int {
    ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? fallback
}
