import DistribKVClient
import Examples
import Foundation
import NIOCore

/// `kv-examples [http://127.0.0.1:8080]` runs the examples against a cluster, such as the one that `compose/up` starts;
/// it exits with 1 where one of them does not do what it is about.
@main struct Demonstration {
    /// Part of every key, so that each run has its own.
    private let run = String(UInt64.random(in: 0 ... .max), radix: 36)
    private let client: KVClient
    private var failures = 0

    static func main() async throws {
        let seeds = try SeedList.parse(CommandLine.arguments.dropFirst().first ?? "http://127.0.0.1:8080")
        var demonstration = Demonstration(client: KVClient(seeds: seeds))
        try await demonstration.sessions()
        try await demonstration.rateLimits()
        try await tour(demonstration.client)
        await demonstration.client.shutdown(finishingWithin: .seconds(5))
        exit(demonstration.failures == 0 ? 0 : 1)
    }

    private init(client: KVClient) { self.client = client }

    private mutating func expect(_ isTrue: Bool, _ what: String) {
        print(isTrue ? "ok    \(what)" : "FAIL  \(what)")
        if !isTrue { failures += 1 }
    }

    private mutating func sessions() async throws {
        let sessions = SessionStore(client: client)
        let id = "\(run)-7"
        expect(try await sessions.begin(id, content: "cart:"), "a session begins")
        expect(try await !sessions.begin(id, content: "stolen"), "another one cannot take its identifier")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for item in 0..<5 { group.addTask { _ = try await sessions.update(id) { "\($0) \(item)" } } }
            try await group.waitForAll()
        }
        let cart = try await sessions.find(id)?.content ?? ""
        expect(cart.split(separator: " ").count == 6, "no change of five requests at once is lost: \(cart)")
        try await sessions.end(id)
        expect(try await sessions.find(id) == nil, "a session ends")
    }

    private mutating func rateLimits() async throws {
        let (limiter, caller) = (RateLimiter(client: client, requestsMax: 5, per: .minutes(1)), run)
        var allowed = 0
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for _ in 0..<20 { group.addTask { try await limiter.allows(caller) } }
            for try await isAllowed in group where isAllowed { allowed += 1 }
        }
        expect(allowed == 5, "of twenty requests at once five are allowed: \(allowed)")
    }
}
