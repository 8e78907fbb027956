import DistribKVClient
import NIOCore

// What the documentation shows, a function for each piece.

/// Runs most of them, one after the other.
public func tour(_ client: KVClient) async throws {
    try await gettingStarted(client)
    try await client.delete("config".utf8)
    try await conditions(client)
    try await client.put("stock".utf8, ByteBuffer(string: "10"))
    try await counters(client)
    try await lives(client)
    let version = try await client.put("order/7".utf8, ByteBuffer(string: "open"))
    try await acknowledged(client)
    try await reading(client, written: version)
    try await doubts(client, read: try await client.put("balance/7".utf8, ByteBuffer(string: "100")))
    await manyWrites(client)
    try await client.put("user/7".utf8, ByteBuffer(string: "Ada"))
    try await scans(client)
}

func makeClient() throws -> KVClient {
    var configuration = KVClientConfiguration()
    configuration.readPreference = .spread
    configuration.requestTimeout = .seconds(2)
    let seeds = try SeedList.parse("http://127.0.0.1:8080,http://127.0.0.1:8081")
    let client = KVClient(seeds: seeds, configuration: configuration)
    return client
}

func gettingStarted(_ client: KVClient) async throws {
    let version = try await client.put("greeting".utf8, ByteBuffer(string: "hello"))
    if let entry = try await client.get("greeting".utf8) {
        print(String(buffer: entry.value), entry.version == version)
    }
    try await client.delete("greeting".utf8)
}

func acknowledged(_ client: KVClient) async throws {
    let options = WriteOptions(ack: .quorum, ackTimeout: .seconds(2))
    do {
        try await client.put("order/7".utf8, ByteBuffer(string: "paid"), options: options)
    } catch {
        guard error.code == .ackTimeout else { throw error }
        // It is done and on its way to the others; `error.version` says which write it is.
        print("not on a quorum yet:", error.version?.hexDigits ?? "")
    }
}

func reading(_ client: KVClient, written version: Version) async throws {
    // By the leader: includes what was acknowledged before the read began.
    _ = try await client.get("order/7".utf8, options: ReadOptions(consistency: .leader))
    // By any replica that has what another client wrote and told us of.
    _ = try await client.get("order/7".utf8, options: ReadOptions(minVersion: version))
    // By any replica that is at most half a second behind, within 100 ms.
    _ = try await client.get(
        "order/7".utf8, options: ReadOptions(maxStaleness: .milliseconds(500), timeout: .milliseconds(100)))
}

func conditions(_ client: KVClient) async throws {
    let key = "config".utf8
    let first = try await client.put(key, ByteBuffer(string: "a"), options: WriteOptions(condition: .absent))
    try await client.put(key, ByteBuffer(string: "b"), options: WriteOptions(condition: .version(first)))
    do {
        try await client.delete(key, options: WriteOptions(condition: .version(first)))
    } catch {
        guard error.code == .preconditionFailed else { throw error }
        print("somebody has changed it since")
    }
}

func counters(_ client: KVClient) async throws {
    let counter = try await client.increment("visits".utf8)
    print(counter.number, counter.version)
    try await client.increment("stock".utf8, by: -3, options: WriteOptions(condition: .exists))
}

func lives(_ client: KVClient) async throws {
    try await client.put("session/7".utf8, ByteBuffer(string: "open"), options: WriteOptions(ttl: .minutes(30)))
    if let left = try await client.get("session/7".utf8)?.expiresIn {
        print("gone in \(left.nanoseconds / 1_000_000_000) s")
    }
}

func scans(_ client: KVClient) async throws {
    for try await record in client.scan(prefix: "user/".utf8, limit: 1_000) {
        print(String(decoding: record.key, as: UTF8.self), record.version)
    }
}

func doubts(_ client: KVClient, read version: Version) async throws {
    let key = "balance/7".utf8
    let new = ByteBuffer(string: "90")
    do {
        try await client.put(key, new, options: WriteOptions(condition: .version(version)))
    } catch {
        guard error.code == .outcomeUnknown else { throw error }
        // Sent, and not answered. What is there now says more; the leader has to say it.
        let entry = try await client.get(key, options: ReadOptions(consistency: .leader))
        print(entry?.value == new ? "it is there" : "not there, and it may still come")
    }
}

func cancelling(_ client: KVClient) async throws {
    let task = Task { try await client.get("slow".utf8) }
    task.cancel()
    do {
        _ = try await task.value
    } catch let error as KVError where error.code == .cancelled {
        print("ended at once")
    }
    // At the end of the program: what is under way may end first.
    await client.shutdown(finishingWithin: .seconds(5))
}

func manyWrites(_ client: KVClient) async {
    let writes = (0..<1_000).map { KVWrite(key: Array("key-\($0)".utf8), value: ByteBuffer(integer: $0)) }
    for (write, result) in zip(writes, await client.writeAll(writes)) {
        if case .failure(let error) = result { print(String(decoding: write.key, as: UTF8.self), error) }
    }
}

func oneNode(
    _ connections: NodeConnections, _ request: NodeRequest, at address: NodeAddress, on eventLoop: any EventLoop
) async throws -> Int {
    let response = connections.execute(request, to: address, on: eventLoop, deadline: .now() + .seconds(2))
    return try await response.get().status
}
