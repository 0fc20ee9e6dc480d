/* SPDX-License-Identifier: Apache-2.0
 *
 * A ConfigMap volume holds symbolic links NAME.js → ..data/NAME.js and ..data → ..2024_…, and is updated by swapping
 * ..data. Files are therefore opened through the directory that ..data named when the look began: source and grants
 * are of one generation, whatever happens meanwhile. */
#include "handler/directory_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sodium.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/log.h"
#include "handler/handler.h"

#define SOURCE_SUFFIX ".js"
#define GRANTS_SUFFIX ".grants.json"

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static bool ends_with(const char *name, const char *suffix) {
  size_t n = strlen(name), m = strlen(suffix);
  return n > m && !strcmp(name + n - m, suffix);
}

static int compare_items(const void *a, const void *b) {
  return strcmp((*(struct nx__dir_item *const *)a)->file, (*(struct nx__dir_item *const *)b)->file);
}

static bool add_item(struct nx__dir_items *list, const char *file) {
  if (list->count == list->capacity) {
    size_t capacity = list->capacity ? 2 * list->capacity : 32;
    struct nx__dir_item **items = realloc(list->items, capacity * sizeof *items);
    if (!items) return false;
    list->items = items;
    list->capacity = capacity;
  }
  struct nx__dir_item *item = calloc(1, sizeof *item + strlen(file) + 1);
  if (!item) return false;
  strcpy(item->file, file);
  list->items[list->count++] = item;
  return true;
}

static void free_items(struct nx__dir_items *list) {
  for (size_t i = 0; i < list->count; i++) free(list->items[i]);
  free(list->items);
  *list = (struct nx__dir_items){0};
}

static bool has_file(const struct nx__dir_items *list, const char *file) {
  size_t low = 0, high = list->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    int order = strcmp(list->items[middle]->file, file);
    if (!order) return true;
    *(order < 0 ? &low : &high) = order < 0 ? middle + 1 : middle;
  }
  return false;
}

