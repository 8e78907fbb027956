public import Core
public import HTTPServer
public import NIOCore
public import Wire

/// What routing reads from the query of a request about a key: how often the request was redirected (`hops`), whether
/// a router is to proxy it (`proxy`), and what it demands (``Guarantees``). All else is for the node that serves the
/// key. Only `hops` and `proxy` are not passed on as they are.
///
/// Works on ranges of the target's bytes, so that a redirect builds no string.
public struct RoutedQuery {
    /// The names that are read here.
    public static let parameterNames =
        [redirectHopsParameter, "proxy"] + Guarantees.readParameterNames + Guarantees.writeParameterNames

    /// 0 where the query does not say.
    public private(set) var hops = 0
    /// nil where the query does not say.
    public private(set) var proxy: Bool?
    /// As far as their names are written plainly: a node that serves the key decodes them, and refuses.
    public private(set) var guarantees = Guarantees()
    private var namesRouterParameters = false

    private static let hopsName = Array(redirectHopsParameter.utf8)
    private static let firstHop = Array("?\(redirectHopsParameter)=1".utf8)
    private static let proxyName = Array("proxy".utf8)
    /// Far above any limit, and far below where a number would overflow.
    private static let hopsDigitsMax = 6

    /// - Parameter query: the place of the query in `target`; nil for none.
    /// - Throws: `bad-request` where a value is not what its parameter takes, `redirect-loop` where the request was
    ///   redirected `Limits.redirectsMax` times.
    public init(_ query: Range<Int>?, in target: UnsafeRawBufferPointer) throws(Problem) {
        guard let query else { return }
        var rest = query
        while let part = RoutedQuery.nextPart(of: &rest, in: target) {
            if let value = RoutedQuery.value(of: RoutedQuery.hopsName, in: part) {
                hops = try RoutedQuery.number(value)
                namesRouterParameters = true
            } else if let value = RoutedQuery.value(of: RoutedQuery.proxyName, in: part) {
                proxy = try RoutedQuery.flag(value)
                namesRouterParameters = true
            } else {
                try readGuarantee(part)
            }
        }
        guard hops < Limits.redirectsMax else {
            throw Problem(
                .redirectLoop,
                "The request was redirected \(hops) times: the nodes disagree about who serves its key; "
                    + "compare their /topology documents.")
        }
    }

    /// The fields of a redirect to `node`, up to where path and query follow; to be made once.
    public static func redirectFields(to node: NodeAddress) -> [UInt8] {
        Array("cache-control: no-store\r\nlocation: http://\(node)".utf8)
    }

    /// 307 where leadership or the choice of a replica may change, 308 where the key belongs elsewhere.
    public enum RedirectStatus: Int, Sendable {
        case temporary = 307
        case permanent = 308
    }

    /// Answers with a redirect that keeps path and query and counts one hop more.
    /// - Parameter fields: of ``redirectFields(to:)``.
    public func redirect(
        _ exchange: HTTPExchange, _ status: RedirectStatus, fields: [UInt8], _ place: KeyTarget,
        of target: UnsafeRawBufferPointer
    ) {
        exchange.respond(status: status.rawValue, contentLength: 0) { buffer in
            buffer.writeBytes(fields)
            write(place, of: target, hops: hops + 1, into: &buffer)
            buffer.writeStaticString("\r\n")
        }
    }

    /// Appends path and query as they go to a node: without `proxy`, and with `hops` only where it is given.
    public func write(
        _ place: KeyTarget, of target: UnsafeRawBufferPointer, hops: Int?, into buffer: inout ByteBuffer
    ) {
        func copy(_ range: Range<Int>) {
            buffer.writeBytes(UnsafeRawBufferPointer(rebasing: target[range]))
        }
        copy(0..<place.encodedKey.upperBound)
        if place.query == nil, hops == 1 {
            buffer.writeBytes(RoutedQuery.firstHop)
            return
        }
        var first = true
        func separate() {
            buffer.writeInteger(first ? UInt8(ascii: "?") : UInt8(ascii: "&"))
            first = false
        }
        if let query = place.query, !query.isEmpty {
            if namesRouterParameters {
                var rest = query
                while let part = RoutedQuery.nextPart(of: &rest, in: target) {
                    guard RoutedQuery.value(of: RoutedQuery.hopsName, in: part) == nil,
                        RoutedQuery.value(of: RoutedQuery.proxyName, in: part) == nil
                    else { continue }
                    separate()
                    copy(part.startIndex..<part.endIndex)
                }
            } else {
                separate()
                copy(query)
            }
        }
        if let hops {
            separate()
            buffer.writeBytes(RoutedQuery.hopsName)
            buffer.writeInteger(UInt8(ascii: "="))
            buffer.writeDecimal(UInt64(hops))
        }
    }

    // MARK: Reading

    private typealias Part = Slice<UnsafeRawBufferPointer>

    /// The next `name=value`, taken from `rest`, without the `&` behind it.
    private static func nextPart(of rest: inout Range<Int>, in target: UnsafeRawBufferPointer) -> Part? {
        guard !rest.isEmpty else { return nil }
        let end = target[rest].firstIndex(of: UInt8(ascii: "&")) ?? rest.upperBound
        let part = target[rest.lowerBound..<end]
        rest = min(end + 1, rest.upperBound)..<rest.upperBound
        return part
    }

    /// The value where the part's name is `name`, written plainly; nil where it is another.
    private static func value(of name: [UInt8], in part: Part) -> Part? {
        guard part.starts(with: name) else { return nil }
        let rest = part.dropFirst(name.count)
        if rest.isEmpty { return rest }
        return rest.first == UInt8(ascii: "=") ? rest.dropFirst() : nil
    }

    private mutating func readGuarantee(_ part: Part) throws(Problem) {
        let name = part.prefix { $0 != UInt8(ascii: "=") }
        guard let name = Guarantees.names(name) else { return }
        guard let value = PercentCoding.decode(part.dropFirst(name.utf8.count + 1), plusIsSpace: true) else {
            throw Problem(.badRequest, "A \"%\" in the query is not followed by two hex digits.")
        }
        try guarantees.take(name, String(decoding: value, as: UTF8.self))
    }

    private static func number(_ value: Part) throws(Problem) -> Int {
        guard !value.isEmpty, value.count <= hopsDigitsMax else {
            throw Problem(.badRequest, "The query parameter \"\(redirectHopsParameter)\" must be a number.")
        }
        var number = 0
        for byte in value {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else {
                throw Problem(.badRequest, "The query parameter \"\(redirectHopsParameter)\" must be a number.")
            }
            number = number * 10 + Int(byte - UInt8(ascii: "0"))
        }
        return number
    }

    private static func flag(_ value: Part) throws(Problem) -> Bool {
        if value.isEmpty || value.elementsEqual("true".utf8) { return true }
        if value.elementsEqual("false".utf8) { return false }
        throw Problem(.badRequest, "The query parameter \"proxy\" must be true or false.")
    }
}
