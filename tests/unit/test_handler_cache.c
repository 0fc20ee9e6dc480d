/* SPDX-License-Identifier: Apache-2.0
 * The compile cache: round trips, damage, bounds, crashes, several processes and threads. */
#include "handler_support.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "handler/cache.h"
#include "handler/cache_internal.h"
#include "handler/cache_writer.h"

#define CHARGE_OF_ONE_PAGE 8192u /* a page of image and the headers: two pages on a tmpfs */

static struct nx_cache *open_with(const char *dir, uint64_t max_bytes) {
  struct nx_cache_opts opts = {.dir = dir, .max_bytes = max_bytes, .base = base_image, .guest_id = "guest"};
  return nx_cache_open(&opts);
}

static struct nx_cache *open_cache(uint64_t max_bytes) { return open_with(scratch, max_bytes); }

static struct nx_cache_stats stats_of(struct nx_cache *cache) {
  struct nx_cache_stats stats;
  nx_cache_read_stats(cache, &stats);
  return stats;
}

/* A source hash and an image that belong together. */
static void hash_of(uint8_t hash[NX_HASH_BYTES], uint32_t seed) {
  nx_handler_hash_source(hash, (const char *)&seed, sizeof seed);
}

static bool store(struct nx_cache *cache, uint32_t seed, uint32_t pages) {
  uint8_t hash[NX_HASH_BYTES];
  hash_of(hash, seed);
  struct nx_image *image = make_image(seed, pages);
  bool stored = nx_cache_store(cache, hash, image);
  nx_image_release(image);
  return stored;
}

/* A hit must be the very image that was stored. */
static bool load(struct nx_cache *cache, uint32_t seed, uint32_t pages) {
  uint8_t hash[NX_HASH_BYTES];
  hash_of(hash, seed);
  struct nx_image *image = nx_cache_load(cache, hash);
  if (!image) return false;
  struct nx_image *expected = make_image(seed, pages);
  assert_true(same_image(image, expected));
  assert_ptr_equal(image->parent, base_image);
  nx_image_release(expected);
  nx_image_release(image);
  return true;
}

static const char *file_of(uint32_t seed) {
  uint8_t hash[NX_HASH_BYTES], key[NX__CACHE_KEY_BYTES];
  char name[NX__CACHE_NAME_BYTES];
  hash_of(hash, seed);
  nx__cache_key(key, hash, base_image, "guest");
  nx__cache_name(name, key);
  return in_scratch(name);
}

static unsigned files_in(const char *path) {
  DIR *dir = opendir(path);
  assert_non_null(dir);
  unsigned count = 0;
  for (const struct dirent *item; (item = readdir(dir));) count += item->d_name[0] != '.' || strlen(item->d_name) > 2;
  closedir(dir);
  return count;
}

/* ---- Round trips */

static void what_was_stored_is_loaded(void **state) {
  (void)state;
  struct nx_cache *cache = open_cache(1 << 20);
  assert_false(load(cache, 1, 3));
  assert_true(store(cache, 1, 3));
  assert_true(store(cache, 2, 0));
  assert_false(store(cache, 1, 3)); /* there already */
  assert_true(load(cache, 1, 3));
  assert_true(load(cache, 2, 0));
  struct nx_cache_stats stats = stats_of(cache);
  assert_true(stats.enabled && stats.owner);
  assert_int_equal(stats.hits, 2);
  assert_int_equal(stats.misses, 1);
  assert_int_equal(stats.files, 2);
  assert_int_equal(stats.bytes, 4096 * 4 + 4096);
  assert_int_equal(files_in(scratch), 2);
  struct stat st;
  assert_int_equal(stat(file_of(1), &st), 0);
  assert_int_equal(st.st_mode & 07777, 0600);
  nx_cache_close(cache);
  cache = open_cache(1 << 20);
  assert_int_equal(stats_of(cache).files, 2);
  assert_int_equal(stats_of(cache).bytes, 4096 * 4 + 4096);
  assert_true(load(cache, 1, 3));
  nx_cache_close(cache);
}

/* ---- The writer */

