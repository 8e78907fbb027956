#include "CTableCheck.h"

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/table.h>

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Bytes of one read: long enough for a disk that seeks, short enough to be paced.
constexpr size_t readBytes = 256 << 10;

struct Observer {
    ctablecheck_before_read beforeRead;
    void *context;

    rocksdb::IOStatus allow(size_t bytes) const {
        return beforeRead(context, bytes) ? rocksdb::IOStatus::OK() : rocksdb::IOStatus::Aborted("the check was ended");
    }
};

// A file whose reads are announced.
class ObservedFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
  public:
    ObservedFile(std::unique_ptr<rocksdb::FSRandomAccessFile> &&file, const Observer &observer)
        : FSRandomAccessFileOwnerWrapper(std::move(file)), observer(observer) {}

    rocksdb::IOStatus Read(
        uint64_t offset, size_t bytes, const rocksdb::IOOptions &options, rocksdb::Slice *result, char *scratch,
        rocksdb::IODebugContext *debug) const override {
        const auto allowed = observer.allow(bytes);
        if (!allowed.ok()) return allowed;
        return target()->Read(offset, bytes, options, result, scratch, debug);
    }

    // Nothing is read ahead but by reads that are announced.
    rocksdb::IOStatus Prefetch(uint64_t, size_t, const rocksdb::IOOptions &, rocksdb::IODebugContext *) override {
        return rocksdb::IOStatus::NotSupported();
    }

  private:
    const Observer observer;
};

class ObservedFileSystem final : public rocksdb::FileSystemWrapper {
  public:
    explicit ObservedFileSystem(const Observer &observer)
        : FileSystemWrapper(rocksdb::FileSystem::Default()), observer(observer) {}

    const char *Name() const override { return "ObservedFileSystem"; }

    rocksdb::IOStatus NewRandomAccessFile(
        const std::string &path, const rocksdb::FileOptions &options,
        std::unique_ptr<rocksdb::FSRandomAccessFile> *result, rocksdb::IODebugContext *debug) override {
        std::unique_ptr<rocksdb::FSRandomAccessFile> file;
        const auto status = target()->NewRandomAccessFile(path, options, &file, debug);
        if (status.ok()) result->reset(new ObservedFile(std::move(file), observer));
        return status;
    }

  private:
    const Observer observer;
};

} // namespace

char *ctablecheck_verify(const char *path, bool isDirect, ctablecheck_before_read beforeRead, void *context) {
    const auto env =
        rocksdb::NewCompositeEnv(std::make_shared<ObservedFileSystem>(Observer{beforeRead, context}));
    rocksdb::BlockBasedTableOptions table;
    table.no_block_cache = true;
    rocksdb::Options options;
    options.env = env.get();
    options.use_direct_reads = isDirect;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    rocksdb::ReadOptions read;
    read.fill_cache = false;
    read.readahead_size = readBytes;

    rocksdb::SstFileReader reader(options);
    auto status = reader.Open(path);
    if (status.ok()) status = reader.VerifyChecksum(read);
    return status.ok() ? nullptr : strdup(status.ToString().c_str());
}

void ctablecheck_become_idle(void) {
#if defined(__linux__)
    // Of linux/ioprio.h, which old systems lack: the idle class, for one thread, 0 being the calling one.
    const int idleClass = 3, classShift = 13, whoProcess = 1;
    // Both are a courtesy to others: what a system refuses changes nothing about the result.
    syscall(SYS_ioprio_set, whoProcess, 0, idleClass << classShift);
    setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 19);
#endif
}
