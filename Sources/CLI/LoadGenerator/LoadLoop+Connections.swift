import CEpoll
import Core
import Glibc
import Sharding
import Synchronization

// MARK: - Where requests go

extension LoadLoop {
    func adoptTopology() {
        topologyGeneration = shared.topologyGeneration.load(ordering: .acquiring)
        guard let topology = shared.topology else { return }
        routes = Routes(topology) { number(of: $0) }
    }

    /// The number of a node; nil where there are too many, or it has no address.
    func number(of address: NodeAddress) -> Int? {
        if let number = numbers[address] { return number }
        guard nodes.count < Self.nodesMax, let node = try? Node(address) else { return nil }
        nodes.append(node)
        numbers[address] = nodes.count - 1
        return nodes.count - 1
    }

    /// Sends the request of an operation to where it is served.
    func dispatch(_ exchange: Exchange, at now: UInt64) {
        send(exchange, to: node(for: exchange), target: nil, at: now)
    }

    /// -1 where there is none.
    private func node(for exchange: Exchange) -> Int {
        let client = Int(exchange.client)
        guard settings.via == .direct, let routes else { return clients[client].seed }
        if exchange.kind == .scan {
            // Whoever is asked merges what all shards have.
            return routes.nodes.isEmpty ? -1 : routes.nodes[Int(random.below(UInt64(routes.nodes.count)))]
        }
        let position = position(of: exchange.key)
        guard !exchange.isWriting, settings.readFrom == .any, !settings.isConsistent else {
            return routes.leader(position)
        }
        return self.routes?.nextReplica(position) ?? -1
    }

    func position(of key: UInt64) -> Int {
        guard let routes, routes.shards.count > 1 else { return 0 }
        settings.names.write(key, to: keyScratch.baseAddress!)
        return routes.position(of: UnsafeRawBufferPointer(keyScratch))
    }

    /// - Parameter target: where a redirect pointed; nil for the operation's own.
    func send(_ exchange: Exchange, to node: Int, target: [UInt8]?, at now: UInt64) {
        guard node >= 0 else { return end(exchange, .refused, at: now) }
        let connection = connection(of: Int(exchange.client), to: node)
        if connection.state == .closed, now < connection.retryAt || !connect(connection, at: now) {
            return end(exchange, .refused, at: now)
        }
        connection.exchanges.append(exchange)
        requests.write(exchange, target: target, to: nodes[node], values: values, into: &connection.output)
        if connection.state == .open, !connection.isDirty {
            connection.isDirty = true
            dirty.append(connection)
        }
    }

    private func connection(of client: Int, to node: Int) -> Connection {
        while clients[client].connections.count <= node { clients[client].connections.append(-1) }
        let known = clients[client].connections[node]
        guard known < 0 else { return connections[known] }
        let connection = Connection(
            index: connections.count, client: client, node: node, depth: settings.pipelineDepth)
        clients[client].connections[node] = connections.count
        connections.append(connection)
        return connection
    }
}

// MARK: - Sockets

extension LoadLoop {
    private func connect(_ connection: Connection, at now: UInt64) -> Bool {
        guard let descriptor = nodes[connection.node].connect(),
            cepoll_add(poll, descriptor, cepoll_out, UInt64(connection.index)) == 0
        else {
            connection.retryAt = now + Self.failurePause
            return false
        }
        connection.descriptor = descriptor
        connection.state = .connecting
        return true
    }

    func finishConnecting(_ connection: Connection) {
        var status: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        getsockopt(connection.descriptor, SOL_SOCKET, SO_ERROR, &status, &length)
        let now = Clock.now()
        guard status == 0 else {
            connection.retryAt = now + Self.failurePause
            return close(connection, .refused, at: now)
        }
        _ = cepoll_change(poll, connection.descriptor, cepoll_in, UInt64(connection.index))
        connection.state = .open
        write(connection, at: now)
    }

    /// Gives the kernel what was written since.
    func flush(at now: UInt64) {
        // More may come while it runs.
        var index = 0
        while index < dirty.count {
            let connection = dirty[index]
            connection.isDirty = false
            if connection.state == .open, !connection.awaitsRoom { write(connection, at: now) }
            index += 1
        }
        dirty.removeAll(keepingCapacity: true)
    }

    func write(_ connection: Connection, at now: UInt64) {
        let bytes = connection.output.bytes
        if bytes.count > 0 {
            let count = Glibc.send(connection.descriptor, bytes.baseAddress, bytes.count, CInt(MSG_NOSIGNAL))
            if count > 0 {
                connection.output.consume(count)
            } else if errno != EAGAIN && errno != EINTR {
                return close(connection, .reset, at: now)
            }
        }
        let awaitsRoom = connection.output.count > 0
        guard awaitsRoom != connection.awaitsRoom else { return }
        connection.awaitsRoom = awaitsRoom
        let events = awaitsRoom ? cepoll_in | cepoll_out : cepoll_in
        _ = cepoll_change(poll, connection.descriptor, events, UInt64(connection.index))
    }

    func read(_ connection: Connection) {
        // What was left of the last time comes first.
        let held = connection.input.count
        if held > 0 {
            scratch.baseAddress!.copyMemory(from: connection.input.bytes.baseAddress!, byteCount: held)
            connection.input.removeAll()
        }
        let count = recv(connection.descriptor, scratch.baseAddress! + held, Self.readBytesMax, 0)
        let now = Clock.now()
        guard count > 0 else {
            if count < 0, errno == EAGAIN || errno == EINTR { return keep(connection, scratch[..<held]) }
            return close(connection, .reset, at: now)
        }
        takeAnswers(UnsafeRawBufferPointer(rebasing: scratch[..<(held + count)]), connection, at: now)
        flush(at: now)
    }

    func keep(_ connection: Connection, _ bytes: Slice<UnsafeMutableRawBufferPointer>) {
        keep(connection, UnsafeRawBufferPointer(rebasing: bytes))
    }

    /// Holds the beginning of a head until there is more of it.
    func keep(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        connection.input.room(bytes.count).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        connection.input.append(bytes.count)
    }

    /// Closes a connection; what is under way on it fails.
    func close(_ connection: Connection, _ failure: Failure, at now: UInt64) {
        connection.close()
        // None of them begins another one on this connection: they rest first, or wait for their turn.
        for _ in 0..<connection.exchanges.count { end(connection.exchanges.removeFirst(), failure, at: now) }
    }
}
