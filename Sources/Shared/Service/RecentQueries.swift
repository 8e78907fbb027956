import Glibc
public import NIOHTTP1
public import Wire

/// The queries of late, and what was made of each: clients send the same one with request after request.
///
/// Bounded: ``countMax`` queries of at most ``bytesMax`` bytes. Only those that could be read are kept.
public struct RecentQueries<Value> {
    /// As many kinds of requests as clients of one event loop have in use at once, about.
    private static var countMax: Int { 8 }
    private static var bytesMax: Int { 128 }

    private struct Entry {
        let method: HTTPMethod
        let query: [UInt8]
        let value: Value
    }

    private var entries: [Entry] = []
    private var oldest = 0

    public init() {}

    /// What `read` makes of `query`, or made of it before.
    public mutating func value(
        of query: UnsafeRawBufferPointer, _ method: HTTPMethod, read: () throws(Problem) -> Value
    ) throws(Problem) -> Value {
        for entry in entries where entry.query.count == query.count {
            let isSame = query.isEmpty || memcmp(entry.query, query.baseAddress!, query.count) == 0
            if isSame, entry.method == method { return entry.value }
        }
        let value = try read()
        if query.count <= RecentQueries.bytesMax {
            let entry = Entry(method: method, query: Array(query), value: value)
            if entries.count < RecentQueries.countMax {
                entries.append(entry)
            } else {
                entries[oldest] = entry
                oldest = (oldest + 1) % RecentQueries.countMax
            }
        }
        return value
    }
}
