import CRocksDB
public import Core

extension Database {
    /// Makes a copy of the database, as it is at some moment during the call, in a new directory on the same file
    /// system. Tables are hard links; manifest, options and what the log has gained since the flush are copies.
    ///
    /// Flushes the memtables first, so that little or no log has to be copied. Blocks; writes go on meanwhile. Which
    /// moment it was is found out by opening the copy, with ``DatabaseOptions/isReadOnly``. See
    /// [Checkpoints](https://github.com/facebook/rocksdb/wiki/Checkpoints).
    /// - Parameter path: must not exist; its parent must.
    ///
    /// Throws `KVError`: `.storageFull`, `.storageFailed`, `.invalidArgument` where `path` exists. Nothing is left at
    /// `path` then.
    public func checkpoint(to path: String) throws(KVError) {
        try enter()
        defer { leave() }
        var failure: UnsafeMutablePointer<CChar>?
        let checkpoint = rocksdb_checkpoint_object_create(handle.pointer, &failure)
        if let status = RocksDBStatus(taking: failure) {
            throw status.error("cannot make a checkpoint of \(self.path)")
        }
        defer { rocksdb_checkpoint_object_destroy(checkpoint) }
        // 0: flush whatever the size of the log.
        rocksdb_checkpoint_create(checkpoint, path, 0, &failure)
        if let status = RocksDBStatus(taking: failure) {
            throw status.error("cannot make the checkpoint \(path)")
        }
    }
}
