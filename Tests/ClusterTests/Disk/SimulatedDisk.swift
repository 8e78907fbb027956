import FoundationEssentials
import TestSupport

/// A disk with its cache, which a trace is played to; what is on it when power is lost at that moment is an ``image``.
///
/// Data of a file is durable by an fsync of the file, a name by an fsync of its directory, and nothing else makes
/// anything durable. A rename between two directories becomes durable as a whole: every journaling file system sees to
/// that. Nothing here knows what the files are.
final class SimulatedDisk {
    /// A file or a directory. Names lead to it, so it may have none, or several.
    final class Node {
        let isDirectory: Bool
        /// Of a file.
        var bytes: [UInt8] = []
        var durableBytes: [UInt8] = []
        /// Since the last sync, in order.
        fileprivate var unsynced: [(time: Int, change: Change)] = []
        /// Of a directory.
        var names: [String: Node] = [:]
        var durableNames: [String: Node] = [:]

        init(isDirectory: Bool) { self.isDirectory = isDirectory }
    }

    fileprivate enum Change {
        case write(offset: Int, [UInt8])
        case resize(Int)

        func apply(to bytes: inout [UInt8]) {
            switch self {
            case .write(let offset, let new):
                if bytes.count < offset + new.count { Change.resize(offset + new.count).apply(to: &bytes) }
                bytes.replaceSubrange(offset..<offset + new.count, with: new)
            case .resize(let size):
                if size < bytes.count {
                    bytes.removeLast(bytes.count - size)
                } else {
                    bytes += [UInt8](repeating: 0, count: size - bytes.count)
                }
            }
        }
    }

    /// One change of names, in one directory or between two.
    private struct NameChange {
        var time: Int
        var parts: [(directory: Node, name: String, node: Node?)]
    }

    struct Misfit: Error, CustomStringConvertible {
        let description: String
    }

    let root = Node(isDirectory: true)
    private let rootPath: String
    private var files: [Int: Node] = [:]
    private var unsyncedNames: [NameChange] = []

    /// - Parameters:
    ///   - path: of the directory as the trace names it.
    ///   - base: where what is durable at first is to be found; nil for that directory.
    init(at path: String, base: String? = nil) throws {
        rootPath = path
        try SimulatedDisk.read(base ?? path, into: root)
    }

