/* SPDX-License-Identifier: Apache-2.0
 *
 * What the index knows is what lies in the directory: `bytes` and `reserved` are charged before a file is written and
 * taken back when it is gone, so that the directory never exceeds its bound, temporary files included. */
#include "handler/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "handler/cache_internal.h"
#include "handler/content_map.h"

#define COMPLAIN_EVERY_NS (60 * NX_NS_PER_S)

struct file {
  struct nx__content node; /* first; its hash is the key */
  uint64_t bytes;          /* charged */
  int64_t used_ns;         /* only while the directory is scanned */
};

struct nx_cache {
  int dir_fd;
  uint64_t max_bytes;
  struct nx_image *base;
  char *guest_id;
  struct nx_account *account;
  pthread_mutex_t lock;
  /* Synchronization: lock. */
  bool owner;
  struct nx__content_map files; /* in order of use, all of them */
  uint64_t bytes, reserved, foreign_bytes;
  uint64_t complained_ns, complaints_held_back;
  /* Synchronization: relaxed counters. */
  _Atomic uint64_t hits, misses, rejected, store_failures, evictions;
};

static void lock(struct nx_cache *cache) { pthread_mutex_lock(&cache->lock); }
static void unlock(struct nx_cache *cache) { pthread_mutex_unlock(&cache->lock); }
static void count(_Atomic uint64_t *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_relaxed); }

/* What a file of this size takes on a tmpfs. */
static uint64_t charge_of(uint64_t size) { return (size + NX_PAGE_BYTES - 1) / NX_PAGE_BYTES * NX_PAGE_BYTES; }

/* ---- Index: all under the lock ---------------------------------------------------------------------------------- */

static struct file *find(struct nx_cache *cache, const uint8_t *key) {
  return (struct file *)nx__content_find(&cache->files, key);
}

static void forget(struct nx_cache *cache, struct file *file) {
  nx__content_remove(&cache->files, &file->node);
  cache->bytes -= file->bytes;
  free(file);
}

static void insert(struct nx_cache *cache, struct file *file) {
  nx__content_insert(&cache->files, &file->node);
  nx__content_touch(&cache->files, &file->node);
  cache->bytes += file->bytes;
}

static uint64_t delete_oldest(struct nx_cache *cache) {
  struct file *file = (struct file *)cache->files.oldest;
  uint64_t bytes = file->bytes;
  char name[NX__CACHE_NAME_BYTES];
  nx__cache_name(name, file->node.hash);
  unlinkat(cache->dir_fd, name, 0);
  forget(cache, file);
  count(&cache->evictions);
  return bytes;
}

static bool over(const struct nx_cache *cache, uint64_t more) {
  uint64_t used = cache->bytes + cache->reserved + cache->foreign_bytes;
  return used + more > cache->max_bytes;
}

/* Room for `charge` more, by deleting the least recently used; false when nothing is left to delete. */
static bool make_room(struct nx_cache *cache, uint64_t charge) {
  uint64_t fixed = cache->reserved + cache->foreign_bytes;
  if (charge + fixed > cache->max_bytes) return false; /* would delete all and still not fit */
  while (over(cache, charge) && cache->files.oldest) delete_oldest(cache);
  return !over(cache, charge);
}

/* A file that is new to the index: just stored, or left by another process. It may be gone again, as files are written
 * and read without the lock; and without memory to know it, it must go. */
static void adopt(struct nx_cache *cache, const uint8_t *key, const char *name, uint64_t charge) {
  if (find(cache, key) || faccessat(cache->dir_fd, name, F_OK, 0)) return;
  struct file *file = calloc(1, sizeof *file);
  if (!file) {
    unlinkat(cache->dir_fd, name, 0);
    return;
  }
  memcpy(file->node.hash, key, NX__CACHE_KEY_BYTES);
  file->bytes = charge;
  insert(cache, file);
  while (over(cache, 0) && cache->files.oldest) delete_oldest(cache);
}

