#include "CCRC32C.h"

#include <string.h>

// One stream of eight bytes at a time: three cycles each on x86-64, faster than memory is copied.

#if defined(__x86_64__)

#include <nmmintrin.h>

#define CCRC32C_TARGET __attribute__((target("sse4.2")))
#define CCRC32C_WORD(state, word) _mm_crc32_u64(state, word)
#define CCRC32C_BYTE(state, byte) _mm_crc32_u8((uint32_t)(state), byte)

bool ccrc32c_is_supported(void) { return __builtin_cpu_supports("sse4.2"); }

#elif defined(__aarch64__)

#include <arm_acle.h>

#define CCRC32C_TARGET __attribute__((target("crc")))
#define CCRC32C_WORD(state, word) __crc32cd((uint32_t)(state), word)
#define CCRC32C_BYTE(state, byte) __crc32cb((uint32_t)(state), byte)

#if defined(__linux__)
#include <sys/auxv.h>
// HWCAP_CRC32 of asm/hwcap.h.
bool ccrc32c_is_supported(void) { return (getauxval(AT_HWCAP) & (1 << 7)) != 0; }
#else
bool ccrc32c_is_supported(void) { return true; }
#endif

#endif

#if defined(CCRC32C_TARGET)

CCRC32C_TARGET uint32_t ccrc32c_update(uint32_t state, const void *bytes, size_t count) {
    const unsigned char *next = bytes;
    uint64_t wide = state;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        wide = CCRC32C_WORD(wide, word);
    }
    for (; count > 0; count--, next++) wide = CCRC32C_BYTE(wide, *next);
    return (uint32_t)wide;
}

#else

bool ccrc32c_is_supported(void) { return false; }

uint32_t ccrc32c_update(uint32_t state, const void *bytes, size_t count) {
    (void)bytes;
    (void)count;
    return state;
}

#endif
