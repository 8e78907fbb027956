// Loaded into a storage node by LD_PRELOAD: file calls that fail when a test wants them to, and a record of everything
// that changes the disk. docs/testing.md says how the tests use it; Tests/ClusterTests/Disk reads what it writes.
//
//   KV_DISK      the directory below which files are watched; nothing else is touched
//   KV_RULES     a file of rules, read again when it is replaced; each line is
//                    CALLS PATH FROM TO EFFECT
//                calls joined by commas, a part of the path or *, the first and the last of the matching calls (from 1,
//                counted since the file was read; 0 for no last one), and EIO, ENOSPC, EDQUOT, SHORT or NOTE
//   KV_FIRED     takes a line "CALL PATH EFFECT" for each call that a rule has met
//   KV_TRACE     takes a record for each call that changed the disk, in the order in which they happened
//
// A record is a line of text, "KIND NUMBER NUMBER NUMBER PATH", with as many numbers as the kind has, tab between
// them, and for "write" the bytes and a line feed behind it. Its place in the file is its time: a test that notes the
// file's length when a write is acknowledged knows what had happened by then. Only libc calls are seen; stdio's are for
// reading alone. That the trace is whole is checked by replaying it and comparing with the disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES_MAX = 65536, RULES_MAX = 8, NAME_MAX_BYTES = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
// Paths of watched descriptors, as they were opened.
static _Atomic(char *) paths[FILES_MAX];
static _Thread_local int is_inside;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

// ---- settings ------------------------------------------------------------------------------------------

static const char *disk, *rules_path, *fired_path, *trace_path;
static size_t disk_length;
static int trace = -1, fired = -1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int raw_open(const char *path, int flags) {
    REAL(open);
    return path ? real(path, flags | O_CLOEXEC, 0644) : -1;
}
static ssize_t raw_write(int file, const void *bytes, size_t count) {
    REAL(write);
    return real(file, bytes, count);
}

static void set_up(void) {
    disk = getenv("KV_DISK");
    disk_length = disk ? strlen(disk) : 0;
    rules_path = getenv("KV_RULES");
    fired_path = getenv("KV_FIRED");
    trace_path = getenv("KV_TRACE");
}

// Whether a path is the watched directory or below it. Paths are absolute, as the tests name them.
static int is_watched(const char *path) {
    pthread_once(&once, set_up);
    if (is_inside || !disk || !path || strncmp(path, disk, disk_length)) return 0;
    return path[disk_length] == '/' || path[disk_length] == 0;
}
static char *path_of(int file) {
    return file >= 0 && file < FILES_MAX && !is_inside ? atomic_load_explicit(&paths[file], memory_order_acquire) : NULL;
}

// ---- faults --------------------------------------------------------------------------------------------

struct rule {
    char calls[128], path[256];
    long from, to, met;
    char effect[NAME_MAX_BYTES];
};
static struct rule rules[RULES_MAX];
static int rule_count;
static struct stat rules_read;

static void read_rules(void) {
    struct stat now;
    if (!rules_path || stat(rules_path, &now)) return;
    if (now.st_ino == rules_read.st_ino && now.st_mtim.tv_nsec == rules_read.st_mtim.tv_nsec
        && now.st_mtim.tv_sec == rules_read.st_mtim.tv_sec) return;
    rules_read = now;
    rule_count = 0;
    FILE *file = fopen(rules_path, "re");
    if (!file) return;
    struct rule rule = {0};
    while (rule_count < RULES_MAX
           && fscanf(file, "%127s %255s %ld %ld %31s", rule.calls, rule.path, &rule.from, &rule.to, rule.effect) == 5)
        rules[rule_count++] = rule;
    fclose(file);
}

static int lists(const char *calls, const char *call) {
    size_t length = strlen(call);
    for (const char *at = calls; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, call, length) && (at[length] == ',' || at[length] == 0)) return 1;
    return 0;
}

enum effect { NOTHING, FAIL, SHORT };

// What is to become of a call; sets errno for FAIL. With the lock held.
static enum effect effect_on(const char *call, const char *path) {
    if (!rules_path) return NOTHING;
    is_inside = 1;
    read_rules();
    enum effect effect = NOTHING;
    int error = 0;
    for (int i = 0; i < rule_count && effect == NOTHING; i++) {
        struct rule *rule = &rules[i];
        if (!lists(rule->calls, call) || (strcmp(rule->path, "*") && !strstr(path, rule->path))) continue;
        rule->met++;
        if (rule->met < rule->from || (rule->to && rule->met > rule->to)) continue;
        if (!strcmp(rule->effect, "SHORT")) effect = SHORT;
        else if (strcmp(rule->effect, "NOTE")) effect = FAIL;
        error = !strcmp(rule->effect, "ENOSPC") ? ENOSPC : !strcmp(rule->effect, "EDQUOT") ? EDQUOT : EIO;
        if (fired < 0) fired = raw_open(fired_path, O_WRONLY | O_CREAT | O_APPEND);
        char line[PATH_MAX + 128];
        int length = snprintf(line, sizeof line, "%s %s %s\n", call, path, rule->effect);
        raw_write(fired, line, length);
    }
    is_inside = 0;
    if (effect == FAIL) errno = error;
    return effect;
}

