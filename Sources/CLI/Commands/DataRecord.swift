import Core
import FoundationEssentials
import NIOCore

/// What a command says of one key with `--output json`; members that do not apply are left out.
///
/// Bytes that are not valid UTF-8 are in `key_base64` and `value_base64` in place of `key` and `value` (RFC 4648
/// section 4, padded).
struct DataRecord: Encodable, Equatable {
    var key: String?
    var keyBase64: String?
    var value: String?
    var valueBase64: String?
    /// What a counter stands at now.
    var number: Int64?
    var version: String

    init(key: some Sequence<UInt8>, version: Version, value: ByteBuffer? = nil, number: Int64? = nil) {
        (self.key, keyBase64) = Self.text(Array(key))
        if let value { (self.value, valueBase64) = Self.text(Array(value.readableBytesView)) }
        self.number = number
        self.version = version.hexDigits
    }

    private static func text(_ bytes: [UInt8]) -> (text: String?, base64: String?) {
        if let text = String(validating: bytes, as: UTF8.self) { return (text, nil) }
        return (nil, Data(bytes).base64EncodedString())
    }
}
