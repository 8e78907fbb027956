// Counts allocations of the program that it is preloaded into, and keeps the call stacks of some of them.
//
//   LD_PRELOAD=count_allocations.so ALLOCATIONS_FILE=FILE program ...
//
// FILE is mapped by whoever reads the counts too; `struct shared` is its layout. A reader sets `armed` to have stacks
// kept: of every STRIDE-th allocation, until STACKS_MAX of them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// A prime, so that it does not go in step with what a request does.
enum { STRIDE = 13, STACKS_MAX = 8192, FRAMES_MAX = 24 };

struct shared {
  _Atomic uint64_t allocations, bytes, armed, stacks;
  uint64_t frames[STACKS_MAX][FRAMES_MAX];
};

static struct shared unmapped, *shared = &unmapped;
static _Thread_local int is_counting;

static void count(size_t bytes) {
  uint64_t number = atomic_fetch_add_explicit(&shared->allocations, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&shared->bytes, bytes, memory_order_relaxed);
  if (!atomic_load_explicit(&shared->armed, memory_order_relaxed) || number % STRIDE != 0 || is_counting) return;
  // Taking a stack may allocate.
  is_counting = 1;
  uint64_t place = atomic_fetch_add(&shared->stacks, 1);
  if (place < STACKS_MAX) {
    void *frames[FRAMES_MAX];
    int found = backtrace(frames, FRAMES_MAX);
    for (int i = 0; i < FRAMES_MAX; i++) shared->frames[place][i] = i < found ? (uint64_t)frames[i] : 0;
  }
  is_counting = 0;
}

__attribute__((constructor)) static void map_file(void) {
  const char *path = getenv("ALLOCATIONS_FILE");
  int fd = path == NULL ? -1 : open(path, O_RDWR);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  void *frame;
  backtrace(&frame, 1);  // Loads what it needs now and not within an allocation.
  if (mapped != MAP_FAILED) shared = mapped;
}

// glibc's own names for what is replaced here: no look-up that could allocate.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
  count(items * size);
  return __libc_calloc(items, size);
}

void *realloc(void *block, size_t size) {
  count(size);
  return __libc_realloc(block, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size) {
  count(size);
  void *found = __libc_memalign(alignment, size);
  if (found == NULL) return ENOMEM;
  *block = found;
  return 0;
}
