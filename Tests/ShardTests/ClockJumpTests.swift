import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

private let hour: Int64 = 3_600_000

/// What time it really is, and machines whose wall clocks are wrong by something.
private final class World: Sendable {
    private let state = Mutex((now: UInt64(1_800_000_000_000), errors: [Int64](repeating: 0, count: 2)))

    var now: UInt64 { state.withLock { $0.now } }

    func error(of node: Int) -> Int64 { state.withLock { $0.errors[node] } }

    func set(_ node: Int, _ error: Int64) { state.withLock { $0.errors[node] = error } }

    func pass(_ milliseconds: UInt64) { state.withLock { $0.now += milliseconds } }

    /// Of a new process on the machine. The steady clocks of machines have nothing to do with one another.
    func clock(of node: Int) -> ShardClock {
        ShardClock(
            wallMilliseconds: { self.state.withLock { UInt64(Int64($0.now) + $0.errors[node]) } },
            monotonicMilliseconds: { self.state.withLock { $0.now - 1_700_000_000_000 + UInt64(node) * 12_345_678 } })
    }
}

/// Two replicas of a shard on two machines.
private final class Two {
    let world = World()
    private let directory: TemporaryDirectory
    private(set) var replicas: [ShardReplica] = []
    private(set) var leader = 0
    private var term: UInt64 = 1

    init() throws {
        directory = try TemporaryDirectory()
        for node in 0..<2 { replicas.append(try open(node)) }
    }

    private func open(_ node: Int) throws -> ShardReplica {
        var configuration = ShardConfiguration(
            name: "shard-0", cluster: "test", directory: "\(directory.path)/node-\(node)")
        configuration.durability = .os
        return try ShardReplica.openTest(
            configuration, role: node == leader ? .leader(term: term) : .follower(term: term),
            clock: world.clock(of: node))
    }

    func restart(_ node: Int) async throws {
        try await replicas[node].close()
        replicas[node] = try open(node)
    }

    func close() async throws { for replica in replicas { try await replica.close() } }

    func write(_ operation: WriteOperation) async throws -> WriteReceipt {
        try await replicas[leader].write([operation])
    }

    /// The follower gets what it has not.
    func replicate() async throws {
        let follower = replicas[1 - leader]
        let frames = try replicas[leader].readAll(after: follower.position)
        let outcome = await follower.apply(frames, leaderTerm: term)
        #expect(outcome.failure == nil)
        #expect(outcome.position == replicas[leader].position)
    }

    func changeLeader() async throws {
        try await replicate()
        term += 1
        try await replicas[leader].become(.follower(term: term))
        leader = 1 - leader
        try await replicas[leader].become(.leader(term: term))
    }

    func has(_ key: String, _ node: Int) throws -> Bool {
        var found = false
        try Array(key.utf8).withUnsafeBytes { bytes in
            try replicas[node].read(key: bytes, tier: .disk) { if case .value = $0 { found = true } }
        }
        return found
    }

    /// Time goes by, and every node looks at its clock as its upkeep does.
    func pass(_ milliseconds: UInt64) {
        var left = milliseconds
        while left > 0 {
            let step = min(left, 20_000)
            world.pass(step)
            for replica in replicas { _ = replica.expiries.now() }
            left -= step
        }
    }
}

private func expiring(_ key: String, _ milliseconds: UInt64) -> WriteOperation {
    .expiringPut(key: ByteBuffer(string: key), value: ByteBuffer(string: "value"), milliseconds: milliseconds)
}