    private static func read(_ path: String, into node: Node) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: path) {
            var isDirectory = false
            _ = FileManager.default.fileExists(atPath: "\(path)/\(name)", isDirectory: &isDirectory)
            let child = Node(isDirectory: isDirectory)
            if isDirectory {
                try read("\(path)/\(name)", into: child)
            } else {
                child.bytes = Array(FileManager.default.contents(atPath: "\(path)/\(name)") ?? Data())
                child.durableBytes = child.bytes
            }
            node.names[name] = child
            node.durableNames[name] = child
        }
    }

    // MARK: Playing a trace

    func play(_ record: DiskTrace.Record) throws {
        switch record.event {
        case .start: files = [:]
        case .makeDirectory(let path):
            if path != rootPath { try setName(path, to: Node(isDirectory: true), at: record.begin) }
        case .remove(let path): try setName(path, to: nil, at: record.begin)
        case .rename(let path, let target):
            let node = try node(at: path)
            let (from, name) = try place(of: path)
            let (to, newName) = try place(of: target)
            note(NameChange(time: record.begin, parts: [(from, name, nil), (to, newName, node)]))
        case .link(let path, let target): try setName(target, to: try node(at: path), at: record.begin)
        case .open(let file, let path, let isNew, let isCut):
            if isNew { try setName(path, to: Node(isDirectory: false), at: record.begin) }
            let node = try node(at: path)
            files[file] = node
            if isCut, !node.bytes.isEmpty { change(node, .resize(0), at: record.begin) }
        case .close(let file): files[file] = nil
        case .duplicate(let file, let copy): files[copy] = try self.file(file)
        case .write(let file, let offset, let bytes):
            change(try self.file(file), .write(offset: offset, bytes), at: record.begin)
        case .resize(let file, let size):
            let node = try self.file(file)
            if node.bytes.count != size { change(node, .resize(size), at: record.begin) }
        case .sync(let file, let begun): sync(try self.file(file), begun)
        }
    }

    private func file(_ number: Int) throws -> Node {
        guard let node = files[number] else { throw Misfit(description: "descriptor \(number) is not open") }
        return node
    }

    private func node(at path: String) throws -> Node {
        guard path.hasPrefix(rootPath) else { throw Misfit(description: "\(path) is elsewhere") }
        return try path.dropFirst(rootPath.count).split(separator: "/").reduce(root) { node, name in
            guard let child = node.names[String(name)] else { throw Misfit(description: "no \(name) of \(path)") }
            return child
        }
    }

    private func place(of path: String) throws -> (directory: Node, name: String) {
        guard let slash = path.lastIndex(of: "/") else { throw Misfit(description: path) }
        return (try node(at: String(path[..<slash])), String(path[path.index(after: slash)...]))
    }

    private func setName(_ path: String, to node: Node?, at time: Int) throws {
        let (directory, name) = try place(of: path)
        note(NameChange(time: time, parts: [(directory, name, node)]))
    }

    private func note(_ change: NameChange) {
        for part in change.parts { part.directory.names[part.name] = part.node }
        unsyncedNames.append(change)
    }

    private func change(_ node: Node, _ change: Change, at time: Int) {
        change.apply(to: &node.bytes)
        node.unsynced.append((time, change))
    }

    private func sync(_ node: Node, _ begun: Int) {
        if node.isDirectory {
            for change in unsyncedNames
            where change.time < begun && change.parts.contains(where: { $0.directory === node }) {
                for part in change.parts { part.directory.durableNames[part.name] = part.node }
            }
            unsyncedNames.removeAll { $0.time < begun && $0.parts.contains { $0.directory === node } }
            return
        }
        let count = node.unsynced.prefix { $0.time < begun }.count
        for (_, change) in node.unsynced.prefix(count) { change.apply(to: &node.durableBytes) }
        node.unsynced.removeFirst(count)
    }

    // MARK: Losing power

    enum Loss: Sendable, Hashable {
        /// Everything that is not durable.
        case everything
        /// Some of it: each page of 4 KiB for itself, names up to some change.
        case some(seed: UInt64)
        /// As when the process is killed and the machine runs on.
        case nothing
    }

    static let pageBytes = 4_096
    /// Of the unsynced pages that reached the disk.
    private static let shares = [0.0, 0.5, 0.9, 1.0]

    /// What the disk would hold. Files by path, below the root; of a directory nil.
    func image(losing loss: Loss) -> [String: [UInt8]?] {
        var image: [String: [UInt8]?] = [:]
        switch loss {
        case .everything: SimulatedDisk.list(root, "", \.durableNames, \.durableBytes, into: &image)
        case .nothing: SimulatedDisk.list(root, "", \.names, \.bytes, into: &image)
        case .some(let seed):
            var random = SeededGenerator(seed: seed)
            var names: [ObjectIdentifier: [String: Node]] = [:]
            for change in survivors(using: &random) {
                for part in change.parts {
                    names[ObjectIdentifier(part.directory), default: part.directory.durableNames][part.name] = part.node
                }
            }
            let share = SimulatedDisk.shares.randomElement(using: &random) ?? 0
            SimulatedDisk.list(
                root, "", { names[ObjectIdentifier($0)] ?? $0.durableNames },
                { SimulatedDisk.contents(of: $0, share: share, using: &random) }, into: &image)
        }
        return image
    }

    /// Names that reached the disk though nobody synced them: file systems write those of one directory in order, and
    /// most of them those of all.
    private func survivors(using random: inout SeededGenerator) -> [NameChange] {
        let all = Int.random(in: 0...unsyncedNames.count, using: &random)
        guard Bool.random(using: &random) else { return Array(unsyncedNames.prefix(all)) }
        var left: [ObjectIdentifier: Int] = [:]
        return unsyncedNames.filter { change in
            change.parts.allSatisfy { part in
                let directory = ObjectIdentifier(part.directory)
                let count = left[directory] ?? Int.random(in: 0...unsyncedNames.count, using: &random)
                left[directory] = count - 1
                return count > 0
            }
        }
    }

    private static func contents(of node: Node, share: Double, using random: inout SeededGenerator) -> [UInt8] {
        guard !node.unsynced.isEmpty else { return node.durableBytes }
        var sizes = [node.durableBytes.count, node.bytes.count]
        var size = node.durableBytes.count
        var pages: Set<Int> = []
        for (_, change) in node.unsynced {
            switch change {
            case .write(let offset, let bytes):
                size = max(size, offset + bytes.count)
                if !bytes.isEmpty { pages.formUnion(offset / pageBytes...(offset + bytes.count - 1) / pageBytes) }
            case .resize(let new): size = new
            }
            sizes.append(size)
        }
        var result = node.durableBytes
        Change.resize(sizes.randomElement(using: &random) ?? 0).apply(to: &result)
        for page in pages.sorted() where Double.random(in: 0..<1, using: &random) < share {
            let begin = page * pageBytes
            let end = min(begin + pageBytes, node.bytes.count, result.count)
            if begin < end { result.replaceSubrange(begin..<end, with: node.bytes[begin..<end]) }
        }
        return result
    }

    private static func list(
        _ node: Node, _ path: String, _ names: (Node) -> [String: Node], _ bytes: (Node) -> [UInt8],
        into image: inout [String: [UInt8]?]
    ) {
        for (name, child) in names(node).sorted(by: { $0.key < $1.key }) {
            let place = path.isEmpty ? name : "\(path)/\(name)"
            image.updateValue(child.isDirectory ? nil : bytes(child), forKey: place)
            if child.isDirectory { list(child, place, names, bytes, into: &image) }
        }
    }
}

/// A directory's files, as ``SimulatedDisk/image(losing:)`` has them.
enum DirectoryImage {
    static func write(_ image: [String: [UInt8]?], to path: String) throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        // A directory comes before what is in it.
        for (name, bytes) in image.sorted(by: { $0.key < $1.key }) {
            guard let bytes else {
                try FileManager.default.createDirectory(atPath: "\(path)/\(name)", withIntermediateDirectories: true)
                continue
            }
            try Data(bytes).write(to: URL(filePath: "\(path)/\(name)"))
        }
    }

    static func read(_ path: String) throws -> [String: [UInt8]?] {
        try SimulatedDisk(at: path).image(losing: .nothing)
    }
}
