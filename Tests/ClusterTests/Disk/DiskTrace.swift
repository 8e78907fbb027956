import FoundationEssentials

/// What `Tests/Faults/faults.c` noted: every call that changed the files below a directory, in order.
///
/// Time is a place in the trace. A call has happened by time t if its record ends at or before t.
struct DiskTrace {
    enum Event: Equatable {
        /// Another process: descriptors of the one before are closed.
        case start
        case makeDirectory(String)
        /// A file's name or an empty directory.
        case remove(String)
        case rename(String, to: String)
        case link(String, to: String)
        case open(Int, path: String, isNew: Bool, isCut: Bool)
        case close(Int)
        case duplicate(Int, as: Int)
        case write(Int, offset: Int, bytes: [UInt8])
        case resize(Int, size: Int)
        /// Of a file or a directory; what had happened by `begun` is durable when this has happened.
        case sync(Int, begun: Int)
    }

    struct Record {
        let begin: Int
        let end: Int
        let event: Event
    }

    struct Malformed: Error, CustomStringConvertible {
        let description: String
    }

    private(set) var records: [Record] = []

    init(path: String) throws {
        guard let data = FileManager.default.contents(atPath: path) else { throw Malformed(description: "no \(path)") }
        try self.init(Array(data))
    }

    /// A record that was cut off, because the process was killed while it was written, has not happened.
    init(_ bytes: [UInt8]) throws {
        var place = 0
        while let lineEnd = bytes[place...].firstIndex(of: UInt8(ascii: "\n")) {
            let fields = bytes[place..<lineEnd].split(separator: UInt8(ascii: "\t"), omittingEmptySubsequences: false)
                .map { String(decoding: $0, as: UTF8.self) }
            var end = lineEnd + 1
            var payload: ArraySlice<UInt8> = []
            if fields[0] == "write" {
                guard fields.count > 3, let count = Int(fields[3]) else { throw Self.malformed(fields, place) }
                guard end + count < bytes.count else { return }
                payload = bytes[end..<end + count]
                end += count + 1
            }
            guard let event = Self.event(fields, payload) else { throw Self.malformed(fields, place) }
            records.append(Record(begin: place, end: end, event: event))
            place = end
        }
    }

    private static func malformed(_ fields: [String], _ place: Int) -> Malformed {
        Malformed(description: "the trace has \(fields) at \(place)")
    }

    private static func event(_ fields: [String], _ payload: ArraySlice<UInt8>) -> Event? {
        let numbers = fields.dropFirst().prefix { !$0.isEmpty && !$0.hasPrefix("/") }.compactMap { Int($0) }
        let paths = fields.dropFirst().filter { $0.hasPrefix("/") }
        switch (fields[0], numbers.count, paths.count) {
        case ("start", 0, 0): return .start
        case ("mkdir", 0, 1): return .makeDirectory(paths[0])
        case ("rmdir", 0, 1), ("unlink", 0, 1): return .remove(paths[0])
        case ("rename", 0, 2): return .rename(paths[0], to: paths[1])
        case ("link", 0, 2): return .link(paths[0], to: paths[1])
        case ("open", 3, 1): return .open(numbers[0], path: paths[0], isNew: numbers[1] == 1, isCut: numbers[2] == 1)
        case ("close", 1, 0): return .close(numbers[0])
        case ("dup", 2, 0): return .duplicate(numbers[0], as: numbers[1])
        case ("write", 3, 0): return .write(numbers[0], offset: numbers[1], bytes: Array(payload))
        case ("size", 2, 0): return .resize(numbers[0], size: numbers[1])
        case ("sync", 2, 0): return .sync(numbers[0], begun: numbers[1])
        default: return nil
        }
    }
}
