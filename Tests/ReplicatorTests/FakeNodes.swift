import Core
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import Wire

@testable import ReplicatorService

/// A leader of one shard, as far as the protocol goes.
final class FakeLeader: Sendable {
    struct State {
        var frames: [(position: LogPosition, bytes: ByteBuffer)] = []
        var firstRetained: UInt64 = 1
        var term: UInt64 = 1
        var epoch: UInt64 = 1
        var topology: Topology?
        /// Answers with a flipped bit, this many times.
        var corruptAnswers = 0
        var readCount = 0

        var last: LogPosition { frames.last?.position ?? .start }
    }

    let state = Mutex(State())

    func append(_ count: Int = 1, batchBytes: Int = 20) {
        state.withLock { state in
            for _ in 0..<count {
                let last = state.last
                let position = LogPosition(
                    term: state.term, lsn: last.lsn + 1, version: Version(rawValue: last.version.rawValue + 3))
                state.frames.append((position, makeFrame(position, batchBytes: batchBytes)))
            }
        }
    }

    var history: [LogPosition] { state.withLock { $0.frames.map(\.position) } }

    func answer(_ request: TestServer.Request) async -> TestServer.Response? {
        switch request.path {
        case "/topology":
            guard let json = try? state.withLock({ try $0.topology?.json() }) else { return .init(status: 404) }
            return .init(status: 200, body: ByteBuffer(bytes: json))
        case "/replication/shard-0/position":
            return fakePosition(state.withLock { $0.last }, .leader, epoch: state.withLock { $0.epoch })
        case "/replication/shard-0/wal":
            return await wal(request.query)
        default:
            return fakeProblem(Problem(.unknownPath, "no such path"))
        }
    }

    private func wal(_ query: [String: String]) async -> TestServer.Response {
        guard let term = query["term"].flatMap(UInt64.init), let lsn = query["lsn"].flatMap(UInt64.init),
            let version = query["version"].flatMap({ Version(hexDigits: $0) }),
            let wait = query["wait"].flatMap(Int.init), let bytesMax = query["max_bytes"].flatMap(Int.init)
        else { return fakeProblem(Problem(.badRequest, "a parameter is missing")) }
        let position = LogPosition(term: term, lsn: lsn, version: version)
        state.withLock { $0.readCount += 1 }
        let deadline = ContinuousClock.now + .milliseconds(wait)
        while true {
            let answer = state.withLock { answerNow(&$0, position, bytesMax) }
            if let answer { return answer }
            guard ContinuousClock.now < deadline, !Task.isCancelled else {
                return .init(status: 204, headers: state.withLock { headers($0) })
            }
            try? await Task.sleep(for: .milliseconds(1))
        }
    }

    private func answerNow(_ state: inout State, _ position: LogPosition, _ bytesMax: Int) -> TestServer.Response? {
        if position.lsn > 0 {
            guard position.lsn <= state.last.lsn, state.frames[Int(position.lsn) - 1].position == position else {
                return fakeProblem(Problem(.diverged, "another history at \(position)"))
            }
        }
        guard position.lsn + 1 >= state.firstRetained else {
            return fakeProblem(Problem(.logTruncated, "the log begins at lsn \(state.firstRetained)"))
        }
        guard position.lsn < state.last.lsn else { return nil }
        var bytes = ByteBuffer()
        for frame in state.frames[Int(position.lsn)...] {
            guard bytes.readableBytes == 0 || bytes.readableBytes + frame.bytes.readableBytes <= bytesMax else { break }
            bytes.writeImmutableBuffer(frame.bytes)
        }
        if state.corruptAnswers > 0 {
            state.corruptAnswers -= 1
            bytes.setInteger((bytes.getInteger(at: 40, as: UInt8.self) ?? 0) ^ 1, at: 40)
        }
        return .init(status: 200, headers: headers(state) + [("content-type", MediaType.logFrames)], body: bytes)
    }

    private func headers(_ state: State) -> [(String, String)] {
        [(KVHeader.lsn, "\(state.last.lsn)"), (KVHeader.term, "\(state.term)"), (KVHeader.epoch, "\(state.epoch)")]
    }
}

/// A follower of one shard: applies whole batches in order, exactly once.
final class FakeFollower: Sendable {
    struct State {
        var applied: [LogPosition] = []
        /// Reads requests and never answers.
        var isSilent = false
        /// Answers everything but pushes.
        var ignoresPushes = false
        /// Answers 503 to this many pushes.
        var overloads = 0
        var pushCount = 0
        var gapCount = 0
        var wrongTermCount = 0
        var position: LogPosition { applied.last ?? .start }
    }

    let state = Mutex(State())

    var applied: [LogPosition] { state.withLock { $0.applied } }

    func answer(_ request: TestServer.Request) async -> TestServer.Response? {
        state.withLock { state in
            if state.isSilent || state.ignoresPushes && request.head.method == .POST {
                if request.head.method == .POST { state.pushCount += 1 }
                return nil
            }
            switch request.path {
            case "/replication/shard-0/position": return fakePosition(state.position, .follower, epoch: 1)
            case "/replication/shard-0/batches" where request.head.method == .POST: return apply(request, &state)
            default: return fakeProblem(Problem(.unknownPath, "no such path"))
            }
        }
    }

    private func apply(_ request: TestServer.Request, _ state: inout State) -> TestServer.Response {
        state.pushCount += 1
        if state.overloads > 0 {
            state.overloads -= 1
            return fakeProblem(Problem(.overloaded, "too much is in flight"))
        }
        let term = request.head.headers[KVHeader.term].first.flatMap(UInt64.init) ?? 0
        var bytes = request.body
        var fresh: [LogPosition] = []
        do {
            while let frame = try LogFrame.decode(from: &bytes) {
                if frame.position.term > term { state.wrongTermCount += 1 }
                if frame.position.lsn > state.position.lsn { fresh.append(frame.position) }
            }
        } catch {
            return fakeProblem(Problem(.badRequest, "\(error)"))
        }
        guard let first = fresh.first else { return fakePosition(state.position, .follower, epoch: 1) }
        guard first.lsn == state.position.lsn + 1 else {
            state.gapCount += 1
            let position = state.position
            return fakeProblem(
                Problem(
                    .logMismatch, "a gap",
                    members: [
                        "term": "\(position.term)", "lsn": "\(position.lsn)", "version": position.version.hexDigits,
                    ]))
        }
        state.applied += fresh
        return fakePosition(state.position, .follower, epoch: 1)
    }
}

private func fakePosition(_ position: LogPosition, _ role: PositionDocument.Role, epoch: UInt64) -> TestServer.Response
{
    let document = PositionDocument(shard: "shard-0", role: role, position: position)
    do {
        return .init(
            status: 200, headers: [(KVHeader.epoch, "\(epoch)")],
            body: ByteBuffer(bytes: try DocumentCoding.encode(document)))
    } catch {
        return .init(status: 500)
    }
}

private func fakeProblem(_ problem: Problem) -> TestServer.Response {
    .init(
        status: problem.kind.status, headers: [("content-type", MediaType.problem)],
        body: ByteBuffer(string: problem.json))
}