static void put(struct nx_cache_writer *writer, uint32_t seed) {
  uint8_t hash[NX_HASH_BYTES];
  hash_of(hash, seed);
  struct nx_image *image = make_image(seed, 1);
  nx_cache_writer_put(writer, hash, image);
  nx_image_release(image);
}

/* Threads of that name. */
static unsigned writers(void) {
  DIR *dir = opendir("/proc/self/task");
  assert_non_null(dir);
  unsigned count = 0;
  for (const struct dirent *item; (item = readdir(dir));) {
    char path[300], name[16] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", item->d_name);
    FILE *file = fopen(path, "re");
    if (!file) continue;
    count += fscanf(file, "%15s", name) == 1 && !strcmp(name, "cache-writer");
    fclose(file);
  }
  closedir(dir);
  return count;
}

static void the_writer_stores_what_it_was_given_and_is_no_thread_before(void **state) {
  (void)state;
  struct nx_cache *cache = open_cache(1 << 20);
  struct nx_cache_writer *writer;
  struct nx_error err;
  assert_int_equal(nx_cache_writer_create(&writer, cache, &err), 0);
  assert_int_equal(writers(), 0);
  nx_cache_writer_destroy(writer);
  assert_int_equal(nx_cache_writer_create(&writer, cache, &err), 0);
  for (uint32_t seed = 1; seed <= 5; seed++) put(writer, seed);
  assert_int_equal(writers(), 1);
  while (nx_cache_writer_pending(writer)) sched_yield();
  assert_int_equal(stats_of(cache).files, 5);
  for (uint32_t seed = 6; seed <= 10; seed++) put(writer, seed);
  nx_cache_writer_destroy(writer);
  for (uint32_t seed = 1; seed <= 10; seed++) assert_true(load(cache, seed, 1));
  nx_cache_close(cache);
}

/* ---- Misses */

static void another_guest_or_base_image_is_a_miss(void **state) {
  (void)state;
  struct nx_cache *cache = open_cache(1 << 20);
  assert_true(store(cache, 1, 1));
  nx_cache_close(cache);
  struct nx_cache_opts opts = {.dir = scratch, .max_bytes = 1 << 20, .base = base_image, .guest_id = "guest2"};
  cache = nx_cache_open(&opts);
  assert_false(load(cache, 1, 1));
  nx_cache_close(cache);
  uint8_t *memory = calloc(1, MEMORY_BYTES);
  memory[100] = 1;
  struct nx_image *other = NULL;
  assert_int_equal(nx_image_create_base(&other, memory, MEMORY_BYTES, base_image->globals, NULL), 0);
  free(memory);
  opts.base = other;
  opts.guest_id = "guest";
  cache = nx_cache_open(&opts);
  assert_false(load(cache, 1, 1));
  assert_int_equal(stats_of(cache).rejected, 0);
  nx_cache_close(cache);
  nx_image_release(other);
}

static void a_null_cache_is_a_disabled_one(void **state) {
  (void)state;
  capture_log();
  assert_null(open_cache(0));
  assert_int_equal(logged("compile cache disabled"), 1);
  assert_false(load(NULL, 1, 1));
  assert_false(store(NULL, 1, 1));
  assert_int_equal(nx_cache_trim(NULL, 0), 0);
  assert_false(stats_of(NULL).enabled);
  nx_cache_close(NULL);
}

/* ---- Damage */

static uint8_t good[3 * 4096];
static size_t good_bytes;

static struct nx_cache *cache_with_one_file(void) {
  struct nx_cache *cache = open_cache(1 << 20);
  assert_true(store(cache, 1, 1));
  int fd = open(file_of(1), O_RDONLY | O_CLOEXEC);
  ssize_t n = read(fd, good, sizeof good);
  assert_true(n > 4096 && n < (ssize_t)sizeof good);
  good_bytes = (size_t)n;
  close(fd);
  capture_log();
  return cache;
}

static void assert_refused(struct nx_cache *cache, const uint8_t *bytes, size_t size) {
  uint64_t before = stats_of(cache).rejected;
  write_bytes(file_of(1), bytes, size);
  assert_false(load(cache, 1, 1));
  assert_int_equal(stats_of(cache).rejected, before + 1);
  assert_false(exists(file_of(1)));
}

