import Glibc

/// Bytes that are written at its end and taken from its beginning, in one piece of memory that grows and is reused.
struct ByteQueue: ~Copyable {
    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    private var start = 0
    private var end = 0

    init(capacity: Int) {
        precondition(capacity > 0)
        self.capacity = capacity
        base = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit { base.deallocate() }

    var count: Int { end - start }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base + start, count: end - start) }

    /// Where at least `count` bytes can be written; ``append(_:)`` says how many were.
    mutating func room(_ count: Int) -> UnsafeMutableRawPointer {
        if capacity - end < count { makeRoom(count) }
        return base + end
    }

    mutating func append(_ count: Int) { end += count }

    mutating func consume(_ count: Int) {
        start += count
        if start == end { (start, end) = (0, 0) }
    }

    mutating func removeAll() { (start, end) = (0, 0) }

    private mutating func makeRoom(_ count: Int) {
        let held = self.count
        if held + count <= capacity {
            memmove(base, base + start, held)
        } else {
            let grown = max(held + count, capacity * 2)
            let larger = UnsafeMutableRawPointer.allocate(byteCount: grown, alignment: 16)
            larger.copyMemory(from: base + start, byteCount: held)
            base.deallocate()
            (base, capacity) = (larger, grown)
        }
        (start, end) = (0, held)
    }
}

extension UnsafeMutableRawPointer {
    /// Writes `bytes` here and moves behind them.
    mutating func put(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { put($0) }
    }

    mutating func put(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress else { return }
        copyMemory(from: source, byteCount: bytes.count)
        self += bytes.count
    }

    mutating func put(_ text: StaticString) {
        copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        self += text.utf8CodeUnitCount
    }

    /// In decimal.
    mutating func put(_ number: Int) {
        var (divisor, rest) = (1, number)
        while rest / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            storeBytes(of: UInt8(ascii: "0") + UInt8(rest / divisor), as: UInt8.self)
            self += 1
            rest %= divisor
            divisor /= 10
        }
    }
}