@Suite struct ClockJumpTests {
    /// A clock that is two hours ahead for one write takes nothing that lives for an hour.
    @Test(arguments: [0, 1]) func aMomentaryJumpDestroysNothing(jumping: Int) async throws {
        let two = try Two()
        let keys = (0..<20).map { "key-\($0)" }
        for key in keys { _ = try await two.write(expiring(key, UInt64(hour))) }
        let gone = try await two.write(expiring("gone", 1_000))
        try await two.replicate()
        two.pass(1_000)
        two.world.set(jumping, 2 * hour)
        let ahead = try await two.write(put("ahead", "1"))
        #expect(try #require(ahead.version(at: 0)) > #require(gone.version(at: 0)))
        #expect(try #require(ahead.version(at: 0)).milliseconds <= two.world.now)
        try await two.replicate()
        for replica in two.replicas {
            try replica.database.flush()
            try replica.database.compact()
        }
        two.world.set(jumping, 0)
        func check(_ isThere: Bool) throws {
            for node in 0..<2 {
                #expect(try keys.filter { try two.has($0, node) } == (isThere ? keys : []), "node \(node)")
                #expect(try !two.has("gone", node), "what was gone stays away")
            }
        }
        try check(true)
        for node in 0..<2 { try await two.restart(node) }
        try check(true)
        two.pass(UInt64(hour))
        try check(false)
        for node in 0..<2 { try await two.restart(node) }
        try check(false)
        try await two.close()
    }

    /// What a shard may do while clocks go wrong and are set right again, before they have stood there for long.
    @Test(.timeLimit(.minutes(3)), arguments: 0..<6 as Range<UInt64>) func randomSchedules(seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        let two = try Two()
        // Of every key: how long it has to be there, and from when on it must not be there.
        var due: [String: ClosedRange<UInt64>] = [:]
        var newest = Version.zero
        // How long each clock has been wrong, and when each process began.
        var wrongSince: [UInt64?] = [nil, nil]
        // The process was started, or has heard of the time, by a clock that was wrong.
        var isMisled = [false, false]
        let slack = UInt64(ClockBound.aheadMillisecondsMax)

        func setRight(_ node: Int) {
            two.world.set(node, 0)
            wrongSince[node] = nil
        }

        for step in 0..<120 {
            for node in 0..<2 where wrongSince[node].map({ two.world.now - $0 > 500_000 }) == true { setRight(node) }
            let node = Int(random.next() % 2)
            switch random.next() % 12 {
            case 0...4:
                let key = "key-\(step)"
                let life = 1 + random.next() % UInt64(3 * hour)
                let now = two.world.now
                // A life begins at the latest time that anything tells: by a clock that began behind, the newest version's.
                let begins = isMisled[two.leader] ? min(now, newest.milliseconds) : now
                let wall = UInt64(Int64(now) + two.world.error(of: two.leader))
                let misled = isMisled[two.leader] ? UInt64(50 * hour) : 0
                let latest = max(now + misled, wall, newest.milliseconds)
                let receipt = try await two.write(expiring(key, life))
                let version = receipt.version(at: 0) ?? .zero
                #expect(receipt.failure == nil && version > newest)
                newest = version
                due[key] = begins + life...latest + life + slack
            case 5:
                // Up to two days, either way.
                if wrongSince[node] == nil {
                    two.world.set(node, Int64(random.next() % UInt64(96 * hour)) - 48 * hour)
                    wrongSince[node] = two.world.now
                }
            case 6: setRight(node)
            case 7:
                if node == two.leader { try await two.replicate() }
                isMisled[node] = two.world.error(of: node) != 0
                try await two.restart(node)
            case 8: try await two.changeLeader()
            case 9:
                try two.replicas[node].database.flush()
                try two.replicas[node].database.compact()
            default: two.pass(random.next() % 400_000)
            }
            if random.next() % 2 == 0 { try await two.replicate() }
            // Where no process was started by a wrong clock, nobody goes by one.
            for node in 0..<2 where !isMisled[node] && two.replicas[node].position.version >= newest {
                for (key, range) in due where range.lowerBound > two.world.now + slack {
                    #expect(try two.has(key, node), "step \(step): \(key) is gone on node \(node)")
                }
            }
        }
        // The clocks are right again, and nothing is lost that has still to live, whatever was believed meanwhile.
        for node in 0..<2 { setRight(node) }
        two.pass(UInt64(ClockBound.settleMilliseconds) + 20_000)
        try await two.replicate()
        for (key, range) in due {
            for node in 0..<2 {
                let has = try two.has(key, node)
                if range.lowerBound > two.world.now + slack { #expect(has, "\(key) is gone on node \(node)") }
                if range.upperBound <= two.world.now { #expect(!has, "\(key) is still on node \(node)") }
            }
        }
        try await two.close()
    }
}