static void every_flipped_byte_is_noticed(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  static const uint8_t flips[] = {0x01, 0x80, 0xff};
  for (size_t at = 0; at < good_bytes; at++) {
    uint8_t bytes[sizeof good];
    memcpy(bytes, good, good_bytes);
    bytes[at] ^= flips[at % 3];
    assert_refused(cache, bytes, good_bytes);
  }
  assert_true(logged("compile cache file rejected") > 0);
  assert_int_equal(stats_of(cache).files, 0);
  assert_true(store(cache, 1, 1));
  assert_true(load(cache, 1, 1));
  nx_cache_close(cache);
}

static void every_truncation_is_noticed(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  for (size_t size = 0; size < good_bytes; size += size < 300 ? 1 : 7) assert_refused(cache, good, size);
  uint8_t longer[sizeof good] = {0};
  memcpy(longer, good, good_bytes);
  assert_refused(cache, longer, good_bytes + 1);
  assert_refused(cache, longer, good_bytes + 4096);
  nx_cache_close(cache);
}

/* Damage that its own checksum covers: what is left is the image's own check. */
static void forged_content_does_not_load(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  srand(4);
  for (int round = 0; round < 3000; round++) {
    uint8_t bytes[sizeof good], sum[NX_HASH_BYTES];
    memcpy(bytes, good, good_bytes);
    for (int i = 1 + rand() % 4; i; i--) bytes[88 + (size_t)rand() % 100] ^= (uint8_t)(1 + rand() % 255);
    if (!memcmp(bytes, good, good_bytes)) continue;
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, sizeof sum);
    crypto_generichash_update(&hash, bytes, 56);
    crypto_generichash_update(&hash, bytes + 88 + 48, sizeof sum); /* the image's own hash */
    crypto_generichash_final(&hash, sum, sizeof sum);
    memcpy(bytes + 56, sum, sizeof sum);
    assert_refused(cache, bytes, good_bytes);
  }
  nx_cache_close(cache);
}

static void a_file_under_another_name_does_not_load(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  assert_int_equal(link(file_of(1), file_of(2)), 0);
  assert_false(load(cache, 2, 1));
  assert_false(exists(file_of(2)));
  assert_true(load(cache, 1, 1));
  nx_cache_close(cache);
}

static void files_that_others_could_have_made_do_not_load(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  assert_int_equal(chmod(file_of(1), 0620), 0);
  assert_false(load(cache, 1, 1));
  assert_int_equal(logged("others may write to it"), 1);
  write_bytes(in_scratch("elsewhere"), good, good_bytes);
  assert_int_equal(symlink(in_scratch("elsewhere"), file_of(1)), 0);
  assert_false(load(cache, 1, 1));
  assert_false(exists(file_of(1)));
  assert_true(exists(in_scratch("elsewhere")));
  assert_int_equal(mkfifo(file_of(1), 0600), 0);
  assert_false(load(cache, 1, 1)); /* and does not wait for a writer */
  assert_false(exists(file_of(1)));
  assert_int_equal(mkdir(file_of(1), 0700), 0);
  assert_false(load(cache, 1, 1));
  assert_true(exists(file_of(1))); /* a directory is nothing we made: it stays, and costs a cache entry */
  assert_int_equal(stats_of(cache).files, 0);
  rmdir(file_of(1));
  if (geteuid() == 0) {
    write_bytes(file_of(1), good, good_bytes);
    assert_int_equal(chown(file_of(1), 1234, 1234), 0);
    assert_false(load(cache, 1, 1));
    assert_int_equal(logged("owned by another user"), 1);
  }
  nx_cache_close(cache);
}

/* A file of a size that memory could not bear is refused before it is read. */
static void a_huge_file_is_not_read(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  assert_int_equal(truncate(file_of(1), (off_t)1 << 29), 0);
  assert_false(load(cache, 1, 1));
  assert_false(exists(file_of(1)));
  nx_cache_close(cache);
}

static void a_deleted_file_is_stored_again(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  assert_int_equal(unlink(file_of(1)), 0);
  assert_false(load(cache, 1, 1));
  assert_int_equal(stats_of(cache).bytes, 0);
  assert_true(store(cache, 1, 1));
  assert_true(load(cache, 1, 1));
  nx_cache_close(cache);
}