// Halved, but never nothing: that would be the end of the file.
static size_t shortened(enum effect effect, size_t count) { return effect == SHORT && count > 1 ? count / 2 : count; }

// ---- trace ---------------------------------------------------------------------------------------------

// Where the next record goes, which is its time. With the lock held.
static long now(void) {
    if (!trace_path) return 0;
    if (trace < 0) {
        trace = raw_open(trace_path, O_WRONLY | O_CREAT | O_APPEND);
        // Descriptors of a process before this one mean nothing any more.
        raw_write(trace, "start\t\n", 7);
    }
    return lseek(trace, 0, SEEK_END);
}

static void record(const void *bytes, size_t count, const char *format, ...) {
    if (!trace_path) return;
    int error = errno;
    now();
    char line[2 * PATH_MAX + 128];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    // One call, so that a process that is killed leaves whole records.
    struct iovec parts[] = {{line, length}, {(void *)bytes, count}, {"\n", 1}};
    REAL(writev);
    real(trace, parts, bytes ? 3 : 1);
    errno = error;
}

// ---- files ---------------------------------------------------------------------------------------------

static void watch(int file, const char *path) {
    if (file < 0 || file >= FILES_MAX) return;
    free(atomic_exchange(&paths[file], path ? strdup(path) : NULL));
}

typedef int open_call(const char *, int, ...);

static int open_watched(open_call *real, const char *path, int flags, mode_t mode) {
    if (!is_watched(path)) return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    int file = -1;
    struct stat status;
    int is_new = (flags & O_CREAT) && lstat(path, &status);
    if (effect_on(flags & O_CREAT ? "create" : "open", path) != FAIL) file = real(path, flags, mode);
    if (file >= 0) {
        watch(file, path);
        record(NULL, 0, "open\t%d\t%d\t%d\t%s", file, is_new, (flags & O_TRUNC) != 0, path);
    }
    pthread_mutex_unlock(&lock);
    return file;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments); \
        static open_call *real; \
        if (!real) real = (open_call *)dlsym(RTLD_NEXT, #name); \
        return open_watched(real, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open(path, flags); }

// With an absolute path the directory does not matter; nothing here uses another one.
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments); \
        if (is_watched(path)) return open(path, flags, mode); \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

// Before it is closed: its number may be another's at once.
static void forget(int file) {
    if (!path_of(file)) return;
    pthread_mutex_lock(&lock);
    record(NULL, 0, "close\t%d\t", file);
    watch(file, NULL);
    pthread_mutex_unlock(&lock);
}
int close(int file) {
    REAL(close);
    forget(file);
    return real(file);
}
int fclose(FILE *file) {
    REAL(fclose);
    forget(fileno(file));
    return real(file);
}

#define DUP(name, arguments, values) \
    int name arguments { \
        REAL(name); \
        int copy = real values; \
        char *path = path_of(file); \
        if (copy >= 0 && path) { \
            pthread_mutex_lock(&lock); \
            record(NULL, 0, "dup\t%d\t%d\t", file, copy); \
            watch(copy, path); \
            pthread_mutex_unlock(&lock); \
        } \
        return copy; \
    }
DUP(dup, (int file), (file))
DUP(dup2, (int file, int target), (file, target))

// ---- reading -------------------------------------------------------------------------------------------

static enum effect effect_on_read(const char *call, int file) {
    char *path = rules_path ? path_of(file) : NULL;
    if (!path) return NOTHING;
    pthread_mutex_lock(&lock);
    enum effect effect = effect_on(call, path);
    pthread_mutex_unlock(&lock);
    return effect;
}

ssize_t read(int file, void *bytes, size_t count) {
    REAL(read);
    enum effect effect = effect_on_read("read", file);
    return effect == FAIL ? -1 : real(file, bytes, shortened(effect, count));
}
ssize_t pread(int file, void *bytes, size_t count, off_t offset) {
    REAL(pread);
    enum effect effect = effect_on_read("pread", file);
    return effect == FAIL ? -1 : real(file, bytes, shortened(effect, count), offset);
}
ssize_t pread64(int file, void *bytes, size_t count, off64_t offset) { return pread(file, bytes, count, offset); }

// RocksDB reads logs and manifests with this one, which may be a macro too.
#undef fread_unlocked
size_t fread_unlocked(void *bytes, size_t size, size_t count, FILE *file) {
    REAL(fread_unlocked);
    return effect_on_read("read", fileno(file)) == FAIL ? 0 : real(bytes, size, count, file);
}

