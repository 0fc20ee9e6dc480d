/* SPDX-License-Identifier: Apache-2.0
 *
 * The store in a directory, which the processes of several replicas may share, also over NFS 4: what is needed of the
 * file system is locks, hard links, and times of modification that can be set.
 *
 *   DIR/v1/items/ID          ID and SOURCE in hex digits
 *   DIR/v1/sources/SOURCE    modified: how long it is kept
 *   DIR/v1/handlers/NAME
 *
 * What was acknowledged is on the disk: each file is written under a temporary name, synced, renamed, and its directory
 * synced. Nothing in the directory is believed (store_file_kept.c), foreign names are not touched, links not followed.
 *
 * A lease is a lock on the item's file, so it ends with its process. When its time has passed before, whoever wants the
 * item puts a copy in its place: the lock is then on a file without a name, and its holder's commit is refused. */
#include "suspend/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "suspend/store_file_internal.h"

static struct nx__file_store *file_of(struct nx_store *store) { return (struct nx__file_store *)store; }

void nx__item_name(char name[NX__ITEM_NAME_BYTES], const struct nx_suspension_id *id) {
  sodium_bin2hex(name, NX__ITEM_NAME_BYTES, id->bytes, sizeof id->bytes);
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

static struct nx__kept_header header_of(const struct nx_store_item *item) {
  struct nx__kept_header header = {
    .state = item->state, .expires_ms = item->expires_ms, .wake_ms = item->wake_ms, .body_bytes = item->size};
  memcpy(header.source_name, item->source_name, NX_HASH_BYTES);
  return header;
}

/* The temporary file of an item, and its source kept as long as the item. */
static int prepare(struct nx__file_store *file, const char *name, const struct nx_store_item *item,
                   char temp[NX_FS_TEMP_BYTES], struct nx_error *err) {
  if (item->size > NX_STORE_ITEM_MAX_BYTES)
    return nx_error_set(err, NX_ERR_TOO_LARGE, "%zu bytes are too many for one suspension", item->size);
  struct nx_error cause;
  if (nx__file_source_keep(file, item->source_name, item->expires_ms, &cause) == -NX_ERR_UNAVAILABLE) {
    if (err) *err = cause;
    return -NX_ERR_UNAVAILABLE;
  } /* a source that is not there, or damaged, shows when it is loaded */
  return nx__kept_write_temp(&file->items, name, header_of(item), item->bytes, temp, err);
}

static void note_wake(struct nx__file_store *file, const struct nx_suspension_id *id, enum nx_stored_state state,
                      uint64_t wake_ms) {
  if (state != NX_STORED_WAITING || !wake_ms || !nx_store_owns(&file->store, id)) return;
  nx__wakes_add(&file->wakes, (struct nx__wake){.at_ms = wake_ms, .id = *id});
}

static int store_create(struct nx_store *store, const struct nx_suspension_id *id, const struct nx_store_item *item,
                        struct nx_refusal *refused, struct nx_error *err) {
  (void)refused;
  struct nx__file_store *file = file_of(store);
  char name[NX__ITEM_NAME_BYTES], temp[NX_FS_TEMP_BYTES];
  nx__item_name(name, id);
  int rc = prepare(file, name, item, temp, err);
  if (!rc) rc = nx__kept_publish(&file->items, temp, name, NX_FS_NEW, err);
  if (!rc) note_wake(file, id, item->state, item->wake_ms);
  return rc;
}

static int fill(struct nx_stored *out, const struct nx__kept *kept, struct nx_error *err) {
  out->state = (enum nx_stored_state)kept->header.state;
  out->expires_ms = kept->header.expires_ms;
  out->wake_ms = kept->header.wake_ms;
  return nx__kept_read_body(kept, &out->bytes, err);
}

static int store_read(struct nx_store *store, const struct nx_suspension_id *id, struct nx_stored *out,
                      struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  char name[NX__ITEM_NAME_BYTES];
  nx__item_name(name, id);
  int rc = nx__kept_open(&file_of(store)->items, name, &kept, err);
  if (rc) return rc;
  if (kept.header.expires_ms <= nx_clock_realtime_ms()) return nx_error_set(err, NX_ERR_NOT_FOUND, "the suspension has expired");
  return fill(out, &kept, err);
}

/* NX_ERR_GONE for an item at its end. */
static int check_waits(const struct nx__kept *kept, struct nx_error *err) {
  if (kept->header.expires_ms <= nx_clock_realtime_ms()) return nx_error_set(err, NX_ERR_GONE, "the suspension has expired");
  if (kept->header.state == NX_STORED_WAITING) return 0;
  return nx_error_set(err, NX_ERR_GONE, "the suspension is %s already",
                      kept->header.state == NX_STORED_FINISHED ? "finished" : "cancelled");
}

static int store_cancel(struct nx_store *store, const struct nx_suspension_id *id, struct nx_error *err) {
  struct nx__file_store *file = file_of(store);
  NX__KEPT_AUTO kept = {.fd = -1};
  char name[NX__ITEM_NAME_BYTES];
  nx__item_name(name, id);
  int rc = nx__kept_take(&file->items, name, &kept, err);
  if (!rc) rc = check_waits(&kept, err);
  if (rc) return rc;
  struct nx__kept_header cancelled = {.state = NX_STORED_CANCELLED, .expires_ms = kept.header.expires_ms};
  return nx__kept_put(&file->items, name, cancelled, NULL, 0, err);
}

/* ---- Leases: the token is the descriptor that holds the lock ----------------------------------------------------- */

#define NO_TOKEN UINT64_MAX

static void end_lease(struct nx_store_lease *lease) {
  if (lease->token != NO_TOKEN) close((int)lease->token);
  lease->token = NO_TOKEN;
}

static uint64_t end_of_lease(uint64_t lease_ms) {
  uint64_t now_ms = nx_clock_realtime_ms();
  return lease_ms > UINT64_MAX - now_ms ? UINT64_MAX : now_ms + lease_ms;
}

/* Puts a copy in the place of an item whose holder's time has passed. It goes through `room`, which is paid for. */
static int oust(struct nx__file_store *file, const char *name, const struct nx__kept *kept, struct nx_buf *room,
                struct nx_error *err) {
  size_t start = room->len;
  int rc = nx__kept_read_body(kept, room, err);
  if (rc) return rc;
  room->len = start;
  return nx__kept_put(&file->items, name, kept->header, room->data + start, 0, err);
}

/* The item's file with the lease, and the change lock still on it; also with NX_ERR_GONE, but without the lease. */
static int take_lease(struct nx__file_store *file, const char *name, uint64_t until_ms, struct nx__kept *kept,
                      struct nx_buf *room, struct nx_error *err) {
  for (unsigned attempt = 0; attempt < 2; attempt++) {
    int rc = nx__kept_take(&file->items, name, kept, err);
    if (!rc) rc = check_waits(kept, err);
    if (rc || nx__kept_lease(kept->fd, until_ms)) return rc;
    if (nx__kept_leased_until_ms(kept->fd) > nx_clock_realtime_ms()) break;
    rc = oust(file, name, kept, room, err);
    if (rc) return rc;
    nx__kept_close(kept);
  }
  return nx_error_set(err, NX_ERR_BUSY, "another request is resuming the suspension");
}

static int store_lease(struct nx_store *store, const struct nx_suspension_id *id, uint64_t lease_ms,
                       struct nx_stored *out, struct nx_store_lease *lease, struct nx_error *err) {
  NX__KEPT_AUTO kept = {.fd = -1};
  char name[NX__ITEM_NAME_BYTES];
  nx__item_name(name, id);
  int rc = take_lease(file_of(store), name, end_of_lease(lease_ms), &kept, &out->bytes, err);
  if (rc && rc != -NX_ERR_GONE) return rc;
  nx__kept_unlock(kept.fd);
  int filled = fill(out, &kept, err);
  if (rc || filled) return filled ? filled : rc;
  *lease = (struct nx_store_lease){.id = *id, .token = (uint64_t)kept.fd};
  kept.fd = -1;
  return 0;
}

/* Holds the change lock on return of 0; NX_ERR_GONE when the file was replaced. */
static int lock_leased(struct nx__file_store *file, const struct nx_store_lease *lease, const char *name,
                       struct nx_error *err) {
  int fd = (int)lease->token;
  int rc = nx__kept_lock(fd, err);
  if (rc || nx__kept_has_name(&file->items, name, fd)) return rc;
  nx__kept_unlock(fd);
  return nx_error_set(err, NX_ERR_GONE, "the suspension was cancelled, or its lease has passed to another");
}

static int store_extend(struct nx_store *store, struct nx_store_lease *lease, uint64_t lease_ms,
                        struct nx_error *err) {
  char name[NX__ITEM_NAME_BYTES];
  nx__item_name(name, &lease->id);
  int rc = lock_leased(file_of(store), lease, name, err);
  if (rc) return rc;
  bool extended = nx__kept_lease((int)lease->token, end_of_lease(lease_ms));
  nx__kept_unlock((int)lease->token);
  return extended ? 0 : nx_error_set(err, NX_ERR_GONE, "the lease was lost");
}

/* Puts the temporary file in the item's place, if that is still the one that was leased. */
static int replace_leased(struct nx__file_store *file, const struct nx_store_lease *lease, const char *name,
                          const char *temp, struct nx_error *err) {
  int rc = lock_leased(file, lease, name, err);
  if (rc) {
    unlinkat(file->items.fd, temp, 0);
    return rc;
  }
  rc = nx__kept_publish(&file->items, temp, name, 0, err);
  nx__kept_unlock((int)lease->token);
  return rc;
}

static int store_commit(struct nx_store *store, struct nx_store_lease *lease, const struct nx_store_item *item,
                        struct nx_refusal *refused, struct nx_error *err) {
  (void)refused;
  struct nx__file_store *file = file_of(store);
  char name[NX__ITEM_NAME_BYTES], temp[NX_FS_TEMP_BYTES];
  nx__item_name(name, &lease->id);
  int rc = prepare(file, name, item, temp, err);
  if (!rc) rc = replace_leased(file, lease, name, temp, err);
  if (!rc) note_wake(file, &lease->id, item->state, item->wake_ms);
  if (rc != -NX_ERR_UNAVAILABLE) end_lease(lease);
  return rc;
}

/* Its wake time may have been forgotten meanwhile. */
static void store_release(struct nx_store *store, struct nx_store_lease *lease) {
  NX__KEPT_AUTO kept = {.fd = -1};
  struct nx__file_store *file = file_of(store);
  char name[NX__ITEM_NAME_BYTES];
  nx__item_name(name, &lease->id);
  end_lease(lease);
  if (nx__kept_open(&file->items, name, &kept, NULL)) return;
  note_wake(file, &lease->id, (enum nx_stored_state)kept.header.state, kept.header.wake_ms);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static void store_read_stats(struct nx_store *store, struct nx_store_stats *out) {
  struct nx__file_store *file = file_of(store);
  out->waiting = atomic_load_explicit(&file->waiting, memory_order_relaxed);
  out->foreign = atomic_load_explicit(&file->foreign, memory_order_relaxed);
  out->bytes = atomic_load_explicit(&file->bytes, memory_order_relaxed);
  out->is_counted = atomic_load(&file->is_counted);
}

static void store_close(struct nx_store *store) {
  struct nx__file_store *file = file_of(store);
  if (file->pass.entries) closedir(file->pass.entries);
  pthread_mutex_destroy(&file->pass.mutex);
  nx__wakes_deinit(&file->wakes);
  nx_fs_close(&file->items.fd);
  nx_fs_close(&file->sources.fd);
  nx_fs_close(&file->handlers.fd);
  free(file);
}

static const struct nx_store_ops file_ops = {
  .name = "file",
  .blocks = true,
  .shares_handlers = true,
  .create = store_create,
  .lease = store_lease,
  .extend = store_extend,
  .commit = store_commit,
  .release = store_release,
  .read = store_read,
  .cancel = store_cancel,
  .due = nx__file_due,
  .sweep = nx__file_sweep,
  .keep_source = nx__file_keep_source,
  .load_source = nx__file_load_source,
  .put_handler = nx__file_put_handler,
  .get_handler = nx__file_get_handler,
  .remove_handler = nx__file_remove_handler,
  .list_handlers = nx__file_list_handlers,
  .handlers_version = nx__file_handlers_version,
  .read_stats = store_read_stats,
  .close = store_close,
};

/* Only its owner can set a file's times. Who else may write here does not matter, because nothing is believed; besides,
 * Kubernetes gives volumes to a group. */
static int open_subdirectory(int parent, const char *name, int *out, struct nx_error *err) {
  struct stat st;
  if (mkdirat(parent, name, 0700) && errno != EEXIST) return nx_error_sys(err, "create %s", name);
  *out = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (*out < 0 || fstat(*out, &st)) return nx_error_sys(err, "open %s", name);
  if (st.st_uid == geteuid()) return 0;
  return nx_error_set(err, NX_ERR_CONFIG, "%s in it belongs to uid %u and we are uid %u", name, (unsigned)st.st_uid,
                      (unsigned)geteuid());
}

/* That files can be written, linked and locked is seen now, not at the first suspension. */
static int try_out(const struct nx__kept_dir *dir, struct nx_error *err) {
  NX_FD_AUTO fd = -1;
  char temp[NX_FS_TEMP_BYTES], name[NX_FS_TEMP_BYTES + 1];
  int rc = nx__kept_write_temp(dir, "", (struct nx__kept_header){0}, NULL, temp, err);
  if (rc) return rc;
  snprintf(name, sizeof name, "%sx", temp);
  rc = nx__kept_publish(dir, temp, name, NX_FS_NEW, err);
  if (rc) return rc;
  fd = openat(dir->fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || !nx__kept_lease(fd, UINT64_MAX)) rc = nx_error_sys(err, "open and lock a file");
  unlinkat(dir->fd, name, 0);
  return rc;
}

static int open_all(struct nx__file_store *file, const char *directory, struct nx_error *err) {
  int rc = nx_fs_mkdirs(directory, 0700, err);
  if (rc) return rc;
  NX_FD_AUTO top = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), version = -1;
  if (top < 0) return nx_error_sys(err, "open it");
  if ((rc = open_subdirectory(top, "v1", &version, err))) return rc;
  if ((rc = open_subdirectory(version, "items", &file->items.fd, err))) return rc;
  if ((rc = open_subdirectory(version, "sources", &file->sources.fd, err))) return rc;
  if ((rc = open_subdirectory(version, "handlers", &file->handlers.fd, err))) return rc;
  if (fsync(version) || fsync(top)) return nx_error_sys(err, "sync it");
  return try_out(&file->items, err);
}

int nx_store_open_file(struct nx_store **out, const char *directory, struct nx_error *err) {
  struct nx_error cause;
  struct nx__file_store *file = calloc(1, sizeof *file);
  if (!file) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the suspend store");
  file->store.ops = &file_ops;
  file->items = (struct nx__kept_dir){.fd = -1, .magic = "NXITEM1"};
  file->sources = (struct nx__kept_dir){.fd = -1, .magic = "NXSRCE1"};
  file->handlers = (struct nx__kept_dir){.fd = -1, .magic = "NXHNDL1"};
  int rc = nx__wakes_init(&file->wakes, err);
  if (rc) {
    free(file);
    return rc;
  }
  pthread_mutex_init(&file->pass.mutex, NULL);
  if (open_all(file, directory, &cause)) {
    store_close(&file->store);
    return nx_error_set(err, NX_ERR_CONFIG, "SUSPEND_STORE=file:%s: %s", directory, cause.text);
  }
  *out = &file->store;
  return 0;
}
