/// Writes requests as bytes.
struct RequestWriter {
    private let names: KeyNames
    private let readQuery: [UInt8]
    private let writeQuery: [UInt8]
    private let scanQuery: [UInt8]

    /// What a request has at most besides its target, what its node gives, and its value.
    private static let room = 64
    /// The longest query, of a scan.
    private static let queryRoom = 128

    init(_ settings: LoadSettings) {
        names = settings.names
        readQuery = Array(settings.readQuery.utf8)
        writeQuery = Array(settings.writeQuery.utf8)
        let scanQuery = settings.scanQuery
        self.scanQuery = Array((scanQuery.isEmpty ? "?" : scanQuery + "&").utf8)
    }

    /// Appends the request of `exchange` to the output of a connection to `node`.
    /// - Parameter target: where a redirect pointed; nil for the operation's own.
    func write(
        _ exchange: Exchange, target: [UInt8]?, to node: Node, values: borrowing ValueWriter,
        into output: inout ByteQueue
    ) {
        let valueBytes = exchange.isWriting ? Int(exchange.valueBytes) : 0
        let targetBytes = target?.count ?? names.byteCount + Self.queryRoom + writeQuery.count + readQuery.count
        let start = output.room(Self.room + targetBytes + node.tail.count + valueBytes)
        var end = start
        end.put(exchange.isWriting ? "PUT " : "GET ")
        if let target { end.put(target) } else { putTarget(of: exchange, &end) }
        end.put(node.tail)
        if exchange.isWriting {
            end.put("content-length: ")
            end.put(valueBytes)
            end.put("\r\n\r\n")
            values.write(valueBytes, key: exchange.key, sequence: exchange.sequence, to: end)
            end += valueBytes
        } else {
            end.put("\r\n")
        }
        output.append(end - start)
    }

    private func putTarget(of exchange: Exchange, _ end: inout UnsafeMutableRawPointer) {
        guard exchange.kind != .scan else {
            end.put("/kv")
            end.put(scanQuery)
            end.put("start=")
            putName(exchange.key, &end)
            end.put("&limit=")
            end.put(Int(exchange.scanCount))
            return
        }
        end.put("/kv/")
        putName(exchange.key, &end)
        end.put(exchange.isWriting ? writeQuery : readQuery)
    }

    private func putName(_ key: UInt64, _ end: inout UnsafeMutableRawPointer) {
        names.write(key, to: end)
        end += names.byteCount
    }
}