/* ---- What lies in the directory at the start */

static void leftovers_are_cleared_and_foreign_files_counted(void **state) {
  (void)state;
  struct nx_cache *cache = open_cache(1 << 20);
  assert_true(store(cache, 1, 1));
  nx_cache_close(cache);
  write_text(in_scratch(".nx-tmp-0123456789abcdef"), "half");
  write_text(in_scratch("notes.nxi"), "not our naming");
  write_text(in_scratch("README"), "hello");
  char hex[80];
  memset(hex, 'A', 64); /* upper case: not a name we make */
  strcpy(hex + 64, ".nxi");
  write_text(in_scratch(hex), "x");
  memset(hex, 'a', 64);
  write_text(in_scratch(hex), "too short to be one of ours");
  hex[0] = 'b';
  assert_int_equal(symlink("README", in_scratch(hex)), 0);
  cache = open_cache(1 << 20);
  struct nx_cache_stats stats = stats_of(cache);
  assert_int_equal(stats.files, 1);
  assert_int_equal(stats.foreign_bytes, 3 * 4096);
  assert_int_equal(files_in(scratch), 4);
  assert_true(exists(in_scratch("README")) && exists(in_scratch("notes.nxi")));
  assert_true(load(cache, 1, 1));
  nx_cache_close(cache);
}

static void set_age(uint32_t seed, time_t seconds) {
  struct timespec times[2] = {{.tv_sec = time(NULL) - seconds}, {.tv_sec = time(NULL) - seconds}};
  assert_int_equal(utimensat(AT_FDCWD, file_of(seed), times, 0), 0);
}

static void the_order_of_use_survives_a_restart(void **state) {
  (void)state;
  struct nx_cache *cache = open_cache(1 << 20);
  for (uint32_t i = 0; i < 4; i++) {
    assert_true(store(cache, i, 1));
    set_age(i, 1000 - i);
  }
  assert_true(load(cache, 0, 1)); /* the oldest is used: its time becomes now */
  nx_cache_close(cache);
  cache = open_cache(2 * CHARGE_OF_ONE_PAGE); /* trimmed at once */
  struct nx_cache_stats stats = stats_of(cache);
  assert_int_equal(stats.files, 2);
  assert_int_equal(stats.evictions, 2);
  assert_int_equal(files_in(scratch), 2);
  assert_true(load(cache, 0, 1) && load(cache, 3, 1));
  assert_false(load(cache, 1, 1) || load(cache, 2, 1));
  nx_cache_close(cache);
}

/* ---- Bounds */

static void the_least_recently_used_make_room(void **state) {
  (void)state;
  struct nx_cache *cache = open_cache(3 * CHARGE_OF_ONE_PAGE);
  for (uint32_t i = 0; i < 3; i++) assert_true(store(cache, i, 1));
  assert_true(load(cache, 0, 1));
  assert_true(store(cache, 3, 1));
  assert_false(load(cache, 1, 1));
  assert_true(load(cache, 0, 1) && load(cache, 2, 1) && load(cache, 3, 1));
  assert_false(store(cache, 4, 6)); /* larger than all: nothing is deleted for it */
  assert_int_equal(stats_of(cache).files, 3);
  assert_true(store(cache, 5, 5)); /* as large as all */
  struct nx_cache_stats stats = stats_of(cache);
  assert_int_equal(stats.files, 1);
  assert_int_equal(stats.bytes, 3 * CHARGE_OF_ONE_PAGE);
  assert_int_equal(files_in(scratch), 1);
  assert_int_equal(nx_cache_trim(cache, 1 << 20), 0);
  assert_int_equal(nx_cache_trim(cache, 0), 3 * CHARGE_OF_ONE_PAGE);
  assert_int_equal(files_in(scratch), 0);
  nx_cache_close(cache);
}

static void foreign_files_take_from_the_bound(void **state) {
  (void)state;
  char big[8192] = "x";
  write_bytes(in_scratch("foreign"), big, sizeof big);
  struct nx_cache *cache = open_cache(2 * CHARGE_OF_ONE_PAGE);
  assert_int_equal(stats_of(cache).foreign_bytes, 8192);
  assert_true(store(cache, 1, 1));
  assert_true(store(cache, 2, 1));
  assert_int_equal(stats_of(cache).files, 1);
  nx_cache_close(cache);
}