/* ---- Scan ------------------------------------------------------------------------------------------------------- */

struct found {
  struct file **files;
  size_t count, capacity;
};

static bool remember(struct found *found, const uint8_t *key, const struct stat *st) {
  if (found->count == found->capacity) {
    size_t capacity = found->capacity ? 2 * found->capacity : 64;
    struct file **files = realloc(found->files, capacity * sizeof *files);
    if (!files) return false;
    found->files = files;
    found->capacity = capacity;
  }
  struct file *file = calloc(1, sizeof *file);
  if (!file) return false;
  memcpy(file->node.hash, key, NX__CACHE_KEY_BYTES);
  file->bytes = charge_of((uint64_t)st->st_size);
  file->used_ns = (int64_t)st->st_mtim.tv_sec * (int64_t)NX_NS_PER_S + st->st_mtim.tv_nsec;
  found->files[found->count++] = file;
  return true;
}

static void scan_name(struct nx_cache *cache, struct found *found, const char *name) {
  uint8_t key[NX__CACHE_KEY_BYTES];
  struct stat st;
  if (fstatat(cache->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW)) return;
  bool temp = nx__cache_is_temp(name), ours = !temp && nx__cache_name_parse(key, name);
  if (ours && !nx__cache_stat_fault(&st) && remember(found, key, &st)) return;
  if ((temp || ours) && !unlinkat(cache->dir_fd, name, 0)) return;
  cache->foreign_bytes += (uint64_t)st.st_blocks * 512;
}

static int older_first(const void *a, const void *b) {
  int64_t left = (*(struct file *const *)a)->used_ns, right = (*(struct file *const *)b)->used_ns;
  return (left > right) - (left < right);
}

