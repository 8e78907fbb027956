import Core
public import HTTPServer
import NIOCore
public import Wire

/// A redirect that keeps path and query, and counts how often the request was redirected.
public struct Redirect: Sendable {
    /// 307 where leadership or the choice of a replica may change, 308 where the key belongs elsewhere.
    public enum Status: Int, Sendable {
        case temporary = 307
        case permanent = 308
    }

    private static let hopsName = Array("\(redirectHopsParameter)=".utf8)

    /// How often the request was redirected before it came here; 0 where its query does not say.
    /// - Parameter query: the bytes behind the `?`, still percent-encoded.
    /// - Throws: `bad-request` where the parameter is no number, `redirect-loop` where it reached `Limits.redirectsMax`.
    public static func hops(in query: UnsafeRawBufferPointer) throws(Problem) -> Int {
        for part in query.split(separator: UInt8(ascii: "&")) where part.starts(with: hopsName) {
            let digits = part.dropFirst(hopsName.count)
            guard (1...3).contains(digits.count), digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else {
                throw Problem(.badRequest, "The query parameter \"\(redirectHopsParameter)\" must be a small number.")
            }
            let hops = digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
            guard hops < Limits.redirectsMax else {
                throw Problem(
                    .redirectLoop,
                    "The request was redirected \(hops) times: the nodes disagree about who serves the key. "
                        + "Compare their /topology documents.")
            }
            return hops
        }
        return 0
    }

    /// Answers with a redirect to the same target at another node.
    /// - Parameters:
    ///   - origin: `http://host:port`.
    ///   - target: the request target, as it arrived.
    ///   - query: where the query stands in it; nil for none.
    ///   - hops: what ``hops(in:)`` found.
    public static func respond(
        to exchange: HTTPExchange, _ status: Status, origin: [UInt8], target: UnsafeRawBufferPointer,
        query: Range<Int>?, hops: Int
    ) {
        exchange.respond(status: status.rawValue, contentLength: 0) { buffer in
            buffer.writeStaticString("location: ")
            buffer.writeBytes(origin)
            if let query {
                buffer.writeBytes(target[..<query.lowerBound])
                for part in target[query].split(separator: UInt8(ascii: "&")) where !part.starts(with: hopsName) {
                    buffer.writeBytes(part)
                    buffer.writeInteger(UInt8(ascii: "&"))
                }
            } else {
                buffer.writeBytes(target)
                buffer.writeInteger(UInt8(ascii: "?"))
            }
            buffer.writeBytes(hopsName)
            buffer.writeDecimal(UInt64(hops + 1))
            buffer.writeStaticString("\r\ncache-control: no-store\r\n")
        }
    }
}
