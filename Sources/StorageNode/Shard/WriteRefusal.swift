public import Core

/// Why a write was not made, though the shard takes writes. It left no trace.
public enum WriteRefusal: Sendable {
    case conditionFailed
    /// A counter was to be changed, and what is stored is no 64-bit integer in decimal.
    case notAnInteger
    /// The counter would leave the range of 64-bit integers.
    case overflow
    /// The operation itself could be done, but not another one of the same atomic submission.
    case otherRefused
    /// What the reads of one submission found is more than ``ShardConfiguration/readBytesMax`` together.
    case tooMuchRead
    /// What is stored could not be read.
    case unreadable(KVError)
}
