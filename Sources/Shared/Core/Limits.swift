/// The bounds of the public contract that are the same in every role.
public enum Limits {
    public static let keyBytesMin = 1
    public static let keyBytesMax = 4_096
    /// The default of `[storage] value_bytes_max`.
    public static let valueBytesMaxDefault = 16 << 20
    /// The longest life that a value can be given: a hundred years.
    public static let ttlMillisecondsMax: UInt64 = 36_500 * 86_400_000
    /// Operations of one batch.
    public static let batchOperationsMax = 10_000
    /// The content of a batch, and the values in its answer: enough for the largest value as base64.
    public static func batchBytesMax(valueBytesMax: Int) -> Int { max(4 << 20, 2 * valueBytesMax) }
    /// Keys and values of an atomic batch: it is one batch of the log.
    public static let atomicBatchBytesMax = 16 << 20
    /// Redirects a request may collect before it is answered with an error.
    public static let redirectsMax = 4
}
