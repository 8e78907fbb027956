import Core
import Glibc
import Synchronization

extension LoadLoop {
    /// Reads the answers in `bytes`, which came on `connection`.
    func takeAnswers(_ bytes: UnsafeRawBufferPointer, _ connection: Connection, at now: UInt64) {
        var position = 0
        while position < bytes.count {
            guard let exchange = connection.exchanges.first else {
                // An answer to nothing: a time-out of the server's, most likely.
                return close(connection, .badAnswer, at: now)
            }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
            let progress: AnswerReader.Progress
            do throws(AnswerReader.Defect) {
                progress = try connection.reader.read(rest)
            } catch {
                return close(connection, .badAnswer, at: now)
            }
            if shared.table != nil, !progress.content.isEmpty {
                takeContent(UnsafeRawBufferPointer(rebasing: rest[progress.content]), exchange, connection)
            }
            position += progress.consumed
            guard progress.isComplete else { break }
            _ = connection.exchanges.removeFirst()
            finish(exchange, connection, at: now)
            // It may have been closed.
            if connection.state != .open { return }
        }
        keep(connection, UnsafeRawBufferPointer(rebasing: bytes[position...]))
    }

    /// An answer is complete.
    private func finish(_ exchange: Exchange, _ connection: Connection, at now: UInt64) {
        let head = connection.reader.head
        if cpuAtStart != nil { recorder.requests += 1 }
        let failure: Failure?
        switch head.status {
        case 200..<300: failure = nil
        case 307, 308:
            if cpuAtStart != nil { recorder.redirects += 1 }
            return follow(exchange, connection, at: now)
        default: failure = .status(head.status)
        }
        if shared.table != nil { check(exchange, head.status, connection) }
        if let routes, head.epoch > routes.epoch { shared.wantsTopology.store(true, ordering: .relaxed) }
        if head.isLast { close(connection, .reset, at: now) }
        guard failure == nil, exchange.kind == .readModifyWrite, !exchange.isWriting else {
            return end(exchange, failure, at: now)
        }
        var write = exchange
        write.isWriting = true
        write.hops = 0
        fill(&write)
        dispatch(write, at: now)
    }

    /// Sends the request again, to where the answer points.
    private func follow(_ exchange: Exchange, _ connection: Connection, at now: UInt64) {
        let location = connection.reader.head.location
        if connection.reader.head.isLast { close(connection, .reset, at: now) }
        var exchange = exchange
        exchange.hops += 1
        guard exchange.hops <= Limits.redirectsMax else { return end(exchange, .redirectLoop, at: now) }
        guard let location, let (node, target) = place(location, from: connection.node) else {
            return end(exchange, .badAnswer, at: now)
        }
        if settings.via == .direct {
            // The topology is older than this node's.
            shared.wantsTopology.store(true, ordering: .relaxed)
            let position = position(of: exchange.key)
            if exchange.isWriting { routes?.learn(leader: node, of: position) }
        }
        send(exchange, to: node, target: target, at: now)
    }

    /// The node and the target that a `Location` names; nil where it is neither `http://host:port/…` nor a path.
    private func place(_ location: [UInt8], from node: Int) -> (Int, [UInt8])? {
        if location.first == UInt8(ascii: "/") { return (node, location) }
        let scheme = Array("http://".utf8)
        guard location.starts(with: scheme),
            let slash = location[scheme.count...].firstIndex(of: UInt8(ascii: "/")), slash > scheme.count
        else { return nil }
        let authority = location[scheme.count..<slash]
        let target = Array(location[slash...])
        if let known = nodes.firstIndex(where: { $0.authority.elementsEqual(authority) }) { return (known, target) }
        guard let address = NodeAddress(String(decoding: authority, as: UTF8.self)), let new = number(of: address)
        else { return nil }
        return (new, target)
    }
}
