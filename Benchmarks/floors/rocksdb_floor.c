// The least that storing and finding a value costs on this machine: RocksDB called from C by one thread, with the options
// of a storage node that matter here, keys key-00000000 … and values of 100 bytes.
//
//   rocksdb_floor DIRECTORY KEYS OPERATIONS SYNCED_BATCHES
//
// DIRECTORY must not exist; it is left behind. One line of output for each operation: its name, then microseconds of
// time and of CPU for each key.
//   put1     one put a write, on an empty database: memtables fill and, with enough operations, are flushed
//   put32    32 puts a write, as a server does that gathers writes
//   sync1    one put a write, each followed by fsync
//   sync32   32 puts a write, each write followed by fsync
//   loaded1  put1 after each of KEYS keys was put: flushes and compactions included
//   get      look-ups after that, of keys that are all there, each looked up once before
#include <rocksdb/c.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUE_BYTES = 100, KEY_BYTES = 12, GROUP = 32 };

static rocksdb_t *db;
static rocksdb_writeoptions_t *plain, *synced;
static rocksdb_readoptions_t *reads;
static uint64_t state = 88172645463325252u, keys;
static char value[VALUE_BYTES];

static void check(char *failure) {
  if (failure == NULL) return;
  fprintf(stderr, "rocksdb_floor: %s\n", failure);
  exit(1);
}

static double seconds(clockid_t which) {
  struct timespec now;
  clock_gettime(which, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t random_number(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// Cheaper than snprintf, which would be a tenth of what is measured.
static void write_key(char *to, uint64_t number) {
  memcpy(to, "key-", 4);
  for (int digit = KEY_BYTES - 1; digit >= 4; digit--, number /= 10) to[digit] = (char)('0' + number % 10);
}

static rocksdb_options_t *node_options(void) {
  rocksdb_options_t *options = rocksdb_options_create();
  rocksdb_options_set_create_if_missing(options, 1);
  rocksdb_options_set_error_if_exists(options, 1);
  rocksdb_options_set_paranoid_checks(options, 1);
  rocksdb_options_set_max_background_jobs(options, 3);
  rocksdb_options_set_info_log_level(options, 4);
  rocksdb_options_set_WAL_size_limit_MB(options, 1024);
  rocksdb_options_set_write_buffer_size(options, (64u << 20) / 3);
  rocksdb_options_set_max_write_buffer_number(options, 3);
  rocksdb_options_set_allow_concurrent_memtable_write(options, 0);
  rocksdb_options_set_memtable_whole_key_filtering(options, 1);
  rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.05);
  rocksdb_options_set_enable_write_thread_adaptive_yield(options, 0);
  rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
  rocksdb_options_set_bytes_per_sync(options, 1 << 20);
  rocksdb_options_set_compression(options, rocksdb_lz4_compression);
  rocksdb_options_set_bottommost_compression(options, rocksdb_zstd_compression);
  rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
  rocksdb_block_based_options_set_block_size(table, 8 << 10);
  rocksdb_block_based_options_set_format_version(table, 5);
  rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(256 << 20));
  rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 0);
  rocksdb_block_based_options_set_whole_key_filtering(table, 1);
  rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
  rocksdb_block_based_options_set_data_block_index_type(
      table, rocksdb_block_based_table_data_block_index_type_binary_search_and_hash);
  rocksdb_options_set_block_based_table_factory(options, table);
  return options;
}

static void put(uint64_t number, int sync) {
  char key[KEY_BYTES], *failure = NULL;
  write_key(key, number);
  rocksdb_put(db, sync ? synced : plain, key, KEY_BYTES, value, VALUE_BYTES, &failure);
  check(failure);
}

static void put_group(int sync) {
  char key[KEY_BYTES], *failure = NULL;
  rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
  for (int i = 0; i < GROUP; i++) {
    write_key(key, random_number() % keys);
    rocksdb_writebatch_put(batch, key, KEY_BYTES, value, VALUE_BYTES);
  }
  rocksdb_write(db, sync ? synced : plain, batch, &failure);
  check(failure);
  rocksdb_writebatch_destroy(batch);
}

static void get(void) {
  char key[KEY_BYTES], *failure = NULL;
  write_key(key, random_number() % keys);
  rocksdb_pinnableslice_t *found = rocksdb_get_pinned(db, reads, key, KEY_BYTES, &failure);
  check(failure);
  if (found == NULL) check("a key that was put is not there");
  rocksdb_pinnableslice_destroy(found);
}

static double wall, cpu;

static void begin(void) {
  wall = seconds(CLOCK_MONOTONIC);
  cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void end(const char *name, double count) {
  printf("%s %.3f %.3f\n", name, (seconds(CLOCK_MONOTONIC) - wall) / count * 1e6,
         (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / count * 1e6);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: rocksdb_floor DIRECTORY KEYS OPERATIONS SYNCED_BATCHES\n");
    return 2;
  }
  keys = strtoull(argv[2], NULL, 10);
  long operations = atol(argv[3]), batches = atol(argv[4]);
  char *failure = NULL;
  for (int i = 0; i < VALUE_BYTES; i++) value[i] = (char)('a' + i * 7 % 26);
  db = rocksdb_open(node_options(), argv[1], &failure);
  check(failure);
  plain = rocksdb_writeoptions_create();
  synced = rocksdb_writeoptions_create();
  rocksdb_writeoptions_set_sync(synced, 1);
  reads = rocksdb_readoptions_create();

  begin();
  for (long i = 0; i < operations; i++) put(random_number() % keys, 0);
  end("put1", operations);
  begin();
  for (long i = 0; i < operations / GROUP; i++) put_group(0);
  end("put32", operations / GROUP * GROUP);
  begin();
  for (long i = 0; i < batches; i++) put(random_number() % keys, 1);
  end("sync1", batches);
  begin();
  for (long i = 0; i < batches; i++) put_group(1);
  end("sync32", batches * GROUP);

  for (uint64_t i = 0; i < keys; i++) put(i * 7368787 % keys, 0);
  begin();
  for (long i = 0; i < operations; i++) put(random_number() % keys, 0);
  end("loaded1", operations);
  for (uint64_t i = 0; i < keys; i++) get();
  begin();
  for (long i = 0; i < operations; i++) get();
  end("get", operations);
  rocksdb_close(db);
}
