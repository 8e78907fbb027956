package import Core
package import LSM

/// Where the writer's batches go: RocksDB, or a twin that fails on demand.
///
/// Called by one thread at a time. A write is atomic. After an error of ``write(_:sync:)`` the batch may or may not
/// be in the log.
package protocol WriteSink: Sendable {
    /// With `sync` the batch, and everything before it, is durable on return.
    func write(_ batch: UnsafeRawBufferPointer, sync: Bool) throws(KVError)
    func syncWAL() throws(KVError)
    /// Deletes the oldest log beyond `bytes`.
    @discardableResult func trimArchivedLogs(keepingBytes bytes: Int) throws(KVError) -> Int
}

extension Database: WriteSink {}
