/* SPDX-License-Identifier: Apache-2.0
 *
 * Sources and handlers, by name.
 *
 * A source is kept until a time that only moves forward: items push it to their expiry, and each pass pushes those of
 * the handlers before it looks which are over. So nobody has to count who refers to a source. */
#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <sodium.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handler/handler.h"
#include "suspend/store_file_internal.h"

static struct nx__file_store *file_of(struct nx_store *store) { return (struct nx__file_store *)store; }

/* ---- Sources ----------------------------------------------------------------------------------------------------- */

/* A little longer than asked for, so that not every suspension of a busy handler has to move the time. */
static uint64_t with_margin(uint64_t until_ms) {
  uint64_t now_ms = nx_clock_realtime_ms(), margin_ms = until_ms > now_ms ? (until_ms - now_ms) / 16 : 0;
  return until_ms > UINT64_MAX - margin_ms ? UINT64_MAX : until_ms + margin_ms;
}

static int push_time(int fd, uint64_t until_ms, struct nx_error *err) {
  uint64_t ms = with_margin(until_ms);
  const struct timespec times[] = {
    {.tv_nsec = UTIME_OMIT},
    {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * NX_NS_PER_MS)},
  };
  return futimens(fd, times) || fsync(fd) ? nx__store_unavailable_errno(err, "keep a source for longer") : 0;
}

int nx__file_source_keep(struct nx__file_store *file, const uint8_t hash[NX_HASH_BYTES], uint64_t until_ms,
                         struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  struct stat st;
  char name[NX__SOURCE_NAME_BYTES];
  nx_hash_to_hex(name, hash);
  if (!fstatat(file->sources.fd, name, &st, AT_SYMLINK_NOFOLLOW) && nx__next_look_ms(&st) >= until_ms) return 0;
  int rc = nx__kept_take(&file->sources, name, &kept, err);
  if (rc) return rc;
  if (fstat(kept.fd, &st)) return nx__store_unavailable_errno(err, name);
  return nx__next_look_ms(&st) < until_ms ? push_time(kept.fd, until_ms, err) : 0;
}

/* Under its lock, so that no pass deletes the new one for the old one. */
static int replace_source(struct nx__file_store *file, const char *name, struct nx__kept_header header,
                          const char *source, struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  struct stat st;
  int rc = nx__kept_take(&file->sources, name, &kept, err);
  if (rc && rc != -NX_ERR_INVALID) return rc;
  if (!rc && !fstat(kept.fd, &st) && nx__next_look_ms(&st) > header.expires_ms) header.expires_ms = nx__next_look_ms(&st);
  return nx__kept_put(&file->sources, name, header, source, 0, err);
}

static int put_source(struct nx__file_store *file, const uint8_t *hash, const char *source, size_t bytes,
                      uint64_t until_ms, struct nx_error *err) {
  char name[NX__SOURCE_NAME_BYTES];
  nx_hash_to_hex(name, hash);
  struct nx__kept_header header = {.expires_ms = with_margin(until_ms), .body_bytes = bytes};
  int rc;
  do {
    rc = nx__kept_put(&file->sources, name, header, source, NX_FS_NEW, err);
    if (rc == -NX_ERR_CONFLICT) rc = replace_source(file, name, header, source, err);
  } while (rc == -NX_ERR_NOT_FOUND); /* it went in between */
  return rc;
}

int nx__file_keep_source(struct nx_store *store, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                         uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err) {
  (void)refused;
  struct nx__file_store *file = file_of(store);
  struct nx_error cause;
  if (bytes > NX_STORE_ITEM_MAX_BYTES) return nx_error_set(err, NX_ERR_TOO_LARGE, "a source of %zu bytes", bytes);
  if (until_ms == UINT64_MAX) until_ms = nx_clock_realtime_ms() + NX__HANDLER_GRACE_MS;
  int rc = source ? put_source(file, hash, source, bytes, until_ms, &cause)
                  : nx__file_source_keep(file, hash, until_ms, &cause);
  if (rc && err) *err = cause;
  return rc;
}

int nx__file_load_source(struct nx_store *store, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out,
                         struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  char name[NX__SOURCE_NAME_BYTES];
  nx_hash_to_hex(name, hash);
  int rc = nx__kept_open(&file_of(store)->sources, name, &kept, err);
  return rc ? rc : nx__kept_read_body(&kept, out, err);
}

/* ---- Handlers ---------------------------------------------------------------------------------------------------- */

static int check_name(const char *name, struct nx_error *err) {
  if (nx_handler_name_valid(name, strlen(name))) return 0;
  return nx_error_set(err, NX_ERR_INVALID, "\"%s\" is not the name of a handler", name);
}

/* A new time of modification. The kernel sets one with every change, but its clock ticks only every few milliseconds, so
 * it is set to a random one: it says which version of a file, or of the whole directory, this is. */
static int draw_version(uint64_t *version, struct nx_error *err) {
  uint32_t random[2];
  if (getrandom(random, sizeof random, 0) != sizeof random) return nx__store_unavailable_errno(err, "getrandom");
  *version = (uint64_t)(random[0] >> 1 | 1) * NX_NS_PER_S + random[1] % NX_NS_PER_S;
  return 0;
}

