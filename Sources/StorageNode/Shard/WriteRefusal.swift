public import Core

/// Why a write was not made, though the shard takes writes. It left no trace.
public enum WriteRefusal: Sendable {
    case conditionFailed
    /// A counter was to be changed, and what is stored is no 64-bit integer in decimal.
    case notAnInteger
    /// The counter would leave the range of 64-bit integers.
    case overflow
    /// What is stored could not be read.
    case unreadable(KVError)
}
