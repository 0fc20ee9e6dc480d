/* SPDX-License-Identifier: Apache-2.0
 *
 * The pass: handlers, then sources, then items, a few thousand names at a time, again and again. It deletes what is
 * over, finds wake times (also of items whose process has died), and counts. A name costs one look at its inode; only
 * files whose time has come, or is near, are opened. */
#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "handler/handler.h"
#include "suspend/store_file_internal.h"

/* A quarter of a million items take a minute. */
#define STEP_ENTRIES 4096u
/* Of those who only ask what is due. */
#define STEP_INTERVAL_NS (NX_NS_PER_S / 2)
/* Wake times this near are noted; longer than any pass takes. */
#define HORIZON_MS (UINT64_C(10) * 60 * 1000)
/* Damaged and temporary files that nobody has touched for so long are deleted. */
#define STRAY_AGE_MS (UINT64_C(60) * 60 * 1000)

static struct nx__file_store *file_of(struct nx_store *store) { return (struct nx__file_store *)store; }

/* By the time of the inode's last change, which nobody can set. */
static bool is_stray(const struct stat *st, uint64_t now_ms) {
  uint64_t changed_ms = (uint64_t)st->st_ctim.tv_sec * 1000;
  return changed_ms + STRAY_AGE_MS <= now_ms;
}

static void sweep_temp(const struct nx__kept_dir *dir, const char *name, uint64_t now_ms) {
  struct stat st;
  if (fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode) || !is_stray(&st, now_ms)) return;
  unlinkat(dir->fd, name, 0);
}

/* Under its lock, because it may be a good one by now. */
static void sweep_damaged(const struct nx__kept_dir *dir, const char *name, uint64_t now_ms) {
  NX__KEPT_AUTO kept = {.fd = -1};
  struct nx_error fault;
  struct stat st;
  if (nx__kept_take(dir, name, &kept, &fault) != -NX_ERR_INVALID || kept.fd < 0) return;
  if (fstat(kept.fd, &st) || !is_stray(&st, now_ms) || unlinkat(dir->fd, name, 0)) return;
  nx_log(NX_LOG_WARN, "damaged file of the suspend store deleted", "reason", fault.text, NULL);
}

/* ---- Handlers: their sources are kept for longer ----------------------------------------------------------------- */

/* A damaged handler stays as it is, to be put again or removed. */
static int mark_source(struct nx__file_store *file, const char *name, uint64_t now_ms) {
  NX__KEPT_AUTO kept = {.fd = -1};
  int rc = nx__kept_open(&file->handlers, name, &kept, NULL);
  return rc ? rc : nx__file_source_keep(file, kept.header.source_name, now_ms + NX__HANDLER_GRACE_MS, NULL);
}

static void look_at_handler(struct nx__file_store *file, const char *name, uint64_t now_ms) {
  if (!nx_handler_name_valid(name, strlen(name))) return;
  int rc = mark_source(file, name, now_ms);
  /* What is not there, or damaged, cannot be lost by deleting. */
  if (rc && rc != -NX_ERR_NOT_FOUND && rc != -NX_ERR_INVALID) file->pass.sources_are_marked = false;
}

/* ---- Sources ----------------------------------------------------------------------------------------------------- */

/* Judged by the time at which the handlers' sources were marked, not by now: a process may be stopped in between. */
static bool looks_over(const struct nx__file_store *file, const struct stat *st) {
  return nx__next_look_ms(st) <= file->pass.began_ms;
}

