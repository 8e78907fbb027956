package import Core
package import LSM
package import NIOCore

/// Where the writer looks up what is stored: RocksDB, or a twin in memory.
package protocol ValueSource: Sendable {
    /// Looks a user key up and lends what it found to `body`, which is called once unless this throws. With
    /// `.disk` it may block, and sees every batch that was written before.
    func read(key: ByteBuffer, tier: ReadTier, _ body: (Lookup) -> Void) throws(KVError)
}

extension Database: ValueSource {}

/// Builds a batch in which some operation depends on what is stored: decides each by the database and by the
/// operations before it in the same batch.
///
/// Made for one batch, and only where it is needed: a batch of plain writes neither looks up nor remembers anything.
struct CheckedWrites {
    /// What an operation finds.
    private struct Current {
        /// Nil where nothing is stored.
        var version: Version?
        /// Nil where the value is no integer; an absent counter stands at 0.
        var number: Int64?
        /// When it is gone; nil for never.
        var expires: UInt64?
        /// Of what this batch has written.
        var value = ByteBuffer()

        static let absent = Current(version: nil, number: 0)
    }

    private let values: any ValueSource
    /// What time it is for values that expire; the same for the whole batch.
    private let now: UInt64
    private let lifeBegins: UInt64
    /// By the keys that the batch has written so far.
    private var written: [ByteBuffer: Current] = [:]

    private let readBytesMax: Int
    /// What the reads of a submission may still find.
    private var readBytesLeft = 0

    /// - Parameter lifeBegins: from when the lives of values are counted; `now` or later.
    init(_ values: any ValueSource, now: UInt64, lifeBegins: UInt64, readBytesMax: Int) {
        self.values = values
        self.now = now
        self.lifeBegins = lifeBegins
        self.readBytesMax = readBytesMax
    }

    /// What follows is of another submission.
    mutating func beginSubmission() { readBytesLeft = readBytesMax }

    /// Puts the operation into the batch, or refuses it.
    /// - Returns: what there is to say of it beyond its version; nil for nothing.
    mutating func add(
        _ operation: WriteOperation, version: Version, to builder: inout WriteBatchBuilder
    ) -> WriteReceipt.Remark? {
        switch operation {
        case .put(let key, let value):
            put(key, value, version: version, expires: nil, in: &builder)
            return nil
        case .expiringPut(let key, let value, let milliseconds):
            put(
                key, value, version: version, expires: ExpiryClock.moment(milliseconds, after: lifeBegins), in: &builder
            )
            return nil
        case .delete(let key):
            builder.delete(key: key)
            written[key] = .absent
            return nil
        case .increment(let key, let amount):
            return increment(key, by: amount, version: version, in: &builder)
        case .read(let key): return read(key)
        case .conditional(let condition, let operation):
            do throws(KVError) {
                guard condition.holds(for: try current(operation.key).version) else {
                    return .refused(.conditionFailed)
                }
            } catch {
                return .refused(.unreadable(error))
            }
            return add(operation, version: version, to: &builder)
        }
    }

    private mutating func put(
        _ key: ByteBuffer, _ value: ByteBuffer, version: Version, expires: UInt64?, in builder: inout WriteBatchBuilder
    ) {
        builder.put(key: key, version: version, expires: expires, value: value)
        written[key] = Current(
            version: version, number: Int64(decimal: value.readableBytesView), expires: expires, value: value)
    }

    private mutating func increment(
        _ key: ByteBuffer, by amount: Int64, version: Version, in builder: inout WriteBatchBuilder
    ) -> WriteReceipt.Remark {
        do throws(KVError) {
            let current = try current(key)
            guard let number = current.number else { return .refused(.notAnInteger) }
            let (sum, overflows) = number.addingReportingOverflow(amount)
            guard !overflows else { return .refused(.overflow) }
            let value = ByteBuffer(string: String(sum))
            builder.put(key: key, version: version, expires: current.expires, value: value)
            written[key] = Current(version: version, number: sum, expires: current.expires, value: value)
            return .number(sum)
        } catch {
            return .refused(.unreadable(error))
        }
    }

    private mutating func read(_ key: ByteBuffer) -> WriteReceipt.Remark {
        do throws(KVError) {
            guard let found = try stored(key) else { return .read(nil) }
            guard found.value.readableBytes <= readBytesLeft else { return .refused(.tooMuchRead) }
            readBytesLeft -= found.value.readableBytes
            return .read(found)
        } catch {
            return .refused(.unreadable(error))
        }
    }

    private func stored(_ key: ByteBuffer) throws(KVError) -> ReadValue? {
        if let written = written[key] {
            guard let version = written.version else { return nil }
            return ReadValue(
                value: written.value, version: version, millisecondsLeft: millisecondsLeft(until: written.expires))
        }
        var found: ReadValue?
        try values.read(key: key, tier: .disk) { lookup in
            guard case .value(let value) = lookup, !value.isExpired(at: now) else { return }
            found = ReadValue(
                value: ByteBuffer(bytes: value.bytes), version: value.version,
                millisecondsLeft: millisecondsLeft(until: value.expiresMilliseconds))
        }
        return found
    }

    private func millisecondsLeft(until expires: UInt64?) -> UInt64? { expires.map { $0 - min(now, $0 - 1) } }

    private func current(_ key: ByteBuffer) throws(KVError) -> Current {
        if let current = written[key] { return current }
        var found = Current.absent
        try values.read(key: key, tier: .disk) { lookup in
            guard case .value(let value) = lookup, !value.isExpired(at: now) else { return }
            found = Current(
                version: value.version, number: Int64(decimal: value.bytes), expires: value.expiresMilliseconds)
        }
        return found
    }
}

extension Int64 {
    /// Reads a number in ASCII, an optional `-` and decimal digits and nothing else; nil for anything else.
    init?(decimal bytes: some Collection<UInt8>) {
        // "-9223372036854775808"
        guard bytes.count <= 20 else { return nil }
        let isNegative = bytes.first == UInt8(ascii: "-")
        let digits = bytes.dropFirst(isNegative ? 1 : 0)
        guard !digits.isEmpty else { return nil }
        var number: Int64 = 0
        for byte in digits {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            let digit = Int64(byte - UInt8(ascii: "0"))
            let (tenfold, overflows) = number.multipliedReportingOverflow(by: 10)
            let (sum, overflowsToo) =
                isNegative ? tenfold.subtractingReportingOverflow(digit) : tenfold.addingReportingOverflow(digit)
            guard !overflows, !overflowsToo else { return nil }
            number = sum
        }
        self = number
    }
}
