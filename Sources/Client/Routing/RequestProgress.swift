import Core
import NIOCore

/// How often and how fast a request is tried again.
struct RetryPolicy: Sendable {
    /// Attempts that start from the topology; at least 1.
    var attemptsMax: Int
    /// Redirects that one attempt follows.
    var redirectsMax: Int
    /// The wait before the second attempt; it doubles with every further one.
    var backoffMin: TimeAmount
    var backoffMax: TimeAmount
}

/// Decides what follows an answer or a failure: pure, one value per request.
///
/// Invariants: at most `attemptsMax` attempts with at most `redirectsMax` redirects each; nothing that a node may have
/// applied is sent again unless the request is idempotent.
struct RequestProgress {
    enum Outcome {
        case answer(status: Int, location: String?, retryAfterSeconds: Int?)
        case failure(NodeFailure)
    }

    enum Action {
        /// The answer is the caller's.
        case finish
        case follow(Redirect)
        /// Route anew; `refreshing` asks for the topology first.
        case retry(after: TimeAmount, refreshing: Bool)
        case fail(KVError)
    }

    let policy: RetryPolicy
    let isIdempotent: Bool
    /// Counted from 0; chooses the replica of a read.
    private(set) var attempt = 0
    private var trail: [NodeAddress] = []

    init(policy: RetryPolicy, isIdempotent: Bool) {
        self.policy = policy
        self.isIdempotent = isIdempotent
    }

    /// - Parameters:
    ///   - origin: the node the outcome came from.
    ///   - remaining: time until the request's deadline.
    mutating func next(
        after outcome: Outcome, from origin: NodeAddress, remaining: TimeAmount,
        using generator: inout some RandomNumberGenerator
    ) -> Action {
        switch outcome {
        case .answer(let status, let location, _) where status == 307 || status == 308:
            return redirected(to: location, from: origin, remaining: remaining, using: &generator)
        case .answer(let status, _, let retryAfterSeconds):
            guard isIdempotent, [429, 502, 503, 504, 508].contains(status),
                let wait = wait(atLeast: retryAfterSeconds, remaining: remaining, using: &generator)
            else { return .finish }
            return .retry(after: wait, refreshing: status != 429)
        case .failure(let failure):
            let retryable = [.unavailable, .timedOut, .overloaded, .invalidData].contains(failure.error.code)
            guard retryable, isIdempotent || failure.delivery == .notSent,
                let wait = wait(atLeast: nil, remaining: remaining, using: &generator)
            else { return .fail(final(failure.error)) }
            return .retry(after: wait, refreshing: failure.error.code != .overloaded)
        }
    }

    /// The topology could not be had, and there is none from before.
    mutating func next(
        afterTopologyFailure error: KVError, remaining: TimeAmount, using generator: inout some RandomNumberGenerator
    ) -> Action {
        guard let wait = wait(atLeast: nil, remaining: remaining, using: &generator) else { return .fail(final(error)) }
        return .retry(after: wait, refreshing: true)
    }

    private mutating func redirected(
        to location: String?, from origin: NodeAddress, remaining: TimeAmount,
        using generator: inout some RandomNumberGenerator
    ) -> Action {
        guard let redirect = location.flatMap({ Redirect(location: $0, from: origin) }) else {
            return .fail(
                KVError(.invalidData, "\(origin) redirects to \(location.map { "\"\($0)\"" } ?? "nowhere"): not a node")
            )
        }
        trail.append(origin)
        guard trail.count > policy.redirectsMax else { return .follow(redirect) }
        // Nodes disagree about the topology; while a change spreads that passes, so it is worth another attempt.
        let path = (trail + [redirect.address]).map(\.description).joined(separator: " → ")
        if let wait = wait(atLeast: nil, remaining: remaining, using: &generator) {
            return .retry(after: wait, refreshing: true)
        }
        return .fail(
            final(
                KVError(
                    .unavailable,
                    "redirected more than \(policy.redirectsMax) times (\(path)): the nodes disagree about the topology"
                )))
    }

    /// Starts the next attempt; nil where there is none left or its time would be past the deadline.
    private mutating func wait(
        atLeast retryAfterSeconds: Int?, remaining: TimeAmount, using generator: inout some RandomNumberGenerator
    ) -> TimeAmount? {
        guard attempt + 1 < policy.attemptsMax else { return nil }
        let doubled = policy.backoffMin.nanoseconds.multipliedReportingOverflow(by: 1 << Int64(min(attempt, 30)))
        let base =
            doubled.overflow ? policy.backoffMax.nanoseconds : min(doubled.partialValue, policy.backoffMax.nanoseconds)
        // Half of it is random, so that clients that failed together do not come back together.
        var wait = Int64.random(in: (base / 2)...max(base / 2, base), using: &generator)
        if let retryAfterSeconds {
            wait = max(wait, min(Int64(retryAfterSeconds) * 1_000_000_000, policy.backoffMax.nanoseconds))
        }
        guard wait < remaining.nanoseconds else { return nil }
        attempt += 1
        trail = []
        return .nanoseconds(wait)
    }

    private func final(_ error: KVError) -> KVError {
        guard attempt > 0 else { return error }
        var error = error
        error.message += " (gave up after \(attempt + 1) attempts)"
        return error
    }
}
