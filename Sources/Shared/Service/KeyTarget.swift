public import Core
public import Wire

/// Where key and query stand in the bytes of a request target `/kv/{key}?{query}`.
///
/// The key is percent-encoded bytes; slashes belong to it. Offsets count UTF-8 bytes of the target, so that a
/// handler that passes the target on copies ranges of it and builds no string.
public struct KeyTarget: Sendable, Hashable {
    /// The key, still percent-encoded: everything from behind `/kv/` to the `?`.
    public let encodedKey: Range<Int>
    /// What follows the `?`, still percent-encoded; nil where there is none.
    public let query: Range<Int>?
    /// True where the key as it stands in the target is the key itself: no `%` in it.
    public let isPlain: Bool
    @usableFromInline let holdsFragment: Bool

    private static let prefixBytes = 4

    /// nil where the path does not start with `/kv/`.
    public init?(_ target: UnsafeRawBufferPointer) {
        // Compared as one number: '/' 'k' 'v' '/'.
        guard target.count >= KeyTarget.prefixBytes,
            UInt32(littleEndian: target.loadUnaligned(as: UInt32.self)) == 0x2F76_6B2F
        else { return nil }
        var index = KeyTarget.prefixBytes
        var plain = true
        var fragment = false
        while index < target.count, target[index] != UInt8(ascii: "?") {
            if target[index] == UInt8(ascii: "%") { plain = false }
            if target[index] == UInt8(ascii: "#") { fragment = true }
            index += 1
        }
        encodedKey = KeyTarget.prefixBytes..<index
        if index < target.count {
            query = index + 1..<target.count
            fragment = fragment || target[index...].contains(UInt8(ascii: "#"))
        } else {
            query = nil
        }
        isPlain = plain
        holdsFragment = fragment
    }

    /// Lends the bytes of the key, percent-decoding undone, to `body`; a plain key is not copied.
    /// - Parameter target: the same bytes that this value was made from.
    /// - Throws: `bad-request` where the key is empty, longer than `Limits.keyBytesMax` or badly encoded.
    @inlinable public func withKey<Result>(
        in target: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(Problem) -> Result {
        // Inlined, because a call of a generic function of another module looks its types up at run time.
        if isPlain, !holdsFragment, !encodedKey.isEmpty, encodedKey.count <= Limits.keyBytesMax {
            return body(UnsafeRawBufferPointer(rebasing: target[encodedKey]))
        }
        return try withUnusualKey(in: target, body)
    }

    /// A key that has to be decoded, or refused.
    @usableFromInline func withUnusualKey<Result>(
        in target: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(Problem) -> Result {
        guard !holdsFragment else { throw Problem(.badRequest, "A \"#\" in a request target must be written as %23.") }
        guard !encodedKey.isEmpty else { throw Problem(.badRequest, "The key is empty: write it after /kv/.") }
        // Three bytes stand for one at the most, so a longer one is not worth decoding.
        guard encodedKey.count <= 3 * Limits.keyBytesMax else { throw KeyTarget.tooLong(nil) }
        let encoded = UnsafeRawBufferPointer(rebasing: target[encodedKey])
        let outcome: Swift.Result<Result, Problem> = withUnsafeTemporaryAllocation(
            byteCount: encoded.count, alignment: 1
        ) { decoded in
            guard let count = PercentCoding.decode(encoded, into: decoded) else {
                return .failure(Problem(.badRequest, "A \"%\" in the key is not followed by two hex digits."))
            }
            guard count <= Limits.keyBytesMax else { return .failure(KeyTarget.tooLong(count)) }
            return .success(body(UnsafeRawBufferPointer(rebasing: decoded[..<count])))
        }
        return try outcome.get()
    }

    private static func tooLong(_ count: Int?) -> Problem {
        let length = count.map { "The key has \($0) bytes" } ?? "The key is too long"
        return Problem(.badRequest, "\(length): at most \(Limits.keyBytesMax) are allowed.")
    }
}
