// CRC-32C with the CPU's own instruction, where it has one.

#ifndef CCRC32C_H
#define CCRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whether ccrc32c_update may be called on this CPU.
bool ccrc32c_is_supported(void);

// The state after `count` more bytes; the first one is all ones, and the checksum is the complement of the last.
uint32_t ccrc32c_update(uint32_t state, const void *bytes, size_t count);

#endif
