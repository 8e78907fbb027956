import Core
import NIOCore
import Wire

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
/// Invariants: at most `attemptsMax` attempts with at most `redirectsMax` redirects each; what is not idempotent (a
/// write with a condition, an increment) is sent again only where the node has proven not to have applied it: the request
/// never left, or the answer is a redirect or one of the refusals that nodes give before they apply.
struct RequestProgress {
    enum Outcome {
        /// - Parameter problem: what kind of problem the answer names; nil where it names none.
        case answer(status: Int, problem: String?, location: String?, retryAfterSeconds: Int?)
        case failure(NodeFailure)
    }

    /// What is to be known of the topology before the next attempt.
    enum Knowledge: Hashable {
        case known
        /// As one node has it now.
        case refreshed
        /// A newer one than led here, where any of several nodes has it: this node may not lead any more, and those
        /// who usually tell may not have heard.
        case superseding
    }

    enum Action {
        /// The answer is the caller's.
        case finish
        case follow(Redirect)
        /// It is not known whether the request, which must not be applied twice, was applied.
        case doubt
        /// Route anew.
        case retry(after: TimeAmount, Knowledge)
        case fail(KVError)
    }

    let policy: RetryPolicy
    let isIdempotent: Bool
    /// Counted from 0; chooses the replica of a read.
    private(set) var attempt = 0
    private var trail: [NodeAddress] = []
    private var versionWasUnknown = false

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
        case .answer(let status, _, let location, _) where status == 307 || status == 308:
            return redirected(to: location, from: origin, remaining: remaining, using: &generator)
        case .answer(let status, let problem, _, let retryAfterSeconds):
            let isSafe = isIdempotent || Self.isRefusal(status, problem)
            guard isSafe || !Self.leavesDoubt(status, problem) else { return .doubt }
            guard isSafe, let knowledge = knowledge(afterStatus: status, problem: problem),
                let wait = wait(atLeast: retryAfterSeconds, remaining: remaining, using: &generator)
            else { return .finish }
            return .retry(after: wait, knowledge)
        case .failure(let failure):
            let retryable = [.unavailable, .timedOut, .overloaded, .invalidData].contains(failure.error.code)
            let isSafe = isIdempotent || failure.delivery == .notSent
            guard !retryable || isSafe else { return .doubt }
            guard retryable,
                let wait = wait(atLeast: nil, remaining: remaining, using: &generator)
            else { return .fail(final(failure.error)) }
            return .retry(after: wait, failure.error.code == .overloaded ? .known : .superseding)
        }
    }

    /// Whether an answer says that the request was turned away before anything was done.
    private static func isRefusal(_ status: Int, _ problem: String?) -> Bool {
        switch problem {
        case Problem.Kind.notLeader.name, Problem.Kind.overloaded.name, Problem.Kind.unavailable.name,
            Problem.Kind.redirectLoop.name:
            true
        default: status == 429
        }
    }

    /// Whether what was asked for may have been done all the same. Of a failure of its storage the node itself says so.
    private static func leavesDoubt(_ status: Int, _ problem: String?) -> Bool {
        switch problem {
        case Problem.Kind.ackTimeout.name, Problem.Kind.storageFailed.name, Problem.Kind.storageFull.name,
            Problem.Kind.corrupted.name, Problem.Kind.unsupported.name:
            false
        default: status >= 500
        }
    }

    /// What the next attempt has to know; nil where another attempt would not be answered otherwise.
    private mutating func knowledge(afterStatus status: Int, problem: String?) -> Knowledge? {
        switch (status, problem) {
        case (504, Problem.Kind.ackTimeout.name):
            // It is applied, and sending it again would only apply it again.
            return nil
        case (409, Problem.Kind.versionUnknown.name):
            // Said by a node that was deposed without knowing, it means nothing: the leader has to say it.
            defer { versionWasUnknown = true }
            return versionWasUnknown ? nil : .superseding
        case (409, Problem.Kind.notLeader.name): return .superseding
        case (429, _), (503, Problem.Kind.overloaded.name): return .known
        case (503, _): return .superseding
        case (502, _), (504, _), (508, _): return .refreshed
        default: return nil
        }
    }

    /// The topology could not be had, and there is none from before.
    ///
    /// - Returns: how long to wait before it is asked for again. Throws what the request fails with.
    mutating func wait(
        afterTopologyFailure error: KVError, remaining: TimeAmount, using generator: inout some RandomNumberGenerator
    ) throws(KVError) -> TimeAmount {
        guard let wait = wait(atLeast: nil, remaining: remaining, using: &generator) else { throw final(error) }
        return wait
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
            return .retry(after: wait, .superseding)
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
