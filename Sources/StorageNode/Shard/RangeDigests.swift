import Core
import LSM
import Wire

/// Checksums of a shard's records, range by range of keys, from one pass over them in key order.
///
/// A record enters as key length, key, version, value length, value and, where it has one, its expiry: lengths 32 bits,
/// version and expiry 64 bits, little endian. With boundaries given, the ranges are those; without, they are chosen on the way: each begins with one
/// key, and whenever there are too many, neighbours are joined, so that all but the last hold about equally many.
struct RangeDigests {
    /// Of the ranges a replica chooses itself; at least half as many where there are that many keys.
    static let chosenRangesMax = 256
    /// Of the ranges that are asked for.
    static let rangesMax = 1_024

    private struct Range {
        var start: [UInt8]
        var keys: UInt64 = 0
        /// What was summed up.
        var bytes: UInt64 = 0
        var sum = CRC32C()
        /// Of a range that was joined from two and gets no more records.
        var joined: UInt32?

        var value: UInt32 { joined ?? sum.value }
    }

    private var ranges: [Range] = [Range(start: [])]
    /// The starts after the first; nil where they are chosen.
    private let boundaries: [[UInt8]]?
    private var keysPerRange: UInt64 = 1
    private let rangesMax: Int

    /// - Parameter boundaries: rising; see ``check(_:)``.
    init(boundaries: [[UInt8]]?, chosenRangesMax: Int = RangeDigests.chosenRangesMax) {
        self.boundaries = boundaries
        rangesMax = chosenRangesMax
    }

    /// Throws `KVError(.invalidArgument)` where these are no boundaries to ask for.
    static func check(_ boundaries: [[UInt8]]) throws(KVError) {
        guard boundaries.count < rangesMax else {
            throw KVError(.invalidArgument, "\(boundaries.count) boundaries are too many: at most \(rangesMax - 1)")
        }
        var previous: [UInt8] = []
        for boundary in boundaries {
            guard previous.lexicographicallyPrecedes(boundary), boundary.count <= Limits.keyBytesMax else {
                throw KVError(.invalidArgument, "the boundaries are not keys in rising order")
            }
            previous = boundary
        }
    }

    /// - Parameter key: greater than all before.
    mutating func add(key: UnsafeRawBufferPointer, _ stored: StoredValue) {
        let value = stored.bytes
        if let boundaries {
            while ranges.count <= boundaries.count, !key.lexicographicallyPrecedes(boundaries[ranges.count - 1]) {
                ranges.append(Range(start: boundaries[ranges.count - 1]))
            }
        } else if ranges[ranges.count - 1].keys >= keysPerRange {
            if ranges.count == rangesMax { joinNeighbours() }
            // After joining an odd number the last one may have room again.
            if ranges[ranges.count - 1].keys >= keysPerRange { ranges.append(Range(start: Array(key))) }
        }
        let last = ranges.count - 1
        ranges[last].keys += 1
        ranges[last].bytes += UInt64(4 + key.count + 8 + 4 + value.count)
        withUnsafeBytes(of: UInt32(key.count).littleEndian) { ranges[last].sum.update($0) }
        ranges[last].sum.update(key)
        withUnsafeBytes(of: stored.version.rawValue.littleEndian) { ranges[last].sum.update($0) }
        withUnsafeBytes(of: UInt32(value.count).littleEndian) { ranges[last].sum.update($0) }
        ranges[last].sum.update(value)
        if let expires = stored.expiresMilliseconds {
            ranges[last].bytes += 8
            withUnsafeBytes(of: expires.littleEndian) { ranges[last].sum.update($0) }
        }
    }

    /// Halves the number of ranges; every one is full when this is called.
    private mutating func joinNeighbours() {
        var halved: [Range] = []
        halved.reserveCapacity(ranges.count / 2 + 1)
        for index in stride(from: 0, to: ranges.count, by: 2) {
            var range = ranges[index]
            if index + 1 < ranges.count {
                let next = ranges[index + 1]
                range.joined = CRC32C.combine(range.value, next.value, secondBytes: next.bytes)
                range.keys += next.keys
                range.bytes += next.bytes
            }
            halved.append(range)
        }
        ranges = halved
        keysPerRange *= 2
    }

    consuming func finish() -> [DigestDocument.Range] {
        for boundary in (boundaries ?? []).dropFirst(ranges.count - 1) { ranges.append(Range(start: boundary)) }
        return ranges.map { range in
            let digits = String(range.value, radix: 16)
            return DigestDocument.Range(
                start: PercentCoding.encode(range.start), keys: range.keys,
                crc32c: String(repeating: "0", count: 8 - digits.count) + digits)
        }
    }
}
