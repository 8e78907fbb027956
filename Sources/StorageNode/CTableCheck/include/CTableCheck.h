// What RocksDB can do only through its C++ interface: reading a table file block by block against its checksums.

#ifndef CTABLECHECK_H
#define CTABLECHECK_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Called before every read of `bytes` bytes, on the same thread; false ends the check.
typedef bool (*ctablecheck_before_read)(void *context, size_t bytes);

// Reads every block of the table file at `path`, those of metadata included, and compares it with its checksum.
// Nothing goes into a block cache. `isDirect` reads past the page cache; where the file system has no such reads that
// is a failure with "Invalid argument" in its text.
// Returns NULL if the table is whole, else RocksDB's status as text, which the caller frees.
char *ctablecheck_verify(const char *path, bool isDirect, ctablecheck_before_read beforeRead, void *context);

// Lets every other thread of the machine go before this one, at the processor and, where the disk's scheduler knows
// classes, at the disk. For the rest of the thread's life.
void ctablecheck_become_idle(void);

#ifdef __cplusplus
}
#endif

#endif
