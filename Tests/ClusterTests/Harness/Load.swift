import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import TestSupport
import Wire

/// Writers that go on through failures until they are stopped.
struct Load: Sendable {
    /// How a writer reaches the cluster.
    enum Route: CaseIterable {
        /// To the shard's leader, following redirects.
        case direct
        /// To the router, following redirects.
        case redirected
        /// Through the router, which may send a write again when a connection breaks.
        case proxied
    }

    let cluster: TestCluster
    let ledger: Ledger
    let name: String
    var routes: [Route] = Route.allCases
    /// Where all writers write, and follow no redirect; nil lets `routes` choose.
    var pinned: NodeAddress?
    /// `ack=` of the writers, in turn; nil says nothing.
    var acks: [AckLevel?] = [nil]
    /// `timeout=` of those that name an ack level.
    var ackTimeout = "10s"
    /// Bytes of the largest value.
    var valueBytesMax = 600

    /// What a write came to, beside the ledger.
    final class Tally: Sendable {
        private struct State {
            /// By status, or 0 where there was no answer.
            var statuses: [Int: Int] = [:]
            var longest = Duration.zero
            var runs = 0
            /// Answers that a planned change of leader does not excuse.
            var harsh: [String] = []
        }
        private let state = Mutex(State())

        func note(_ response: NodeResponse?, after duration: Duration) {
            let sentence = Tally.complaint(about: response)
            state.withLock { state in
                state.statuses[response?.status ?? 0, default: 0] += 1
                state.longest = max(state.longest, duration)
                if let sentence { state.harsh.append(sentence) }
            }
        }

        /// Of the runs of a load, so that each has keys of its own.
        fileprivate func nextRun() -> Int {
            state.withLock { state in
                state.runs += 1
                return state.runs
            }
        }

        func count(_ status: Int) -> Int { state.withLock { $0.statuses[status] ?? 0 } }
        /// From a request to its answer.
        var longest: Duration { state.withLock { $0.longest } }
        var harsh: [String] { state.withLock { $0.harsh } }
        var statuses: [Int: Int] { state.withLock { $0.statuses } }

        /// nil for an acknowledgement, one that was not reached in time, and where the client is asked to come back.
        private static func complaint(about response: NodeResponse?) -> String? {
            guard let response else { return "no answer" }
            switch response.status {
            case 204: return nil
            case 503 where response.headers.first(name: "retry-after") != nil: return nil
            case 504 where response.isAckTimeout: return nil
            default: return "\(response.status) \(response.text.prefix(200))"
            }
        }
    }
    let tally = Tally()

    /// Runs `writers` writers beside `body`; they are stopped when it returns.
    func running(writers: Int, seed: UInt64, _ body: () async throws -> Void) async throws {
        let (stop, run) = (StopFlag(), tally.nextRun())
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<writers {
                group.addTask {
                    let random = SeededGenerator(seed: seed &+ UInt64(writer) &* 7_919)
                    await write("\(name)/\(run)w\(writer)/", acks[writer % acks.count], random, until: stop)
                }
            }
            defer { stop.raise() }
            try await body()
        }
    }

    /// Writes at least `count` more acknowledged writes, then returns.
    func writeMore(_ count: Int, writers: Int = 6, seed: UInt64) async throws {
        try await running(writers: writers, seed: seed) { try await waitForMore(count) }
    }

    /// Waits until `count` more writes are acknowledged.
    func waitForMore(_ count: Int) async throws {
        let target = ledger.acknowledgedCount + count
        try await eventually("\(count) acknowledged writes") { ledger.acknowledgedCount >= target }
    }

    private func write(_ prefix: String, _ ack: AckLevel?, _ seed: SeededGenerator, until stop: StopFlag) async {
        var random = seed
        var number = 0
        var own: [String] = []
        while !stop.isRaised {
            let isNew = own.isEmpty || Int.random(in: 0..<10, using: &random) < 6
            let place = isNew ? own.count : Int.random(in: 0..<own.count, using: &random)
            let removes = !isNew && Int.random(in: 0..<3, using: &random) == 0
            if isNew {
                own.append(prefix + "\(number)")
                number += 1
            }
            let key = own[place]
            let value = removes ? nil : random.bytes(Int.random(in: 0...valueBytesMax, using: &random))
            let route = routes[Int.random(in: 0..<routes.count, using: &random)]
            ledger.attempt(key, value)
            switch await send(key, value, ack, route) {
            case .acknowledged(let write): ledger.acknowledge(key, write)
            case .unknown(let write):
                ledger.doubt(key, write)
                own.remove(at: place)
                await pause()
            case .notApplied:
                if isNew { own.remove(at: place) }
                await pause()
            }
        }
    }

    /// Whoever could not write lets others run; nothing depends on how long this is.
    private func pause() async {
        // Only cancellation ends it early, and then the writer ends too.
        try? await Task.sleep(for: .milliseconds(5))
    }

    private enum Outcome {
        case acknowledged(Ledger.Write)
        case unknown(Ledger.Write)
        case notApplied
    }

    private func send(_ key: String, _ value: [UInt8]?, _ ack: AckLevel?, _ route: Route) async -> Outcome {
        let method: HTTPMethod = value == nil ? .DELETE : .PUT
        var query = ack.map { ["ack=\($0)", "timeout=\(ackTimeout)"] } ?? []
        if pinned == nil, route == .proxied { query.append("proxy=true") }
        let path = APIPath.key(key.utf8) + (query.isEmpty ? "" : "?" + query.joined(separator: "&"))
        let (since, before) = (ContinuousClock.now, cluster.topology.epoch)
        do {
            let response: NodeResponse
            if let pinned {
                response = try await HTTP.send(method, path, to: pinned, body: value)
            } else {
                switch route {
                case .direct:
                    let leader = cluster.leader(of: Array(key.utf8))
                    response = try await HTTP.following(method, path, to: leader, body: value).response
                case .redirected:
                    response = try await HTTP.following(method, path, to: cluster.router, body: value).response
                case .proxied: response = try await HTTP.send(method, path, to: cluster.router, body: value)
                }
            }
            tally.note(response, after: .now - since)
            var write = Ledger.Write(value: value, version: response.version, ack: ack, epoch: response.epoch)
            if response.status == 204, response.version != nil { return .acknowledged(write) }
            if response.isAckTimeout {
                // It is on the leader, and so as good as one that asked for no more. A leader that has heard meanwhile
                // of a newer one says so with this answer, so the epoch of before counts.
                write.ack = .leader
                write.epoch = min(before, response.epoch ?? before)
                return .acknowledged(write)
            }
            return response.isRedirect ? .notApplied : .unknown(write)
        } catch let failure as NodeFailure where failure.delivery == .notSent {
            tally.note(nil, after: .now - since)
            return .notApplied
        } catch {
            tally.note(nil, after: .now - since)
            return .unknown(Ledger.Write(value: value, version: nil, ack: ack, epoch: nil))
        }
    }
}

final class StopFlag: Sendable {
    private let flag = Atomic<Bool>(false)
    var isRaised: Bool { flag.load(ordering: .relaxed) }
    func raise() { flag.store(true, ordering: .relaxed) }
}

extension Array {
    func chunked(into size: Int) -> [[Element]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
    }
}