static int mark_changed(struct nx__file_store *file, struct nx_error *err) {
  uint64_t version;
  int rc = draw_version(&version, err);
  if (rc) return rc;
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, nx__time_of_version(version)};
  return futimens(file->handlers.fd, times) ? nx__store_unavailable_errno(err, "mark the change of a handler") : 0;
}

static uint64_t version_of(const struct stat *st) {
  return (uint64_t)st->st_mtim.tv_sec * NX_NS_PER_S + (uint64_t)st->st_mtim.tv_nsec;
}

uint64_t nx__file_handlers_version(struct nx_store *store) {
  struct stat st;
  if (fstat(file_of(store)->handlers.fd, &st)) return 0;
  return version_of(&st);
}

/* Holds the change lock of what has the name; kept->fd < 0 when there is nothing to lock. `flags` are those for putting
 * another one in its place. */
static int take_expected(struct nx__file_store *file, const char *name, uint64_t expected, struct nx__kept *kept,
                         unsigned *flags, struct nx_error *err) {
  int rc = nx__kept_take(&file->handlers, name, kept, err);
  uint64_t found = rc ? NX_HANDLER_NONE : kept->header.version;
  *flags = rc == -NX_ERR_NOT_FOUND ? NX_FS_NEW : 0;
  if (rc && rc != -NX_ERR_NOT_FOUND && rc != -NX_ERR_INVALID) return rc;
  if (expected == NX_HANDLER_ANY || expected == found) return 0;
  return nx_error_set(err, NX_ERR_CONFLICT, "the handler \"%s\" has been changed meanwhile", name);
}

static int put_expected(struct nx__file_store *file, const char *name, const struct nx_stored_handler *handler,
                        uint64_t expected, struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  struct nx__kept_header header = {.body_bytes = handler->bytes.len};
  unsigned flags;
  memcpy(header.source_name, handler->source_name, NX_HASH_BYTES);
  int rc = draw_version(&header.version, err);
  if (!rc) rc = take_expected(file, name, expected, &kept, &flags, err);
  return rc ? rc : nx__kept_put(&file->handlers, name, header, handler->bytes.data, flags, err);
}

int nx__file_put_handler(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                         uint64_t expected, struct nx_error *err) {
  struct nx__file_store *file = file_of(store);
  struct nx_error cause;
  int rc = check_name(name, err);
  if (rc) return rc;
  do
    rc = put_expected(file, name, handler, expected, &cause);
  while (rc == -NX_ERR_CONFLICT && expected == NX_HANDLER_ANY); /* somebody else made one of that name */
  if (rc && err) *err = cause;
  return rc ? rc : mark_changed(file, err);
}

int nx__file_get_handler(struct nx_store *store, const char *name, struct nx_stored_handler *out,
                         struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  int rc = check_name(name, err);
  if (!rc) rc = nx__kept_open(&file_of(store)->handlers, name, &kept, err);
  if (!rc) rc = nx__kept_read_body(&kept, &out->bytes, err);
  if (rc) return rc;
  memcpy(out->source_name, kept.header.source_name, NX_HASH_BYTES);
  out->version = kept.header.version;
  return 0;
}

int nx__file_remove_handler(struct nx_store *store, const char *name, uint64_t expected, struct nx_error *err) {
  struct nx__file_store *file = file_of(store);
  NX__KEPT_AUTO kept = {.fd = -1};
  struct nx_error cause;
  unsigned flags;
  int rc = check_name(name, err);
  if (rc) return rc;
  rc = take_expected(file, name, expected, &kept, &flags, &cause);
  if (rc && err) *err = cause;
  if (rc) return rc;
  bool failed = unlinkat(file->handlers.fd, name, 0);
  if (failed && errno == ENOENT) return nx_error_set(err, NX_ERR_NOT_FOUND, "the store has no %s", name);
  if (failed || fsync(file->handlers.fd)) return nx__store_unavailable_errno(err, name);
  return mark_changed(file, err);
}

/* A look at each inode is enough. */
int nx__file_list_handlers(struct nx_store *store, nx_visit_handler_fn *visit, void *self, struct nx_error *err) {
  const struct nx__file_store *file = file_of(store);
  NX_FD_AUTO fd = openat(file->handlers.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = fd < 0 ? NULL : fdopendir(fd);
  if (!entries) return nx__store_unavailable_errno(err, "list the handlers");
  fd = -1;
  struct dirent *entry;
  struct stat st;
  errno = 0;
  while ((entry = readdir(entries))) {
    bool is_name = nx_handler_name_valid(entry->d_name, strlen(entry->d_name));
    if (is_name && !fstatat(file->handlers.fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
      visit(self, entry->d_name, version_of(&st));
    errno = 0;
  }
  int rc = errno ? nx__store_unavailable_errno(err, "list the handlers") : 0;
  closedir(entries);
  return rc;
}
