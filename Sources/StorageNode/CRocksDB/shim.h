// RocksDB's C API (librocksdb-dev); nothing in it is variadic, so the header is imported as it is.
#pragma once
#include <rocksdb/c.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

// Has malloc give blocks of so many bytes back to the system when they are freed, where it is glibc's.
static inline void distribkv_return_large_blocks(int bytes) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, bytes);
  // Twice that, as glibc has it where it chooses the other by itself.
  mallopt(M_TRIM_THRESHOLD, 2 * bytes);
#else
  (void)bytes;
#endif
}
