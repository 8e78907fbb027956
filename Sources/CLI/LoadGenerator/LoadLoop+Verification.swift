import Core
import NIOCore
import Wire

extension LoadLoop {
    /// Bytes of a verified scan's answer at most; a server ends a page at 4 MiB, or behind one larger record.
    private static let scanBytesMax = 32 << 20

    /// Takes a piece of the answer to a verified operation.
    func takeContent(_ bytes: UnsafeRawBufferPointer, _ exchange: Exchange, _ connection: Connection) {
        guard connection.reader.head.status == 200 else { return }
        if exchange.kind == .scan {
            if connection.content.count + bytes.count <= Self.scanBytesMax {
                connection.content.append(contentsOf: bytes)
            }
        } else if !exchange.isWriting {
            connection.value.update(bytes)
        }
    }

    /// Checks what an operation has read.
    func check(_ exchange: Exchange, _ status: Int, _ connection: Connection) {
        guard !exchange.isWriting, exchange.isMeasured else {
            connection.value = ValueReader()
            connection.content.removeAll(keepingCapacity: true)
            return
        }
        switch (exchange.kind, status) {
        case (.scan, 200): checkScan(exchange, connection.content)
        case (.scan, _): break
        case (_, 200):
            recorder.verification.checked += 1
            checkValue(connection.value.origin, of: exchange.key, exchange.floor)
        case (_, 404):
            recorder.verification.checked += 1
            guard exchange.floor.isPresent else { break }
            recorder.verification.missing += 1
            recorder.verification.note("\(settings.names.name(of: exchange.key)) is missing")
        default: break
        }
        connection.value = ValueReader()
        connection.content.removeAll(keepingCapacity: true)
    }

    private func checkValue(
        _ origin: (key: UInt64, sequence: UInt64)?, of key: UInt64, _ floor: VerificationTable.Floor
    ) {
        let name = settings.names.name
        guard let origin else {
            recorder.verification.wrong += 1
            return recorder.verification.note(
                "\(name(key)) has a damaged value, or one that kv bench --verify did not write")
        }
        guard origin.key == key else {
            recorder.verification.wrong += 1
            return recorder.verification.note("\(name(key)) has the value of \(name(origin.key))")
        }
        guard origin.sequence < floor.sequence, !floor.isDoubtful else { return }
        recorder.verification.stale += 1
        guard !settings.mayBeStale else { return }
        recorder.verification.note(
            "\(name(key)) has the value of write \(origin.sequence), and write \(floor.sequence) had been acknowledged")
    }

    /// Checks that records come in order from the scan's start on, and that each has its own value.
    private func checkScan(_ exchange: Exchange, _ content: [UInt8]) {
        recorder.verification.checked += 1
        var last = Array(settings.names.name(of: exchange.key).utf8)
        var count = 0
        for line in content.split(separator: UInt8(ascii: "\n")) {
            count += 1
            guard let record = try? RecordLine(ByteBuffer(bytes: line)), let value = record.value else {
                return wrongScan(exchange, "line \(count) is no record")
            }
            let key = Array(record.key.readableBytesView)
            guard count == 1 ? !key.lexicographicallyPrecedes(last) : last.lexicographicallyPrecedes(key) else {
                return wrongScan(exchange, "line \(count) is out of order")
            }
            last = key
            var reader = ValueReader()
            value.withUnsafeReadableBytes { reader.update($0) }
            guard key.starts(with: settings.names.prefix), key.count == settings.names.byteCount else { continue }
            guard let origin = reader.origin, settings.names.name(of: origin.key).utf8.elementsEqual(key) else {
                return wrongScan(exchange, "line \(count) has another key's value, or a damaged one")
            }
        }
        if count > Int(exchange.scanCount) {
            wrongScan(exchange, "there are \(count) records, not \(exchange.scanCount)")
        }
    }

    private func wrongScan(_ exchange: Exchange, _ what: String) {
        recorder.verification.wrong += 1
        recorder.verification.note("scan from \(settings.names.name(of: exchange.key)): \(what)")
    }
}
