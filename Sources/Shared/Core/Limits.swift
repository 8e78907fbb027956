/// The bounds of the public contract that are the same in every role.
public enum Limits {
    public static let keyBytesMin = 1
    public static let keyBytesMax = 4_096
    /// The default of `[storage] value_bytes_max`.
    public static let valueBytesMaxDefault = 16 << 20
    /// Redirects a request may collect before it is answered with an error.
    public static let redirectsMax = 4
}