/* ---- Files that cannot be read now */

static void without_a_descriptor_it_is_a_miss_and_logged(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  struct rlimit old, none;
  getrlimit(RLIMIT_NOFILE, &old);
  none = old;
  none.rlim_cur = 3; /* the standard ones */
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  bool loaded = load(cache, 1, 1);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
  assert_false(loaded);
  assert_int_equal(logged("cannot be read"), 1);
  assert_int_equal(stats_of(cache).rejected, 0);
  assert_true(load(cache, 1, 1));
  nx_cache_close(cache);
}

/* ---- Stores that fail */

static void a_full_disk_is_harmless_and_logged_once(void **state) {
  (void)state;
  struct nx_cache *cache = cache_with_one_file();
  struct rlimit old, small;
  getrlimit(RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 4096;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  for (uint32_t i = 10; i < 20; i++) assert_false(store(cache, i, 1));
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  struct nx_cache_stats stats = stats_of(cache);
  assert_int_equal(stats.store_failures, 10);
  assert_int_equal(stats.files, 1);
  assert_int_equal(stats.bytes, CHARGE_OF_ONE_PAGE);
  assert_int_equal(files_in(scratch), 1); /* no temporary file stays */
  assert_int_equal(logged("cannot store"), 1);
  assert_true(store(cache, 10, 1));
  nx_cache_close(cache);
}

/* ---- The directory */

static void assert_disabled(const char *dir, const char *why) {
  capture_log();
  struct nx_cache *cache = open_with(dir, 1 << 20);
  if (cache || !logged(why)) fail_msg("%s: expected to be disabled because of: %s", dir, why);
}

static void it_is_created_private(void **state) {
  (void)state;
  struct nx_cache *cache = open_with(in_scratch("a/b"), 1 << 20);
  assert_non_null(cache);
  struct stat st;
  assert_int_equal(stat(in_scratch("a/b"), &st), 0);
  assert_int_equal(st.st_mode & 07777, 0700);
  nx_cache_close(cache);
}

static void what_is_no_directory_disables(void **state) {
  (void)state;
  write_text(in_scratch("file"), "x");
  mkdir(in_scratch("real"), 0700);
  assert_int_equal(symlink("real", in_scratch("link")), 0);
  assert_int_equal(symlink("nowhere", in_scratch("dangling")), 0);
  assert_disabled(in_scratch("file"), "Not a directory");
  assert_disabled(in_scratch("link"), "symbolic link");
  assert_disabled(in_scratch("dangling"), "reason");
  assert_disabled("", "reason");
  assert_int_equal(files_in(in_scratch("real")), 0);
}

static const char *private_name(const char *dir) {
  static char path[256];
  snprintf(path, sizeof path, "%s/nexus-%u", dir, (unsigned)geteuid());
  return path;
}

static void a_shared_one_gets_a_private_subdirectory(void **state) {
  (void)state;
  static const mode_t modes[] = {0777, 02777, 01777, 0770};
  for (size_t i = 0; i < 4; i++) {
    char dir[200];
    snprintf(dir, sizeof dir, "%s/shared%zu", scratch, i);
    mkdir(dir, 0700);
    assert_int_equal(chmod(dir, modes[i]), 0);
    struct nx_cache *cache = open_with(dir, 1 << 20);
    assert_non_null(cache);
    assert_true(store(cache, 1, 1));
    struct stat st;
    assert_int_equal(stat(private_name(dir), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(files_in(dir), 1);
    assert_int_equal(files_in(private_name(dir)), 1);
    nx_cache_close(cache);
    cache = open_with(dir, 1 << 20);
    assert_true(load(cache, 1, 1));
    nx_cache_close(cache);
  }
}

static void a_planted_subdirectory_disables(void **state) {
  (void)state;
  char dir[200];
  snprintf(dir, sizeof dir, "%s/shared", scratch);
  mkdir(dir, 0700);
  assert_int_equal(chmod(dir, 01777), 0);
  mkdir(in_scratch("target"), 0700);
  assert_int_equal(symlink("../target", private_name(dir)), 0);
  assert_disabled(dir, "symbolic link");
  unlink(private_name(dir));
  write_text(private_name(dir), "x");
  assert_disabled(dir, "symbolic link or not a directory");
  unlink(private_name(dir));
  mkdir(private_name(dir), 0700);
  assert_int_equal(chmod(private_name(dir), 0777), 0);
  assert_disabled(dir, "not ours alone");
  if (geteuid() == 0) {
    assert_int_equal(chmod(private_name(dir), 0700), 0);
    assert_int_equal(chown(private_name(dir), 1234, 1234), 0);
    assert_disabled(dir, "not ours alone");
    assert_int_equal(chown(dir, 1234, 1234), 0);
    assert_disabled(dir, "belongs to uid 1234");
  }
}

/* As a container runs: another uid than root's, in a directory that root made. 0 when `check` held. */
static int as_nobody(bool (*check)(const char *dir), const char *dir) {
  pid_t child = fork();
  if (!child) {
    if (setgid(4321) || setuid(4321)) _exit(2);
    _exit(check(dir) ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static bool stores_and_loads(const char *dir) {
  struct nx_cache *cache = open_with(dir, 1 << 20);
  bool good_here = cache && store(cache, 1, 1) && load(cache, 1, 1);
  nx_cache_close(cache);
  return good_here;
}

static bool is_disabled(const char *dir) { return !open_with(dir, 1 << 20) && logged("Permission denied"); }

static bool fails_softly(const char *dir) {
  char own[256];
  snprintf(own, sizeof own, "%s/own", dir);
  struct nx_cache *cache = open_with(own, 1 << 20);
  bool first = cache && store(cache, 1, 1) && !chmod(own, 0500);
  bool second = first && !store(cache, 2, 1) && load(cache, 1, 1) && stats_of(cache).store_failures == 1;
  nx_cache_close(cache);
  return second;
}

static void as_an_unprivileged_user(void **state) {
  (void)state;
  if (geteuid()) skip();
  capture_log();
  assert_int_equal(chmod(scratch, 0755), 0);
  char dir[200];
  snprintf(dir, sizeof dir, "%s/volume", scratch);
  mkdir(dir, 0700);
  assert_int_equal(chmod(dir, 0755), 0);
  assert_int_equal(as_nobody(is_disabled, dir), 0);
  assert_int_equal(chmod(dir, 0777), 0); /* tmpfs emptyDir */
  assert_int_equal(as_nobody(stores_and_loads, dir), 0);
  assert_int_equal(as_nobody(stores_and_loads, dir) >> 8, 1); /* stored already: a restart finds it */
  assert_int_equal(chown(dir, 0, 4321), 0);
  assert_int_equal(chmod(dir, 02770), 0); /* the same with an fsGroup */
  assert_int_equal(as_nobody(fails_softly, dir), 0);
}

/* ---- Several processes */

static void a_second_process_only_reads_until_the_first_is_gone(void **state) {
  (void)state;
  struct nx_cache *first = cache_with_one_file(), *second = open_cache(CHARGE_OF_ONE_PAGE);
  assert_false(stats_of(second).owner);
  assert_int_equal(logged("read only"), 1);
  assert_true(load(second, 1, 1));
  assert_false(store(second, 2, 1));
  write_bytes(file_of(3), "damaged, but not ours to delete", 31);
  assert_false(load(second, 3, 1));
  assert_true(exists(file_of(3)));
  assert_int_equal(nx_cache_trim(second, 0), 0);
  assert_true(load(first, 1, 1));
  nx_cache_close(first);
  assert_true(store(second, 2, 1)); /* becomes the owner, and keeps to its bound */
  assert_true(stats_of(second).owner);
  assert_int_equal(stats_of(second).files, 1);
  assert_false(exists(file_of(1)));
  assert_false(exists(file_of(3)));
  nx_cache_close(second);
}

static void a_killed_process_leaves_nothing_that_loads_wrong(void **state) {
  (void)state;
  srand(5);
  for (int round = 0; round < 25; round++) {
    pid_t child = fork();
    if (!child) {
      struct nx_cache *cache = open_cache(20 * CHARGE_OF_ONE_PAGE);
      for (uint32_t i = (uint32_t)round * 7;; i++) store(cache, i % 64, 1 + i % 3);
    }
    usleep(1000 + (useconds_t)rand() % 30000);
    kill(child, SIGKILL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct nx_cache *cache = open_cache(20 * CHARGE_OF_ONE_PAGE);
    struct nx_cache_stats stats = stats_of(cache);
    assert_true(stats.owner && stats.bytes <= 20 * CHARGE_OF_ONE_PAGE && !stats.foreign_bytes);
    assert_int_equal(files_in(scratch), stats.files);
    uint64_t found = 0;
    for (uint32_t seed = 0; seed < 64; seed++) {
      uint8_t hash[NX_HASH_BYTES];
      hash_of(hash, seed);
      struct nx_image *image = nx_cache_load(cache, hash);
      if (!image) continue;
      struct nx_image *expected = make_image(seed, image->page_count);
      assert_true(image->page_count >= 1 && same_image(image, expected));
      nx_image_release(expected);
      nx_image_release(image);
      found++;
    }
    assert_int_equal(stats_of(cache).rejected, 0);
    assert_int_equal(found, stats.files);
    nx_cache_close(cache);
  }
}

/* ---- Threads */

static struct nx_cache *shared_cache;

static void *hammer(void *opaque) {
  unsigned seed = (unsigned)(uintptr_t)opaque;
  for (int i = 0; i < 300; i++) {
    uint32_t which = (uint32_t)rand_r(&seed) % 12, pages = 1 + which % 3;
    uint8_t hash[NX_HASH_BYTES];
    hash_of(hash, which);
    struct nx_image *image = nx_cache_load(shared_cache, hash), *expected = make_image(which, pages);
    if (image && !same_image(image, expected)) abort();
    if (!image) nx_cache_store(shared_cache, hash, expected);
    if (i % 50 == 0) nx_cache_trim(shared_cache, 2 * CHARGE_OF_ONE_PAGE);
    if (stats_of(shared_cache).bytes > 8 * CHARGE_OF_ONE_PAGE) abort();
    nx_image_release(expected);
    nx_image_release(image);
  }
  return NULL;
}

static void many_threads(void **state) {
  (void)state;
  capture_log();
  shared_cache = open_cache(8 * CHARGE_OF_ONE_PAGE);
  pthread_t threads[4];
  for (uintptr_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, hammer, (void *)(i + 1));
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  struct nx_cache_stats stats = stats_of(shared_cache);
  assert_true(stats.hits > 0 && stats.misses > 0);
  assert_int_equal(stats.rejected, 0);
  assert_int_equal(files_in(scratch), stats.files);
  nx_cache_close(shared_cache);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
  const struct CMUnitTest tests[] = {
    TEST(what_was_stored_is_loaded),
    TEST(another_guest_or_base_image_is_a_miss),
    TEST(a_null_cache_is_a_disabled_one),
    TEST(every_flipped_byte_is_noticed),
    TEST(every_truncation_is_noticed),
    TEST(forged_content_does_not_load),
    TEST(a_file_under_another_name_does_not_load),
    TEST(files_that_others_could_have_made_do_not_load),
    TEST(a_huge_file_is_not_read),
    TEST(a_deleted_file_is_stored_again),
    TEST(leftovers_are_cleared_and_foreign_files_counted),
    TEST(the_order_of_use_survives_a_restart),
    TEST(the_least_recently_used_make_room),
    TEST(foreign_files_take_from_the_bound),
    TEST(without_a_descriptor_it_is_a_miss_and_logged),
    TEST(a_full_disk_is_harmless_and_logged_once),
    TEST(it_is_created_private),
    TEST(what_is_no_directory_disables),
    TEST(a_shared_one_gets_a_private_subdirectory),
    TEST(a_planted_subdirectory_disables),
    TEST(as_an_unprivileged_user),
    TEST(a_second_process_only_reads_until_the_first_is_gone),
    TEST(a_killed_process_leaves_nothing_that_loads_wrong),
    TEST(many_threads),
    TEST(the_writer_stores_what_it_was_given_and_is_no_thread_before),
  };
  return cmocka_run_group_tests(tests, base_setup, base_teardown);
}
