import Synchronization

/// A number that only rises: requests, bytes, errors. Every method is safe from any thread and takes no lock.
public final class Counter: Sendable {
    private let count = Atomic<UInt64>(0)

    init() {}

    @inline(__always) public func increment(by amount: UInt64 = 1) { count.wrappingAdd(amount, ordering: .relaxed) }

    public var value: UInt64 { count.load(ordering: .relaxed) }
}

/// A number that rises and falls: connections, queue lengths, lag. Every method is safe from any thread and takes
/// no lock.
public final class Gauge: Sendable {
    private let current = Atomic<Int64>(0)

    init() {}

    @inline(__always) public func set(_ value: Int64) { current.store(value, ordering: .relaxed) }
    @inline(__always) public func add(_ amount: Int64) { current.wrappingAdd(amount, ordering: .relaxed) }

    public var value: Int64 { current.load(ordering: .relaxed) }
}

/// Buckets of a histogram: upper bounds, rising, in the unit that is observed.
public struct HistogramBuckets: Sendable, Hashable {
    let bounds: [UInt64]
    /// How many observed units make one unit of the exposition. A divisor, because 25,000 / 1e9 is exactly the
    /// number that is written 2.5e-05, and 25,000 × 1e-9 is its neighbour.
    let unitsPerExposed: Double

    /// Traps where `bounds` is empty or does not rise.
    public init(bounds: [UInt64], unitsPerExposed: Double = 1) {
        precondition(!bounds.isEmpty && zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 }, "bounds must rise")
        self.bounds = bounds
        self.unitsPerExposed = unitsPerExposed
    }

    /// Observed in nanoseconds, exposed in seconds: 25 µs to 10 s.
    public static let latency = HistogramBuckets(
        bounds: [
            25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000,
            50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 10_000_000_000,
        ], unitsPerExposed: 1e9)

    /// Observed and exposed as a plain count: 1 to 4,096 by powers of two. For writes per batch and the like.
    public static let counts = HistogramBuckets(bounds: (0...12).map { 1 << $0 })

    /// Observed and exposed in bytes: 64 B to 64 MiB by powers of four.
    public static let bytes = HistogramBuckets(bounds: (0...10).map { 64 << (2 * $0) })
}

/// How often values fell into each of a fixed set of buckets. Every method is safe from any thread and takes no lock.
public final class Histogram: Sendable {
    let buckets: HistogramBuckets
    /// One cell per bound and one for what is above all of them; each counts its own bucket only.
    private let counts: AtomicCells
    private let total = Atomic<UInt64>(0)

    init(buckets: HistogramBuckets) {
        self.buckets = buckets
        self.counts = AtomicCells(count: buckets.bounds.count + 1)
    }

    /// - Parameter value: in the unit of the buckets, nanoseconds for ``HistogramBuckets/latency``.
    public func observe(_ value: UInt64) {
        // Few buckets, and most values fall into the first ones: a scan beats a binary search.
        var bucket = 0
        while bucket < buckets.bounds.count, value > buckets.bounds[bucket] { bucket += 1 }
        counts.increment(bucket)
        total.wrappingAdd(value, ordering: .relaxed)
    }

    @inline(__always) public func observe(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        observe(seconds < 0 ? 0 : UInt64(seconds) &* 1_000_000_000 &+ UInt64(attoseconds / 1_000_000_000))
    }

    /// Values in each bucket, not cumulative, and the sum of all values. Taken while others observe, so the two may
    /// be apart by what was being observed.
    var snapshot: (counts: [UInt64], sum: UInt64) {
        ((0...buckets.bounds.count).map { counts[$0] }, total.load(ordering: .relaxed))
    }
}

/// A fixed number of atomic counters side by side.
///
/// Unchecked because of the pointer alone: it never changes, and what it points to is accessed only atomically until
/// `deinit`, which runs when no reference is left.
private final class AtomicCells: @unchecked Sendable {
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    private let count: Int

    init(count: Int) {
        self.count = count
        cells = .allocate(capacity: count)
        for index in 0..<count { (cells + index).initialize(to: Atomic(0)) }
    }

    deinit {
        cells.deinitialize(count: count)
        cells.deallocate()
    }

    func increment(_ index: Int) {
        assert(index < count)
        cells[index].wrappingAdd(1, ordering: .relaxed)
    }

    subscript(_ index: Int) -> UInt64 {
        assert(index < count)
        return cells[index].load(ordering: .relaxed)
    }
}