/* The sources and grants in the directory, sorted. NULL, or why the list is not whole. */
static const char *read_names(int dir_fd, struct nx__dir_items *list) {
  int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
  if (!dir) {
    nx_fs_close(&fd);
    return strerrordesc_np(errno);
  }
  const char *why = NULL;
  while (!why) {
    errno = 0;
    const struct dirent *entry = readdir(dir);
    if (!entry) {
      if (errno) why = strerrordesc_np(errno);
      break;
    }
    const char *name = entry->d_name;
    if (name[0] == '.' || (!ends_with(name, SOURCE_SUFFIX) && !ends_with(name, GRANTS_SUFFIX))) continue;
    if (list->count == NX_DIRECTORY_MAX_FILES)
      why = "too many files";
    else if (!add_item(list, name))
      why = "no memory";
  }
  closedir(dir);
  if (list->count) qsort(list->items, list->count, sizeof *list->items, compare_items);
  return why;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

struct look {
  int dir_fd, data_fd; /* data_fd: what "..data" names; -1 when there is no such thing */
  struct nx__dir_items found;
};

enum presence { PRESENT, GONE, BAD };

/* What is wrong is said in words that do not change while it stays so: they are hashed to log it once.
 * A link that leads nowhere is a file that is not there. */
static enum presence read_file(const struct look *look, const char *file, size_t max, struct nx_buf *out,
                               struct nx_error *err) {
  int status = look->data_fd < 0 ? -1 : nx_fs_read_file_at(look->data_fd, file, 0, max, out, err);
  if (status && (look->data_fd < 0 || err->sys_errno == ENOENT)) {
    err->sys_errno = 0;
    status = nx_fs_read_file_at(look->dir_fd, file, 0, max, out, err);
  }
  return !status ? PRESENT : err->sys_errno == ENOENT ? GONE : BAD;
}

struct pair {
  char name[NX_HANDLER_NAME_MAX + 1];
  bool has_grants;
  struct nx_buf source, grants;
};

static enum presence read_pair(const struct nx__dir_scan *scan, const struct look *look, const char *file,
                               struct pair *pair, struct nx_error *err) {
  size_t name_bytes = strlen(file) - (sizeof SOURCE_SUFFIX - 1);
  if (!nx_handler_name_valid(file, name_bytes)) {
    nx_error_set(err, NX_ERR_INVALID, "'%.*s' cannot be a handler's name", (int)name_bytes, file);
    return BAD;
  }
  memcpy(pair->name, file, name_bytes);
  pair->name[name_bytes] = '\0';
  enum presence source = read_file(look, file, scan->opts->max_source_bytes, &pair->source, err);
  if (source != PRESENT) return source;
  char grants_file[NX_HANDLER_NAME_MAX + sizeof GRANTS_SUFFIX];
  snprintf(grants_file, sizeof grants_file, "%s" GRANTS_SUFFIX, pair->name);
  *err = (struct nx_error){0};
  enum presence grants = read_file(look, grants_file, NX_GRANTS_MAX_BYTES, &pair->grants, err);
  pair->has_grants = grants == PRESENT;
  return grants == BAD ? BAD : PRESENT;
}

/* ---- Swapped directories ---------------------------------------------------------------------------------------- */

static int open_directory(int at, const char *name) { return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

static bool same_directory(int a, int b) {
  struct stat left, right;
  if (a < 0 || b < 0) return a < 0 && b < 0;
  return !fstat(a, &left) && !fstat(b, &right) && left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

/* Does the path no longer lead where this look is looking? Then what is missing there means nothing. */
static bool was_swapped(const struct nx__dir_scan *scan, const struct look *look) {
  NX_FD_AUTO dir = open_directory(AT_FDCWD, scan->opts->path);
  NX_FD_AUTO data = dir >= 0 ? open_directory(dir, "..data") : -1;
  return dir < 0 || !same_directory(dir, look->dir_fd) || !same_directory(data, look->data_fd);
}

/* ---- Acting ----------------------------------------------------------------------------------------------------- */

static void add_text(crypto_generichash_state *state, const char *text, size_t bytes) {
  uint64_t length = bytes;
  crypto_generichash_update(state, (const uint8_t *)&length, sizeof length);
  if (bytes) crypto_generichash_update(state, (const uint8_t *)text, bytes);
}

static void digest_pair(uint8_t digest[NX_HASH_BYTES], const struct pair *pair) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, NULL, 0, NX_HASH_BYTES);
  add_text(&state, pair->source.data, pair->source.len);
  if (pair->has_grants) add_text(&state, pair->grants.data, pair->grants.len);
  crypto_generichash_final(&state, digest, NX_HASH_BYTES);
}

/* True when this is news; it is then remembered. */
static bool is_news(struct nx__dir_item *item, const uint8_t digest[NX_HASH_BYTES]) {
  if (!memcmp(item->digest, digest, NX_HASH_BYTES)) return false;
  memcpy(item->digest, digest, NX_HASH_BYTES);
  return true;
}

static void refuse(struct nx__dir_item *item, const char *why) {
  item->refused = true;
  nx_log(NX_LOG_WARN, "handler file refused", "file", item->file, "reason", why, "earlierVersionStays",
         item->in_service ? "yes" : "no", NULL);
}

static void report_problem(struct nx__dir_item *item, const char *why) {
  uint8_t digest[NX_HASH_BYTES];
  static const uint8_t key[crypto_generichash_KEYBYTES] = "a problem, not a content";
  crypto_generichash(digest, NX_HASH_BYTES, (const uint8_t *)why, strlen(why), key, sizeof key);
  if (is_news(item, digest)) refuse(item, why);
}

static int apply_pair(const struct nx__dir_scan *scan, const struct pair *pair, struct nx_error *err) {
  struct nx_grants *grants = NULL;
  if (pair->has_grants) {
    int status = nx_grants_parse(&grants, pair->grants.data, pair->grants.len, err);
    if (status) return nx_error_wrap(err, "%s" GRANTS_SUFFIX, pair->name);
  }
  const char *source = pair->source.data ? pair->source.data : "";
  int status = scan->opts->apply(scan->opts->opaque, pair->name, source, pair->source.len, grants, err);
  nx_grants_release(grants);
  return status;
}

static void handle_content(struct nx__dir_scan *scan, struct nx__dir_item *item, const struct pair *pair) {
  uint8_t digest[NX_HASH_BYTES];
  digest_pair(digest, pair);
  if (!is_news(item, digest)) return;
  struct nx_error err = {0};
  int status = apply_pair(scan, pair, &err);
  if (status) {
    refuse(item, err.text);
    bool permanent = status == -NX_ERR_UNPROCESSABLE || status == -NX_ERR_INVALID || status == -NX_ERR_TOO_LARGE;
    if (!permanent) memset(item->digest, 0, NX_HASH_BYTES);
    return;
  }
  nx_log(NX_LOG_INFO, item->in_service ? "handler replaced from its file" : "handler loaded from its file", "handler",
         pair->name, "grants", pair->has_grants ? "yes" : "no", NULL);
  item->in_service = true;
  item->refused = false;
}

static void retire(const struct nx__dir_scan *scan, struct nx__dir_item *item) {
  if (!item->in_service) return;
  char name[NX_HANDLER_NAME_MAX + 1];
  size_t bytes = strlen(item->file) - (sizeof SOURCE_SUFFIX - 1);
  memcpy(name, item->file, bytes);
  name[bytes] = '\0';
  scan->opts->remove(scan->opts->opaque, name);
  nx_log(NX_LOG_INFO, "handler removed with its file", "handler", name, NULL);
  item->in_service = false;
}

/* False when the file is not there after all. */
static bool handle_source(struct nx__dir_scan *scan, const struct look *look, struct nx__dir_item *item) {
  struct nx_error err = {0};
  struct pair pair = {0};
  enum presence presence = read_pair(scan, look, item->file, &pair, &err);
  if (presence == PRESENT) handle_content(scan, item, &pair);
  if (presence == BAD) report_problem(item, err.text);
  nx_buf_deinit(&pair.source);
  nx_buf_deinit(&pair.grants);
  return presence != GONE || was_swapped(scan, look);
}

/* Grants are read with their source; here only those that have none. False: nothing to remember. */
static bool handle_lone_grants(const struct look *look, struct nx__dir_item *item) {
  char source[NAME_MAX + 1];
  size_t name_bytes = strlen(item->file) - (sizeof GRANTS_SUFFIX - 1);
  snprintf(source, sizeof source, "%.*s" SOURCE_SUFFIX, (int)name_bytes, item->file);
  if (has_file(&look->found, source)) return false;
  report_problem(item, "there is no source for these grants");
  return true;
}

/* ---- One look --------------------------------------------------------------------------------------------------- */

/* What is known of a file goes over to the new list. */
static void inherit(struct nx__dir_item *item, const struct nx__dir_item *known) {
  memcpy(item->digest, known->digest, NX_HASH_BYTES);
  item->in_service = known->in_service;
  item->refused = known->refused;
}

static void handle(struct nx__dir_scan *scan, const struct look *look, struct nx__dir_item *item) {
  bool source = ends_with(item->file, SOURCE_SUFFIX);
  if (source ? handle_source(scan, look, item) : handle_lone_grants(look, item)) return;
  if (source) retire(scan, item);
  memset(item->digest, 0, NX_HASH_BYTES);
  item->refused = false;
}

/* Walks the old and the new list side by side. */
static void merge(struct nx__dir_scan *scan, struct look *look) {
  struct nx__dir_items *known = &scan->known, *found = &look->found;
  uint32_t in_service = 0, refused = 0;
  size_t k = 0;
  for (size_t f = 0; f < found->count; f++) {
    struct nx__dir_item *item = found->items[f];
    while (k < known->count && strcmp(known->items[k]->file, item->file) < 0) retire(scan, known->items[k++]);
    if (k < known->count && !strcmp(known->items[k]->file, item->file)) inherit(item, known->items[k++]);
    if (!atomic_load(scan->stop)) handle(scan, look, item);
    in_service += item->in_service;
    refused += item->refused;
  }
  while (k < known->count) retire(scan, known->items[k++]);
  free_items(known);
  *known = *found;
  *found = (struct nx__dir_items){0};
  atomic_store(&scan->in_service, in_service);
  atomic_store(&scan->refused, refused);
}

int nx__dir_scan_run(struct nx__dir_scan *scan, bool *again, struct nx_error *err) {
  *again = false;
  NX_FD_AUTO dir_fd = open_directory(AT_FDCWD, scan->opts->path);
  if (dir_fd < 0) return nx_error_sys(err, "cannot open the directory");
  NX_FD_AUTO data_fd = open_directory(dir_fd, "..data");
  struct look look = {.dir_fd = dir_fd, .data_fd = data_fd};
  const char *why = read_names(dir_fd, &look.found);
  if (why) {
    free_items(&look.found);
    return nx_error_set(err, NX_ERR_SYSTEM, "cannot list the directory: %s", why);
  }
  *again = was_swapped(scan, &look);
  if (*again) {
    free_items(&look.found);
    return 0;
  }
  merge(scan, &look);
  *again = was_swapped(scan, &look);
  return 0;
}

void nx__dir_scan_deinit(struct nx__dir_scan *scan) { free_items(&scan->known); }