/* Fills the index from the directory and trims both. */
static bool scan(struct nx_cache *cache) {
  int fd = openat(cache->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
  if (!dir) {
    nx_fs_close(&fd);
    return false;
  }
  struct found found = {0};
  for (const struct dirent *item; (item = readdir(dir));)
    if (strcmp(item->d_name, ".") && strcmp(item->d_name, "..")) scan_name(cache, &found, item->d_name);
  closedir(dir);
  if (found.count) qsort(found.files, found.count, sizeof *found.files, older_first);
  for (size_t i = 0; i < found.count; i++) insert(cache, found.files[i]);
  free(found.files);
  while (over(cache, 0) && cache->files.oldest) delete_oldest(cache);
  return true;
}

/* Under the lock (or before others know the cache). Where locks do not exist nobody else can hold one. */
static bool become_owner(struct nx_cache *cache) {
  if (cache->owner) return true;
  if (flock(cache->dir_fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) return false;
  cache->owner = scan(cache);
  return cache->owner;
}

/* ---- Load ------------------------------------------------------------------------------------------------------- */

static struct nx_image *reject(struct nx_cache *cache, const char *name, const char *why) {
  count(&cache->rejected);
  nx_log(NX_LOG_WARN, "compile cache file rejected", "file", name, "reason", why, NULL);
  lock(cache);
  uint8_t key[NX__CACHE_KEY_BYTES];
  struct file *file = nx__cache_name_parse(key, name) ? find(cache, key) : NULL;
  if (cache->owner && !unlinkat(cache->dir_fd, name, 0) && file) forget(cache, file);
  unlock(cache);
  return NULL;
}

static void note_use(struct nx_cache *cache, const uint8_t *key, const char *name, int fd, uint64_t size) {
  lock(cache);
  struct file *file = find(cache, key);
  bool owner = cache->owner;
  if (file) nx__content_touch(&cache->files, &file->node);
  if (!file && owner) adopt(cache, key, name, charge_of(size));
  unlock(cache);
  if (owner) futimens(fd, NULL); /* the order of use survives a restart; harmless when it fails */
}

/* Somebody deleted the file; when the index still had it, a store would leave it out for ever. */
static struct nx_image *note_absence(struct nx_cache *cache, const uint8_t *key, const char *name) {
  lock(cache);
  struct file *file = find(cache, key);
  if (file && faccessat(cache->dir_fd, name, F_OK, 0)) forget(cache, file);
  unlock(cache);
  return NULL;
}

static int read_file(void *fd, void *to, size_t bytes, struct nx_error *err) {
  for (uint8_t *at = to; bytes;) {
    ssize_t n = read(*(const int *)fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return nx_error_sys(err, "cannot read it");
    if (!n) return nx_error_set(err, NX_ERR_SYSTEM, "it became shorter");
    at += n;
    bytes -= (size_t)n;
  }
  return 0;
}

/* It may be whole: it stays. */
static struct nx_image *leave(const char *name, const char *why) {
  if (nx_log_take()) nx_log(NX_LOG_WARN, "compile cache file cannot be read", "file", name, "reason", why, NULL);
  return NULL;
}

static struct nx_image *read_image(struct nx_cache *cache, const uint8_t *key, const char *name) {
  NX_FD_AUTO fd = openat(cache->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return note_absence(cache, key, name);
  if (fd < 0 && errno == ELOOP) return reject(cache, name, "a symbolic link");
  struct stat st;
  if (fd < 0 || fstat(fd, &st)) return leave(name, strerrordesc_np(errno));
  const char *fault = nx__cache_stat_fault(&st);
  if (!fault && (uint64_t)st.st_size > cache->max_bytes) fault = "larger than the whole cache may be";
  if (fault) return reject(cache, name, fault);
  struct nx_image_source source = {.read = read_file, .self = &fd, .bytes = (size_t)st.st_size};
  struct nx_image *image = NULL;
  struct nx_error err = {0};
  int status = nx__cache_file_decode(&image, key, cache->base, cache->account, source, &err);
  if (status == -NX_ERR_INVALID) return reject(cache, name, err.text);
  if (status == -NX_ERR_SYSTEM) return leave(name, err.text);
  if (status) return NULL;
  note_use(cache, key, name, fd, source.bytes);
  return image;
}

struct nx_image *nx_cache_load(struct nx_cache *cache, const uint8_t source_hash[NX_HASH_BYTES]) {
  if (!cache) return NULL;
  uint8_t key[NX__CACHE_KEY_BYTES];
  char name[NX__CACHE_NAME_BYTES];
  nx__cache_key(key, source_hash, cache->base, cache->guest_id);
  nx__cache_name(name, key);
  struct nx_image *image = read_image(cache, key, name);
  count(image ? &cache->hits : &cache->misses);
  return image;
}

/* ---- Store ------------------------------------------------------------------------------------------------------ */

static void complain(struct nx_cache *cache, const char *reason) {
  count(&cache->store_failures);
  lock(cache);
  uint64_t now = nx_clock_ns(), held_back = cache->complaints_held_back;
  bool silent = cache->complained_ns && now - cache->complained_ns < COMPLAIN_EVERY_NS;
  cache->complaints_held_back = silent ? held_back + 1 : 0;
  if (!silent) cache->complained_ns = now;
  unlock(cache);
  if (silent) return;
  char times[24];
  snprintf(times, sizeof times, "%llu", (unsigned long long)held_back);
  nx_log(NX_LOG_WARN, "cannot store in the compile cache", "reason", reason, "notLogged", times, NULL);
}

/* Is there something to write, and room for it? Then `charge` is reserved. */
static bool reserve(struct nx_cache *cache, const uint8_t *key, uint64_t charge) {
  lock(cache);
  struct file *file = become_owner(cache) ? find(cache, key) : NULL;
  if (file) nx__content_touch(&cache->files, &file->node);
  bool write = cache->owner && !file && make_room(cache, charge);
  if (write) cache->reserved += charge;
  unlock(cache);
  return write;
}

/* The reservation becomes the file's charge; or it ends, and so does a file that failed at its last step. */
static void settle(struct nx_cache *cache, const uint8_t *key, const char *name, uint64_t charge, bool stored) {
  lock(cache);
  cache->reserved -= charge;
  if (stored)
    adopt(cache, key, name, charge);
  else if (!find(cache, key))
    unlinkat(cache->dir_fd, name, 0);
  unlock(cache);
}

bool nx_cache_store(struct nx_cache *cache, const uint8_t source_hash[NX_HASH_BYTES], const struct nx_image *image) {
  if (!cache) return false;
  uint8_t key[NX__CACHE_KEY_BYTES];
  char name[NX__CACHE_NAME_BYTES];
  nx__cache_key(key, source_hash, cache->base, cache->guest_id);
  nx__cache_name(name, key);
  NX_BUF_AUTO content = {.limit = NX__CACHE_MAX_FILE};
  nx__cache_file_encode(&content, key, image);
  if (content.failed) {
    complain(cache, "no memory for the file");
    return false;
  }
  uint64_t charge = charge_of(content.len);
  if (!reserve(cache, key, charge)) return false;
  struct nx_error err = {0};
  bool stored = !nx_fs_write_atomic(cache->dir_fd, name, content.data, content.len, &err);
  if (!stored) complain(cache, err.text);
  settle(cache, key, name, charge, stored);
  return stored;
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

uint64_t nx_cache_trim(struct nx_cache *cache, uint64_t keep_bytes) {
  uint64_t freed = 0;
  if (!cache) return 0;
  lock(cache);
  while (cache->bytes > keep_bytes && cache->files.oldest) freed += delete_oldest(cache);
  unlock(cache);
  return freed;
}

void nx_cache_read_stats(struct nx_cache *cache, struct nx_cache_stats *out) {
  *out = (struct nx_cache_stats){0};
  if (!cache) return;
  lock(cache);
  *out = (struct nx_cache_stats){
    .enabled = true,
    .owner = cache->owner,
    .hits = cache->hits,
    .misses = cache->misses,
    .rejected = cache->rejected,
    .store_failures = cache->store_failures,
    .evictions = cache->evictions,
    .files = cache->files.count,
    .bytes = cache->bytes,
    .foreign_bytes = cache->foreign_bytes,
    .max_bytes = cache->max_bytes,
  };
  unlock(cache);
}

static struct nx_cache *disabled(const struct nx_cache_opts *opts, const char *reason) {
  nx_log(NX_LOG_WARN, "compile cache disabled", "dir", opts->dir, "reason", reason, NULL);
  return NULL;
}

struct nx_cache *nx_cache_open(const struct nx_cache_opts *opts) {
  struct nx_error err = {0};
  if (!opts->max_bytes) return disabled(opts, "its size is configured as 0");
  NX_FD_AUTO fd = nx__cache_dir_open(opts->dir, &err);
  if (fd < 0) return disabled(opts, err.text);
  struct nx_cache *cache = calloc(1, sizeof *cache);
  char *guest_id = strdup(opts->guest_id);
  if (!cache || !guest_id || !nx__content_map_init(&cache->files)) {
    free(guest_id);
    free(cache);
    return disabled(opts, "no memory");
  }
  cache->dir_fd = fd;
  fd = -1;
  cache->guest_id = guest_id;
  cache->account = opts->account;
  cache->max_bytes = opts->max_bytes;
  cache->base = nx_image_hold(opts->base);
  pthread_mutex_init(&cache->lock, NULL);
  if (!become_owner(cache))
    nx_log(NX_LOG_WARN, "compile cache is read only", "dir", opts->dir, "reason",
           "another process uses it, or it cannot be listed", NULL);
  return cache;
}

void nx_cache_close(struct nx_cache *cache) {
  if (!cache) return;
  while (cache->files.oldest) forget(cache, (struct file *)cache->files.oldest);
  nx__content_map_deinit(&cache->files);
  pthread_mutex_destroy(&cache->lock);
  nx_image_release(cache->base);
  close(cache->dir_fd);
  free(cache->guest_id);
  free(cache);
}
