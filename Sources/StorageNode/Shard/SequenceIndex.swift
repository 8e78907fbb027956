/// A sparse map from lsn to RocksDB sequence number, for finding a place in the write-ahead log.
///
/// One sample for so many bytes of log; when it is full, every second sample goes and the spacing doubles. Only a
/// hint: what is read from the log is checked by its own lsn.
struct SequenceIndex {
    struct Sample {
        var lsn: UInt64
        var sequence: UInt64
    }

    static let samplesMax = 4_096
    private var spacingBytes = 256 << 10
    private var samples: [Sample] = []
    private var bytesSinceSample = 0

    mutating func note(lsn: UInt64, sequence: UInt64, bytes: Int) {
        bytesSinceSample += bytes
        guard samples.isEmpty || bytesSinceSample >= spacingBytes else { return }
        if samples.count >= SequenceIndex.samplesMax {
            samples = samples.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
            spacingBytes *= 2
        }
        samples.append(Sample(lsn: lsn, sequence: sequence))
        bytesSinceSample = 0
    }

    /// The last sample at or before `lsn` and the first after it.
    func around(_ lsn: UInt64) -> (below: Sample?, above: Sample?) {
        var low = 0
        var high = samples.count
        while low < high {
            let middle = (low + high) / 2
            if samples[middle].lsn <= lsn { low = middle + 1 } else { high = middle }
        }
        return (low > 0 ? samples[low - 1] : nil, low < samples.count ? samples[low] : nil)
    }
}
