/// What this build is.
public enum BuildInformation {
    /// Semantic version of every binary and of the client library: `--version`, `GET /status`.
    public static let version = "0.1.0"
}
