// RocksDB's C API (librocksdb-dev); nothing in it is variadic, so the header is imported as it is.
#pragma once
#include <rocksdb/c.h>