// ---- writing -------------------------------------------------------------------------------------------

ssize_t write(int file, const void *bytes, size_t count) {
    REAL(write);
    char *path = path_of(file);
    if (!path) return real(file, bytes, count);
    pthread_mutex_lock(&lock);
    enum effect effect = effect_on("write", path);
    ssize_t written = effect == FAIL ? -1 : real(file, bytes, shortened(effect, count));
    if (written > 0)
        record(bytes, written, "write\t%d\t%ld\t%zd\t", file, (long)lseek(file, 0, SEEK_CUR) - written, written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    if (!path_of(file)) return real(file, parts, count);
    // Fewer than all is a right answer too, and nothing in a node writes files with this call.
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write(file, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    REAL(pwrite);
    char *path = path_of(file);
    if (!path) return real(file, bytes, count, offset);
    pthread_mutex_lock(&lock);
    enum effect effect = effect_on("pwrite", path);
    ssize_t written = effect == FAIL ? -1 : real(file, bytes, shortened(effect, count), offset);
    if (written > 0) record(bytes, written, "write\t%d\t%ld\t%zd\t", file, (long)offset, written);
    pthread_mutex_unlock(&lock);
    return written;
}
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    return pwrite(file, bytes, count, offset);
}

int ftruncate(int file, off_t size) {
    REAL(ftruncate);
    char *path = path_of(file);
    if (!path) return real(file, size);
    pthread_mutex_lock(&lock);
    int result = effect_on("ftruncate", path) == FAIL ? -1 : real(file, size);
    if (!result) record(NULL, 0, "size\t%d\t%ld\t", file, (long)size);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int file, off64_t size) { return ftruncate(file, size); }

// Space beyond a file's end is not seen by anybody, unless the size grows with it.
static int allocate(int file, int mode, off_t offset, off_t length, int (*real)(int, int, off_t, off_t)) {
    char *path = path_of(file);
    if (!path) return real(file, mode, offset, length);
    pthread_mutex_lock(&lock);
    int result = effect_on("fallocate", path) == FAIL ? -1 : real(file, mode, offset, length);
    struct stat status;
    if (!result && !fstat(file, &status)) record(NULL, 0, "size\t%d\t%ld\t", file, (long)status.st_size);
    pthread_mutex_unlock(&lock);
    return result;
}
int fallocate(int file, int mode, off_t offset, off_t length) {
    REAL(fallocate);
    return allocate(file, mode, offset, length, real);
}
int fallocate64(int file, int mode, off64_t offset, off64_t length) { return fallocate(file, mode, offset, length); }
int posix_fallocate(int file, off_t offset, off_t length) { return fallocate(file, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int file, off64_t offset, off64_t length) { return posix_fallocate(file, offset, length); }

// Durable is what had happened when it began, and only once it has ended; others may write meanwhile.
static int synced(int (*real)(int), const char *call, int file) {
    char *path = path_of(file);
    if (!path) return real(file);
    pthread_mutex_lock(&lock);
    long begun = now();
    enum effect effect = effect_on(call, path);
    pthread_mutex_unlock(&lock);
    if (effect == FAIL) return -1;
    int result = real(file);
    pthread_mutex_lock(&lock);
    if (!result) record(NULL, 0, "sync\t%d\t%ld\t", file, begun);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int file) {
    REAL(fsync);
    return synced(real, "fsync", file);
}
int fdatasync(int file) {
    REAL(fdatasync);
    return synced(real, "fdatasync", file);
}

// ---- names ---------------------------------------------------------------------------------------------

#define NAME(name, kind, parameters, values, path) \
    int name parameters { \
        REAL(name); \
        if (!is_watched(path)) return real values; \
        pthread_mutex_lock(&lock); \
        int result = effect_on(kind, path) == FAIL ? -1 : real values; \
        if (!result) record(NULL, 0, kind "\t%s", path); \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
NAME(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode), path)
NAME(rmdir, "rmdir", (const char *path), (path), path)
NAME(unlink, "unlink", (const char *path), (path), path)

int remove(const char *path) {
    REAL(remove);
    struct stat status;
    if (!is_watched(path)) return real(path);
    return !lstat(path, &status) && S_ISDIR(status.st_mode) ? rmdir(path) : unlink(path);
}

#define TWO_NAMES(name) \
    int name(const char *from, const char *to) { \
        REAL(name); \
        if (!is_watched(from)) return real(from, to); \
        pthread_mutex_lock(&lock); \
        int result = effect_on(#name, to) == FAIL ? -1 : real(from, to); \
        if (!result) record(NULL, 0, #name "\t%s\t%s", from, to); \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
TWO_NAMES(rename)
TWO_NAMES(link)
