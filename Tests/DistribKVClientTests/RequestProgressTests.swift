import Core
import NIOCore
import TestSupport
import Testing
import Wire

@testable import DistribKVClient

private let node = NodeAddress(host: "n", port: 1)
private let policy = RetryPolicy(
    attemptsMax: 4, redirectsMax: 2, backoffMin: .milliseconds(10), backoffMax: .milliseconds(50))

private func lost(_ delivery: NodeFailure.Delivery, _ code: KVError.Code = .unavailable) -> RequestProgress.Outcome {
    .failure(NodeFailure(address: node, delivery: delivery, error: KVError(code, "lost")))
}

private func answer(
    _ status: Int, _ problem: Problem.Kind? = nil, location: String? = nil, retryAfterSeconds: Int? = nil
) -> RequestProgress.Outcome {
    .answer(status: status, problem: problem?.name, location: location, retryAfterSeconds: retryAfterSeconds)
}

/// A short name of what is to be done.
private func name(_ action: RequestProgress.Action) -> String {
    switch action {
    case .finish: "finish"
    case .doubt: "doubt"
    case .follow(let redirect): "follow \(redirect.address)\(redirect.target)"
    case .retry(_, .known): "retry"
    case .retry(_, .refreshed): "refresh"
    case .retry(_, .superseding): "search"
    case .fail(let error): "fail \(error.code)"
    }
}

@Suite struct RequestProgressTests {
    @Test func decisions() {
        let cases: [(RequestProgress.Outcome, idempotent: Bool, String)] = [
            (answer(404), true, "finish"), (answer(500), true, "finish"), (answer(507), true, "finish"),
            (answer(503), true, "search"), (answer(503), false, "doubt"), (answer(429), true, "retry"),
            (answer(503, .overloaded), true, "retry"), (answer(503, .unavailable), true, "search"),
            (answer(502), true, "refresh"), (answer(504), true, "refresh"), (answer(504), false, "doubt"),
            (answer(504, .ackTimeout), true, "finish"), (answer(504, .upstreamTimeout), true, "refresh"),
            (answer(409), true, "finish"), (answer(409, .notLeader), true, "search"),
            (answer(409, .notLeader), false, "search"), (answer(409, .versionUnknown), true, "search"),
            (answer(307, location: "http://m:2/kv/a?hops=1"), false, "follow m:2/kv/a?hops=1"),
            (answer(308, location: "/kv/b"), true, "follow n:1/kv/b"),
            (answer(307), true, "fail invalid-data"),
            (lost(.possiblySent), true, "search"), (lost(.possiblySent), false, "doubt"),
            (lost(.possiblySent, .timedOut), false, "doubt"), (lost(.possiblySent, .invalidData), false, "doubt"),
            (lost(.possiblySent, .cancelled), false, "fail cancelled"), (lost(.notSent, .timedOut), false, "search"),
            (answer(412, .preconditionFailed), false, "finish"), (answer(408, .requestTimeout), false, "finish"),
            (answer(409, .notAnInteger), false, "finish"), (answer(409, .counterOverflow), false, "finish"),
            (answer(503, .unavailable), false, "search"), (answer(503, .overloaded), false, "retry"),
            (answer(429), false, "retry"), (answer(508, .redirectLoop), false, "refresh"),
            (answer(504, .ackTimeout), false, "finish"), (answer(504, .upstreamTimeout), false, "doubt"),
            (answer(502, .badGateway), false, "doubt"), (answer(500, .internalError), false, "doubt"),
            (answer(503, .storageFailed), false, "finish"), (answer(507, .storageFull), false, "finish"),
            (lost(.notSent), false, "search"), (lost(.notSent, .overloaded), false, "retry"),
            (lost(.notSent, .cancelled), true, "fail cancelled"),
            (lost(.notSent, .invalidArgument), true, "fail invalid-argument"),
            (lost(.possiblySent, .timedOut), true, "search"), (lost(.possiblySent, .invalidData), true, "search"),
        ]
        for (outcome, idempotent, expected) in cases {
            var progress = RequestProgress(policy: policy, isIdempotent: idempotent)
            var random = SeededGenerator(seed: 0)
            let action = progress.next(after: outcome, from: node, remaining: .seconds(10), using: &random)
            #expect(name(action) == expected, "\(outcome), idempotent: \(idempotent)")
        }
    }

    @Test func aLostVersionIsBelievedTheSecondTime() {
        var progress = RequestProgress(policy: policy, isIdempotent: true)
        var random = SeededGenerator(seed: 0)
        let actions = (0..<2).map { _ in
            name(
                progress.next(
                    after: answer(409, .versionUnknown), from: node, remaining: .seconds(10), using: &random))
        }
        #expect(actions == ["search", "finish"])
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
            after: answer(503, retryAfterSeconds: 3_600), from: node, remaining: .seconds(10),
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
            after: answer(503, retryAfterSeconds: 1), from: node, remaining: .nanoseconds(-1),
            using: &random)
        #expect(name(refused) == "finish")
    }

    @Test func redirectsAreCountedPerAttempt() {
        var progress = RequestProgress(policy: policy, isIdempotent: true)
        var random = SeededGenerator(seed: 0)
        let redirect = answer(307, location: "http://m:2/")
        var actions: [String] = []
        for _ in 0..<12 {
            actions.append(name(progress.next(after: redirect, from: node, remaining: .seconds(9), using: &random)))
        }
        let attempt = ["follow m:2/", "follow m:2/"]
        #expect(
            actions == attempt + ["search"] + attempt + ["search"] + attempt + ["search"] + attempt + [
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
