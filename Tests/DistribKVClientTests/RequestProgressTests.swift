import Core
import NIOCore
import TestSupport
import Testing

@testable import DistribKVClient

private let node = NodeAddress(host: "n", port: 1)
private let policy = RetryPolicy(
    attemptsMax: 4, redirectsMax: 2, backoffMin: .milliseconds(10), backoffMax: .milliseconds(50))

private func lost(_ delivery: NodeFailure.Delivery, _ code: KVError.Code = .unavailable) -> RequestProgress.Outcome {
    .failure(NodeFailure(address: node, delivery: delivery, error: KVError(code, "lost")))
}

/// A short name of what is to be done.
private func name(_ action: RequestProgress.Action) -> String {
    switch action {
    case .finish: "finish"
    case .follow(let redirect): "follow \(redirect.address)\(redirect.target)"
    case .retry(_, let refreshing): refreshing ? "refresh" : "retry"
    case .fail(let error): "fail \(error.code)"
    }
}

@Suite struct RequestProgressTests {
    @Test func decisions() {
        let cases: [(RequestProgress.Outcome, idempotent: Bool, String)] = [
            (.answer(status: 404, location: nil, retryAfterSeconds: nil), true, "finish"),
            (.answer(status: 500, location: nil, retryAfterSeconds: nil), true, "finish"),
            (.answer(status: 507, location: nil, retryAfterSeconds: nil), true, "finish"),
            (.answer(status: 503, location: nil, retryAfterSeconds: nil), true, "refresh"),
            (.answer(status: 503, location: nil, retryAfterSeconds: nil), false, "finish"),
            (.answer(status: 429, location: nil, retryAfterSeconds: nil), true, "retry"),
            (
                .answer(status: 307, location: "http://m:2/kv/a?hops=1", retryAfterSeconds: nil), false,
                "follow m:2/kv/a?hops=1"
            ),
            (.answer(status: 308, location: "/kv/b", retryAfterSeconds: nil), true, "follow n:1/kv/b"),
            (.answer(status: 307, location: nil, retryAfterSeconds: nil), true, "fail invalid-data"),
            (lost(.possiblySent), true, "refresh"), (lost(.possiblySent), false, "fail unavailable"),
            (lost(.notSent), false, "refresh"), (lost(.notSent, .overloaded), false, "retry"),
            (lost(.notSent, .cancelled), true, "fail cancelled"),
            (lost(.notSent, .invalidArgument), true, "fail invalid-argument"),
            (lost(.possiblySent, .timedOut), true, "refresh"), (lost(.possiblySent, .invalidData), true, "refresh"),
        ]
        for (outcome, idempotent, expected) in cases {
            var progress = RequestProgress(policy: policy, isIdempotent: idempotent)
            var random = SeededGenerator(seed: 0)
            let action = progress.next(after: outcome, from: node, remaining: .seconds(10), using: &random)
            #expect(name(action) == expected, "\(outcome), idempotent: \(idempotent)")
        }
    }

    @Test func waitsDoubleUpToTheirBoundAndAttemptsEnd() {
        for seed in UInt64(0)..<50 {
            var progress = RequestProgress(policy: policy, isIdempotent: true)
            var random = SeededGenerator(seed: seed)
            for base in [Int64(10), 20, 40] {
                let action = progress.next(
                    after: lost(.possiblySent), from: node, remaining: .seconds(10), using: &random)
                guard case .retry(let wait, _) = action else { return #expect(Bool(false), "seed \(seed): \(action)") }
                let bounds = TimeAmount.microseconds(base * 500)...TimeAmount.milliseconds(base)
                #expect(bounds.contains(wait), "seed \(seed)")
            }
            let last = progress.next(after: lost(.possiblySent), from: node, remaining: .seconds(10), using: &random)
            #expect(name(last) == "fail unavailable", "seed \(seed)")
        }
    }

    @Test func retryAfterIsHeededUpToTheBound() {
        var progress = RequestProgress(policy: policy, isIdempotent: true)
        var random = SeededGenerator(seed: 0)
        let action = progress.next(
            after: .answer(status: 503, location: nil, retryAfterSeconds: 3_600), from: node, remaining: .seconds(10),
            using: &random)
        guard case .retry(let wait, _) = action else { return #expect(Bool(false), "\(action)") }
        #expect(wait == .milliseconds(50))
    }

    @Test func nothingWaitsPastItsDeadline() {
        var progress = RequestProgress(policy: policy, isIdempotent: true)
        var random = SeededGenerator(seed: 0)
        let action = progress.next(
            after: lost(.possiblySent), from: node, remaining: .milliseconds(5), using: &random)
        #expect(name(action) == "fail unavailable")
        let refused = progress.next(
            after: .answer(status: 503, location: nil, retryAfterSeconds: 1), from: node, remaining: .nanoseconds(-1),
            using: &random)
        #expect(name(refused) == "finish")
    }

    @Test func redirectsAreCountedPerAttempt() {
        var progress = RequestProgress(policy: policy, isIdempotent: true)
        var random = SeededGenerator(seed: 0)
        let redirect = RequestProgress.Outcome.answer(status: 307, location: "http://m:2/", retryAfterSeconds: nil)
        var actions: [String] = []
        for _ in 0..<12 {
            actions.append(name(progress.next(after: redirect, from: node, remaining: .seconds(9), using: &random)))
        }
        let attempt = ["follow m:2/", "follow m:2/"]
        #expect(
            actions == attempt + ["refresh"] + attempt + ["refresh"] + attempt + ["refresh"] + attempt + [
                "fail unavailable"
            ])
    }

    @Test func seedLists() throws {
        let cases: [(String, [String])] = [
            ("http://127.0.0.1:8080", ["127.0.0.1:8080"]), ("127.0.0.1:7001", ["127.0.0.1:7001"]),
            ("http://a:1/, b:2 ,HTTP://[::1]:3/x?y", ["a:1", "b:2", "[::1]:3"]), ("http://a", ["a:80"]),
            ("a:1,a:1", ["a:1"]),
        ]
        for (text, expected) in cases {
            #expect(try SeedList.parse(text).map(\.description) == expected, "\(text)")
        }
        for text in ["", ",", "a", "https://a:1", "http://", "a:99999", "http://u@h:1", "a:1,b", "http://a:b"] {
            #expect(throws: KVError.self, "\(text)") { try SeedList.parse(text) }
        }
    }
}
