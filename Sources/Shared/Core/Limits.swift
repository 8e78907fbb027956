/// The bounds of the public contract that are the same in every role.
public enum Limits {
    public static let keyBytesMin = 1
    public static let keyBytesMax = 4_096
    /// The default of `[storage] value_bytes_max`.
    public static let valueBytesMaxDefault = 16 << 20
    /// The longest life that a value can be given: a hundred years.
    public static let ttlMillisecondsMax: UInt64 = 36_500 * 86_400_000
    /// Redirects a request may collect before it is answered with an error.
    public static let redirectsMax = 4
}
