import FoundationEssentials
import TestSupport
import Testing

/// The model itself: what it takes for durable.
@Suite struct SimulatedDiskTests {
    private let directory: TemporaryDirectory
    private let disk: SimulatedDisk
    private var time = 0

    init() throws {
        directory = try TemporaryDirectory()
        disk = try SimulatedDisk(at: directory.path)
    }

    private mutating func play(_ events: DiskTrace.Event...) throws {
        for event in events {
            try disk.play(DiskTrace.Record(begin: time, end: time + 1, event: event))
            time += 1
        }
    }

    private func path(_ name: String) -> String { "\(directory.path)/\(name)" }
    private var durable: [String: [UInt8]?] { disk.image(losing: .everything) }

    @Test mutating func dataAndNamesAreSyncedEachForItself() throws {
        try play(
            .open(3, path: path("a"), isNew: true, isCut: false), .write(3, offset: 0, bytes: [1, 2]),
            .sync(3, begun: time + 2))
        #expect(durable == [:])
        try play(.open(4, path: directory.path, isNew: false, isCut: false), .sync(4, begun: time + 1))
        #expect(durable == ["a": [1, 2]])
        try play(.write(3, offset: 1, bytes: [9, 9]))
        #expect(durable == ["a": [1, 2]])
        #expect(disk.image(losing: .nothing) == ["a": [1, 9, 9]])
        // What came after the sync began is not promised by it.
        try play(.sync(3, begun: time - 1))
        #expect(durable == ["a": [1, 2]])
        try play(.sync(3, begun: time))
        #expect(durable == ["a": [1, 9, 9]])
    }

    @Test mutating func aRenameIsLostAsAWhole() throws {
        try play(
            .makeDirectory(path("d")), .open(3, path: path("a"), isNew: true, isCut: false),
            .open(4, path: directory.path, isNew: false, isCut: false), .sync(4, begun: time + 3),
            .rename(path("a"), to: path("d/b")))
        #expect(durable == ["a": [], "d": nil])
        try play(.open(5, path: path("d"), isNew: false, isCut: false), .sync(5, begun: time + 1))
        #expect(durable == ["d": nil, "d/b": []])
        try play(.remove(path("d/b")), .remove(path("d")), .sync(4, begun: time + 2))
        #expect(durable == [:])
    }

    @Test mutating func pagesAreLostEachForItself() throws {
        let pages = 64
        try play(
            .open(3, path: path("a"), isNew: true, isCut: false),
            .open(4, path: directory.path, isNew: false, isCut: false), .sync(4, begun: time + 2),
            .write(3, offset: 0, bytes: [UInt8](repeating: 7, count: pages * SimulatedDisk.pageBytes)))
        var kinds: Set<[UInt8]> = []
        for seed in 0..<64 {
            guard let bytes = try #require(disk.image(losing: .some(seed: UInt64(seed)))["a"]) else { continue }
            #expect(bytes.count.isMultiple(of: SimulatedDisk.pageBytes))
            let first = stride(from: 0, to: bytes.count, by: SimulatedDisk.pageBytes).map { bytes[$0] }
            #expect(first.allSatisfy { $0 == 7 || $0 == 0 })
            kinds.insert(first)
        }
        #expect(kinds.contains([]) && kinds.contains([UInt8](repeating: 7, count: pages)) && kinds.count > 4)
    }
}
