/// The lines of a buffer, by their places in its readable bytes: without their LF, numbered from 1.
public struct NDJSONLines: Sequence, IteratorProtocol {
    private let bytes: UnsafeRawBufferPointer
    private var start = 0
    /// Of the line that was returned last.
    public private(set) var number = 0

    public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// The next line; the last one may lack its LF.
    public mutating func next() -> Range<Int>? {
        guard start < bytes.count else { return nil }
        number += 1
        let line = start..<JSONScan.lineEnd(bytes, from: start)
        start = line.upperBound + 1
        return line
    }
}
