/// Waiting times that double from `min` to `max`, each shortened by up to half at random, so that those who
/// failed together do not return together.
struct Backoff {
    let min: Duration
    let max: Duration
    private var next: Duration

    init(min: Duration, max: Duration) {
        self.min = min
        self.max = max
        self.next = min
    }

    mutating func wait(using random: inout SplitMix64) -> Duration {
        let full = next
        next = Swift.min(next * 2, max)
        return full * Double.random(in: 0.5...1, using: &random)
    }

    mutating func reset() { next = min }
}

/// A small random number generator with a seed, for jitter that can be replayed.
/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
