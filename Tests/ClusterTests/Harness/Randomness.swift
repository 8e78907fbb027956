import FoundationEssentials

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
