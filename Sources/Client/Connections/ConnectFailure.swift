import Glibc
import NIOCore
import NIOPosix

/// Says in a few words why a connection could not be made.
enum ConnectFailure {
    static func describe(_ error: any Error) -> String {
        switch error {
        case let error as IOError: String(cString: strerror(error.errnoCode)).lowercased()
        case let error as NIOConnectionError: describe(error)
        case ChannelError.connectTimeout(let time): "no answer within \(time.nanoseconds / 1_000_000) ms"
        case ChannelError.ioOnClosedChannel: "it closed the connection at once"
        default: "\(error)"
        }
    }

    /// A host name: it does not resolve, or none of its addresses takes the connection.
    private static func describe(_ error: NIOConnectionError) -> String {
        if let first = error.connectionErrors.first { return describe(first.error) }
        return "the name \(error.host) does not resolve"
    }
}
