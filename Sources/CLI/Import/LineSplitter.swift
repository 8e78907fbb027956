import NIOCore

/// Cuts chunks of a file into numbered lines, keeping no more than one unfinished line.
///
/// Invariant: it holds at most `lineBytesMax` bytes and one chunk; of a longer line only the number is known.
struct LineSplitter {
    struct Line: Hashable {
        /// Counted from 1.
        let number: UInt64
        /// Without its LF; nil where the line is longer than allowed.
        let bytes: ByteBuffer?
    }

    /// The longest value as base64 or with every byte escaped, and room for the key.
    static let lineBytesMaxDefault = 128 << 20

    private let lineBytesMax: Int
    private var buffer = ByteBuffer()
    /// Bytes of `buffer` that are known to hold no LF.
    private var scanned = 0
    private var number: UInt64 = 0
    /// The unfinished line is longer than allowed and is being dropped.
    private var isDropping = false

    init(lineBytesMax: Int = LineSplitter.lineBytesMaxDefault) {
        self.lineBytesMax = lineBytesMax
    }

    mutating func append(_ chunk: ByteBuffer) {
        if buffer.readableBytes == 0 {
            buffer = chunk
        } else {
            // Lines already handed out share the storage: the rest moves to its own before it grows.
            if buffer.readerIndex > 0 { buffer = ByteBuffer(bytes: buffer.readableBytesView) }
            buffer.writeImmutableBuffer(chunk)
        }
    }

    /// The next whole line; nil where another chunk is needed.
    mutating func next() -> Line? {
        let view = buffer.readableBytesView
        guard let end = view[(view.startIndex + scanned)...].firstIndex(of: UInt8(ascii: "\n")) else {
            scanned = view.count
            if scanned > lineBytesMax {
                isDropping = true
                buffer = ByteBuffer()
                scanned = 0
            }
            return nil
        }
        let line = take(end - view.startIndex)
        buffer.moveReaderIndex(forwardBy: 1)
        return line
    }

    /// The last line, where the file does not end with LF.
    mutating func finish() -> Line? {
        buffer.readableBytes > 0 || isDropping ? take(buffer.readableBytes) : nil
    }

    private mutating func take(_ length: Int) -> Line {
        let bytes = buffer.readSlice(length: length)
        let isTooLong = isDropping || length > lineBytesMax
        isDropping = false
        scanned = 0
        number += 1
        return Line(number: number, bytes: isTooLong ? nil : bytes)
    }
}
