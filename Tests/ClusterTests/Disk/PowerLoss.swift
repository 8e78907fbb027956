import Core
import FoundationEssentials
import TestSupport
import Testing

/// A data directory as a disk may hold it when power is lost at moments of a trace, each tried with a real node.
struct PowerLoss {
    struct Moment {
        let time: Int
        let loss: SimulatedDisk.Loss
    }

    let trace: DiskTrace
    private let disk: SimulatedDisk

    /// - Parameter preload: of the run that is over.
    init(_ preload: DiskPreload, base: SimulatedDisk) throws {
        trace = try DiskTrace(path: try #require(preload.tracePath))
        disk = base
    }

    /// How many images a test tries: `DISTRIBKV_POWER_LOSS_RUNS` of each kind, for longer runs by hand.
    static func runs(_ fallback: Int) -> Int { testSetting("DISTRIBKV_POWER_LOSS_RUNS", default: fallback) }

    /// Moments between `first` and the end, in order; every second one is near a change of names, where files begin and
    /// end.
    func moments(
        _ count: Int, from first: Int = 0, _ losses: [SimulatedDisk.Loss?], using random: inout SeededGenerator
    ) -> [Moment] {
        let records = trace.records.indices.filter { trace.records[$0].end >= first }
        let changes = records.filter { trace.records[$0].event.isOfNames }
        return (0..<count).compactMap { number -> Moment? in
            let isNear = number % 2 == 0 && !changes.isEmpty
            guard let any = (isNear ? changes : records).randomElement(using: &random) else { return nil }
            let record = isNear ? min(any + Int.random(in: 0...4, using: &random), trace.records.count - 1) : any
            let loss = losses[number % losses.count] ?? .some(seed: random.next())
            return Moment(time: trace.records[record].end, loss: loss)
        }.sorted { $0.time < $1.time }
    }

    /// Calls `body` with the path of each image, which is removed afterwards.
    func replay(
        _ moments: [Moment], in directory: String, _ body: (Moment, _ image: String) async throws -> Void
    ) async throws {
        var next = 0
        for (number, moment) in moments.enumerated() {
            while next < trace.records.count, trace.records[next].end <= moment.time {
                try disk.play(trace.records[next])
                next += 1
            }
            let path = "\(directory)/image-\(number)"
            try DirectoryImage.write(disk.image(losing: moment.loss), to: path)
            try PowerLoss.pretendRestart(of: path)
            try await body(moment, path)
            try FileManager.default.removeItem(atPath: path)
        }
    }

    /// With nothing lost the trace ends in what is on the real disk: it misses no call.
    func expectWhole(_ directory: String) throws {
        for record in trace.records { try disk.play(record) }
        let (played, real) = (disk.image(losing: .nothing), try DirectoryImage.read(directory))
        let differing = Set(played.keys).union(real.keys).filter { played[$0] != real[$0] }
        #expect(differing.isEmpty, "the trace and the disk differ: \(differing.sorted().prefix(5))")
    }

    /// Has every replica in a data directory believe that the machine was started since: a node holds what is missing
    /// for lost power only if it was.
    private static func pretendRestart(of directory: String) throws {
        let shards = "\(directory)/shards"
        guard FileManager.default.fileExists(atPath: shards) else { return }
        for shard in try FileManager.default.contentsOfDirectory(atPath: shards) {
            let path = "\(shards)/\(shard)/SYNCED"
            let lines = text(ofFile: path).split(separator: "\n", omittingEmptySubsequences: false)
            guard lines.contains(where: { $0.hasPrefix("boot = ") }) else { continue }
            let body = lines.filter { !$0.hasPrefix("crc32c = ") && !$0.isEmpty }
                .map { $0.hasPrefix("boot = ") ? "boot = \(UUID().uuidString.lowercased())\n" : "\($0)\n" }.joined()
            let digits = String(Array(body.utf8).withUnsafeBytes { CRC32C.checksum($0) }, radix: 16)
            try writeFile(path, body + "crc32c = " + String(repeating: "0", count: 8 - digits.count) + digits + "\n")
        }
    }
}

extension DiskTrace.Event {
    var isOfNames: Bool {
        switch self {
        case .makeDirectory, .remove, .rename, .link: true
        case .open(_, _, let isNew, _): isNew
        default: false
        }
    }
}
