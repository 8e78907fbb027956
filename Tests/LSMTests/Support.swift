import Core
import LSM
import NIOCore

/// What a lookup found, as a copy.
enum Found: Equatable {
    case value(UInt64, [UInt8])
    case missing
    case wouldBlock
}

extension Database {
    func find(_ key: String, tier: ReadTier = .disk) throws(KVError) -> Found {
        var found: Found?
        try read(key: ByteBuffer(string: key), tier: tier) { lookup in
            switch lookup {
            case .value(let value): found = .value(value.version.rawValue, Array(value.bytes))
            case .missing: found = .missing
            case .wouldBlock: found = .wouldBlock
            }
        }
        guard let found else { throw KVError(.internalError, "the lookup gave no answer") }
        return found
    }

    func write(sync: Bool = false, _ fill: (inout WriteBatchBuilder) -> Void) throws(KVError) {
        var builder = WriteBatchBuilder()
        fill(&builder)
        let batch = builder.finish()
        let result: Result<Void, KVError> = batch.withUnsafeReadableBytes { bytes in
            Result { () throws(KVError) in try write(bytes, sync: sync) }
        }
        try result.get()
    }

    func put(_ key: String, _ value: String, version: UInt64 = 1) throws(KVError) {
        try write {
            $0.put(key: ByteBuffer(string: key), version: Version(rawValue: version), value: ByteBuffer(string: value))
        }
    }
}

func bytes(_ buffer: ByteBuffer) -> [UInt8] { Array(buffer.readableBytesView) }