static void look_at_source(struct nx__file_store *file, const char *name, uint64_t now_ms) {
  NX__KEPT_AUTO kept = {.fd = -1};
  struct stat st;
  uint8_t hash[NX_HASH_BYTES];
  if (!file->pass.sources_are_marked || !nx_hash_from_hex(hash, name, strlen(name))) return;
  if (fstatat(file->sources.fd, name, &st, AT_SYMLINK_NOFOLLOW) || !looks_over(file, &st)) return;
  int rc = nx__kept_take(&file->sources, name, &kept, NULL);
  if (rc == -NX_ERR_INVALID) {
    nx__kept_close(&kept);
    sweep_damaged(&file->sources, name, now_ms);
  } else if (!rc && kept.header.expires_ms <= file->pass.began_ms && !fstat(kept.fd, &st) && looks_over(file, &st)) {
    unlinkat(file->sources.fd, name, 0);
  }
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

static bool parse_id(struct nx_suspension_id *id, const char *name) {
  size_t n = 0;
  char again[NX__ITEM_NAME_BYTES];
  if (strlen(name) != sizeof again - 1 ||
      sodium_hex2bin(id->bytes, sizeof id->bytes, name, sizeof again - 1, NULL, &n, NULL) || n != sizeof id->bytes)
    return false;
  nx__item_name(again, id);
  return !strcmp(name, again);
}

/* One that somebody has leased is left for now: its holder may still commit. */
static void sweep_item(struct nx__file_store *file, const char *name, uint64_t now_ms) {
  NX__KEPT_AUTO kept = {.fd = -1};
  if (nx__kept_take(&file->items, name, &kept, NULL)) return;
  if (kept.header.expires_ms <= now_ms && nx__kept_lease(kept.fd, now_ms)) unlinkat(file->items.fd, name, 0);
}

static void look_into_item(struct nx__file_store *file, const char *name, const struct nx_suspension_id *id,
                           uint64_t now_ms) {
  NX__KEPT_AUTO kept = {.fd = -1};
  int rc = nx__kept_open(&file->items, name, &kept, NULL);
  if (rc == -NX_ERR_INVALID) sweep_damaged(&file->items, name, now_ms);
  if (rc) return;
  if (kept.header.expires_ms <= now_ms)
    sweep_item(file, name, now_ms);
  else if (kept.header.state == NX_STORED_WAITING && kept.header.wake_ms && nx_store_owns(&file->store, id))
    nx__wakes_add(&file->wakes, (struct nx__wake){.at_ms = kept.header.wake_ms, .id = *id});
}

static void look_at_item(struct nx__file_store *file, const char *name, uint64_t now_ms) {
  struct nx_suspension_id id;
  struct stat st;
  if (!parse_id(&id, name)) return;
  if (fstatat(file->items.fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode)) return;
  file->pass.seen.waiting += nx__looks_waiting(&st);
  file->pass.seen.foreign += nx__looks_waiting(&st) && !nx_store_owns(&file->store, &id);
  file->pass.seen.bytes += (uint64_t)st.st_size;
  if (nx__next_look_ms(&st) <= now_ms + HORIZON_MS) look_into_item(file, name, &id, now_ms);
}

/* ---- The pass ---------------------------------------------------------------------------------------------------- */

typedef void look_fn(struct nx__file_store *file, const char *name, uint64_t now_ms);

static const struct nx__kept_dir *stage_dir(const struct nx__file_store *file) {
  switch (file->pass.stage) {
  case NX__PASS_HANDLERS: return &file->handlers;
  case NX__PASS_SOURCES: return &file->sources;
  default: return &file->items;
  }
}

static void begin_stage(struct nx__file_store *file, uint64_t now_ms) {
  struct nx__pass *pass = &file->pass;
  if (pass->stage == NX__PASS_HANDLERS) {
    pass->began_ms = now_ms;
    pass->sources_are_marked = true;
    pass->seen = (struct nx_store_stats){0};
  }
  NX_FD_AUTO fd = openat(stage_dir(file)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  pass->entries = fd < 0 ? NULL : fdopendir(fd);
  if (pass->entries) fd = -1;
}

/* Whether the pass goes on. */
static bool end_stage(struct nx__file_store *file, bool read_all) {
  struct nx__pass *pass = &file->pass;
  closedir(pass->entries);
  pass->entries = NULL;
  if (!read_all) pass->sources_are_marked = false;
  pass->stage = (pass->stage + 1) % NX__PASS_STAGES;
  if (pass->stage != NX__PASS_HANDLERS) return true;
  atomic_store_explicit(&file->waiting, pass->seen.waiting, memory_order_relaxed);
  atomic_store_explicit(&file->foreign, pass->seen.foreign, memory_order_relaxed);
  atomic_store_explicit(&file->bytes, pass->seen.bytes, memory_order_relaxed);
  atomic_store(&file->is_counted, true);
  return false;
}

static void step(struct nx__file_store *file, uint64_t now_ms) {
  static look_fn *const look[] = {
    [NX__PASS_HANDLERS] = look_at_handler, [NX__PASS_SOURCES] = look_at_source, [NX__PASS_ITEMS] = look_at_item};
  struct nx__pass *pass = &file->pass;
  pass->last_step_ns = nx_clock_ns();
  for (unsigned i = 0; i < STEP_ENTRIES; i++) {
    if (!pass->entries) begin_stage(file, now_ms);
    if (!pass->entries) return; /* again in the next step */
    errno = 0;
    struct dirent *entry = readdir(pass->entries);
    if (!entry) {
      if (!end_stage(file, errno == 0)) return;
    } else if (!strncmp(entry->d_name, NX_FS_TEMP_PREFIX, sizeof NX_FS_TEMP_PREFIX - 1)) {
      sweep_temp(stage_dir(file), entry->d_name, now_ms);
    } else {
      look[pass->stage](file, entry->d_name, now_ms);
    }
  }
}

void nx__file_sweep(struct nx_store *store, uint64_t now_ms) {
  struct nx__file_store *file = file_of(store);
  pthread_mutex_lock(&file->pass.mutex);
  step(file, now_ms);
  pthread_mutex_unlock(&file->pass.mutex);
}

/* ---- What is due ------------------------------------------------------------------------------------------------- */

/* Anything but free and due is forgotten here: if somebody has it, and dies, a pass will find it. */
static bool is_due(struct nx__file_store *file, const struct nx__wake *wake, uint64_t now_ms) {
  NX__KEPT_AUTO kept = {.fd = -1};
  char name[NX__ITEM_NAME_BYTES];
  nx__item_name(name, &wake->id);
  if (nx__kept_open(&file->items, name, &kept, NULL)) return false;
  return kept.header.state == NX_STORED_WAITING && kept.header.wake_ms == wake->at_ms &&
         kept.header.expires_ms > now_ms && nx__kept_leased_until_ms(kept.fd) <= now_ms;
}

/* Where the report begins. A step, too, for whoever does not sweep. */
static struct nx__wake begin_report(struct nx__file_store *file, uint64_t now_ms) {
  pthread_mutex_lock(&file->pass.mutex);
  if (nx_clock_ns() - file->pass.last_step_ns > STEP_INTERVAL_NS) step(file, now_ms);
  struct nx__wake after = file->due_after;
  pthread_mutex_unlock(&file->pass.mutex);
  return after;
}

static void end_report(struct nx__file_store *file, struct nx__wake last) {
  pthread_mutex_lock(&file->pass.mutex);
  file->due_after = last;
  pthread_mutex_unlock(&file->pass.mutex);
}

size_t nx__file_due(struct nx_store *store, uint64_t now_ms, struct nx_suspension_id *ids, size_t max) {
  struct nx__file_store *file = file_of(store);
  struct nx__wake wake = begin_report(file, now_ms);
  size_t count = 0;
  while (count < max && nx__wakes_next(&file->wakes, wake, now_ms, &wake)) {
    if (is_due(file, &wake, now_ms))
      ids[count++] = wake.id;
    else
      nx__wakes_remove(&file->wakes, wake);
  }
  end_report(file, count == max ? wake : (struct nx__wake){0});
  return count;
}
