/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/shared_handlers.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Each time another replica changed the same name in between. */
#define TRIES_MAX 64

struct nx_shared {
  struct nx_kept_handlers *kept;
  struct nx_registry *registry;
  pthread_mutex_t mutex;
  /* Written under the mutex. */
  _Atomic uint64_t version;     /* of the store, as the registry has it; 0: it must be read */
  _Atomic bool is_complete;
  _Atomic uint64_t retry_at_ns; /* the store has failed, and is left alone until then; 0: it has not */
  /* Synchronization: mutex. */
  struct nx_error failure;      /* how it has failed */
  uint64_t hidden;              /* what is hidden by files: a sum that changes with it */
};

/* ---- The store's names -------------------------------------------------------------------------------------------------- */

struct listed {
  uint64_t version;
  char name[NX_HANDLER_NAME_MAX + 1];
};

struct listing {
  struct listed *names;
  size_t count, room;
  bool failed; /* no memory */
};

static void add_name(void *self, const char *name, uint64_t version) {
  struct listing *listing = self;
  if (listing->count == listing->room) {
    size_t room = listing->room ? 2 * listing->room : 16;
    struct listed *names = realloc(listing->names, room * sizeof *names);
    if (!names) {
      listing->failed = true;
      return;
    }
    listing->names = names;
    listing->room = room;
  }
  struct listed *added = &listing->names[listing->count++];
  added->version = version;
  snprintf(added->name, sizeof added->name, "%s", name);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const struct listed *)a)->name, ((const struct listed *)b)->name);
}

static int list(struct nx_shared *shared, struct listing *out, struct nx_error *err) {
  int status = nx_kept_list(shared->kept, add_name, out, err);
  if (!status && out->failed) status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to list the handlers of the store");
  if (!status && out->count) qsort(out->names, out->count, sizeof *out->names, compare_names);
  return status;
}

static bool is_listed(const struct listing *listing, const char *name) {
  struct listed key;
  snprintf(key.name, sizeof key.name, "%s", name);
  return listing->count && bsearch(&key, listing->names, listing->count, sizeof key, compare_names);
}

/* ---- Into the registry ---------------------------------------------------------------------------------------------------- */

static int read_grants(const char *name, const struct nx_kept_handler *stored, struct nx_grants **out,
                       struct nx_error *err) {
  *out = NULL;
  int status = stored->grants.len ? nx_grants_parse(out, stored->grants.data, stored->grants.len, err) : 0;
  if (status == -NX_ERR_INVALID)
    nx_log(NX_LOG_WARN, "a handler of the store is not used: its grants are not understood", "handler", name, "reason",
           err->text, NULL);
  return status;
}

/* NX_ERR_PRECONDITION when `before` is not what is registered any more. */
static int enter(struct nx_shared *shared, const char *name, const struct nx_entry *before,
                 const struct nx_kept_handler *stored, struct nx_error *err) {
  struct nx_registration what = {
    .name = name,
    .source_hash = stored->source_hash,
    .version = stored->version,
    .origin = NX_ORIGIN_STORE,
    .set_grants = true,
    .condition = {.is_compared = true, .entry = before},
  };
  int status = read_grants(name, stored, &what.grants, err);
  if (status) return status;
  what.handler = nx_registry_find(shared->registry, stored->source_hash);
  status = nx_registry_put(shared->registry, &what, NULL, err);
  nx_handler_release(what.handler);
  nx_grants_release(what.grants);
  return status;
}

static int read_handler(struct nx_shared *shared, const char *name, const struct nx_entry *before,
                        struct nx_error *err) {
  struct nx_kept_handler stored = {0};
  int status = nx_kept_get(shared->kept, name, &stored, err);
  if (!status) status = enter(shared, name, before, &stored, err);
  nx_buf_deinit(&stored.grants);
  return status;
}

/* One that there is no room for must not keep the others from being read. What was here before is still good then. */
static bool is_of_one_handler(int status) { return status == -NX_ERR_TOO_LARGE || status == -NX_ERR_CONFLICT; }

/* One that is damaged or forged is as if it were not there, for all replicas: also for those that knew it before. */
static void remove_refused(struct nx_shared *shared, const char *name) {
  const struct nx_condition is_shared = {.origin = NX_ORIGIN_STORE};
  nx_registry_remove(shared->registry, name, &is_shared, NULL);
}

static int update(struct nx_shared *shared, const struct listed *listed, struct nx_error *err) {
  int status;
  do {
    struct nx_entry *before = nx_registry_get(shared->registry, listed->name, strlen(listed->name));
    bool is_file = before && before->origin == NX_ORIGIN_FILE;
    bool is_known = before && before->origin == NX_ORIGIN_STORE && before->version == listed->version;
    status = is_file || is_known ? 0 : read_handler(shared, listed->name, before, err);
    if (is_file) shared->hidden += listed->version | 1;
    nx_entry_release(before);
  } while (status == -NX_ERR_PRECONDITION); /* a file came or went */
  if (status == -NX_ERR_NOT_FOUND) return 0; /* it went: the version will tell */
  if (status == -NX_ERR_INVALID) remove_refused(shared, listed->name);
  if (status == -NX_ERR_INVALID) return 0;
  if (!is_of_one_handler(status)) return status;
  nx_log(NX_LOG_WARN, "a handler of the store cannot be used", "handler", listed->name, "reason", err->text, NULL);
  return 0;
}

/* What the store has no more. */
static int remove_others(struct nx_shared *shared, const struct listing *listing, struct nx_error *err) {
  struct nx_registry_list here;
  int status = nx_registry_list(shared->registry, &here, err);
  if (status) return status;
  for (size_t i = 0; i < here.count; i++) {
    struct nx_entry *entry = here.entries[i];
    const struct nx_condition is_shared = {.origin = NX_ORIGIN_STORE};
    if (entry->origin == NX_ORIGIN_STORE && !is_listed(listing, entry->name))
      nx_registry_remove(shared->registry, entry->name, &is_shared, NULL);
  }
  nx_registry_list_deinit(&here);
  return 0;
}

static void log_hidden(const struct nx_shared *shared, uint64_t before) {
  if (shared->hidden == before || !shared->hidden) return;
  nx_log(NX_LOG_WARN, "handlers of the store are hidden by files of the same name: HANDLERS_DIR is what counts here", NULL);
}

static int read_all(struct nx_shared *shared, struct nx_error *err) {
  struct listing listing = {0};
  uint64_t hidden_before = shared->hidden;
  int status = list(shared, &listing, err);
  if (!status) {
    shared->hidden = 0;
    status = remove_others(shared, &listing, err); /* first: they may be what there is no room for */
  }
  for (size_t i = 0; !status && i < listing.count; i++) status = update(shared, &listing.names[i], err);
  free(listing.names);
  if (!status) log_hidden(shared, hidden_before);
  return status;
}

/* ---- A change of keys ---------------------------------------------------------------------------------------------------- */

/* Once in the life of a process, and not as soon as one is seen: while a change of keys goes over the replicas some seal
 * with the one and some with the other, and would never stop. The last one that is started then brings all to the new
 * key. */
static int reseal_all(struct nx_shared *shared, struct nx_error *err) {
  struct listing listing = {0};
  struct nx_error why;
  int status = list(shared, &listing, err);
  for (size_t i = 0; !status && i < listing.count; i++)
    if (nx_kept_reseal(shared->kept, listing.names[i].name, &why))
      nx_log(NX_LOG_WARN, "a handler could not be sealed with SUSPEND_KEY: PUT it again before SUSPEND_KEY_PREVIOUS is "
             "dropped", "handler", listing.names[i].name, "reason", why.text, NULL);
  free(listing.names);
  return status;
}

/* ---- Following ---------------------------------------------------------------------------------------------------------- */

static bool differs(const struct nx_shared *shared) {
  uint64_t version = nx_kept_version(shared->kept);
  return !version || version != shared->version;
}

static bool rests(const struct nx_shared *shared) {
  uint64_t retry_at_ns = shared->retry_at_ns;
  return retry_at_ns && nx_clock_ns() < retry_at_ns;
}

bool nx_shared_is_stale(struct nx_shared *shared) { return differs(shared) && !rests(shared); }

bool nx_shared_is_complete(const struct nx_shared *shared) { return shared->is_complete; }

/* Whoever comes while it is tried again goes on with what is known. */
static void begin_try(struct nx_shared *shared) {
  if (shared->retry_at_ns) shared->retry_at_ns = UINT64_MAX;
}

static void note_failure(struct nx_shared *shared, const struct nx_error *err) {
  if (!shared->retry_at_ns || strcmp(shared->failure.text, err->text))
    nx_log(NX_LOG_WARN, "the handlers of the store cannot be read; those that are known stay in use", "reason", err->text,
           NULL);
  shared->failure = *err;
  shared->retry_at_ns = nx_clock_ns() + NX_SHARED_RETRY_MS * NX_NS_PER_MS;
}

/* Under the mutex. The version is asked for first: what changes meanwhile makes another one. */
static int sync_now(struct nx_shared *shared, struct nx_error *err) {
  struct nx_error failure;
  begin_try(shared);
  int status = !shared->is_complete && nx_kept_may_need_reseal(shared->kept) ? reseal_all(shared, &failure) : 0;
  uint64_t version = nx_kept_version(shared->kept);
  if (!status) status = read_all(shared, &failure);
  if (status) {
    note_failure(shared, &failure);
    if (err) *err = failure;
    return status;
  }
  shared->version = version;
  shared->is_complete = true;
  shared->retry_at_ns = 0;
  return 0;
}

int nx_shared_sync(struct nx_shared *shared, struct nx_error *err) {
  int status = 0;
  pthread_mutex_lock(&shared->mutex);
  if (differs(shared) && rests(shared)) {
    if (err) *err = shared->failure;
    status = -(int)shared->failure.code;
  } else if (differs(shared)) {
    status = sync_now(shared, err);
  }
  pthread_mutex_unlock(&shared->mutex);
  return status;
}

static void forget_version(struct nx_shared *shared) {
  pthread_mutex_lock(&shared->mutex);
  shared->version = 0;
  pthread_mutex_unlock(&shared->mutex);
}

/* The one takes the other's place, so that no request finds neither. */
static void uncover(struct nx_shared *shared, const char *name) {
  const struct nx_condition is_file = {.origin = NX_ORIGIN_FILE};
  struct nx_error err;
  struct nx_entry *file = nx_registry_get(shared->registry, name, strlen(name));
  if (file && file->origin == NX_ORIGIN_FILE && read_handler(shared, name, file, &err))
    nx_registry_remove(shared->registry, name, &is_file, NULL);
  nx_entry_release(file);
}

void nx_shared_remove_file(struct nx_shared *shared, const char *name) {
  pthread_mutex_lock(&shared->mutex);
  uncover(shared, name);
  shared->version = 0; /* what is hidden is another thing now; and if the store could not be read it must be */
  pthread_mutex_unlock(&shared->mutex);
  nx_shared_sync(shared, NULL); /* a failure is logged, and the next request tries again */
}

/* ---- Changing ----------------------------------------------------------------------------------------------------------- */

static int check_change(struct nx_shared *shared, const struct nx_shared_change *change, const struct nx_entry *now,
                        struct nx_error *err) {
  struct nx_registry_stats stats;
  if (now && now->origin == NX_ORIGIN_FILE)
    return nx_error_set(err, NX_ERR_CONFLICT, "the handler \"%s\" comes from a file of HANDLERS_DIR: change it there",
                        change->name);
  int status = nx_condition_check(&change->condition, change->name, now, err);
  if (status || now) return status;
  nx_registry_read_stats(shared->registry, &stats);
  if (stats.registered < NX_REGISTRY_MAX_REGISTERED) return 0;
  return nx_error_set(err, NX_ERR_CONFLICT, "%zu handlers are registered, which is the limit: remove some first",
                      stats.registered);
}

/* What there shall be, from what there is. */
static int compose(const struct nx_shared_change *change, const struct nx_entry *now, struct nx_kept_handler *out,
                   struct nx_error *err) {
  const struct nx_grants *grants = change->set_grants ? change->grants : now ? now->grants : NULL;
  memcpy(out->source_hash, change->source_hash ? change->source_hash : now->source_hash, NX_HASH_BYTES);
  if (grants) nx_grants_write(grants, &out->grants);
  return out->grants.failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for grants") : 0;
}

static uint64_t version_of(const struct nx_entry *now) { return now ? now->version : NX_HANDLER_NONE; }

/* The store's way to say that another replica was faster, which must not be mixed up with conflicts of the caller's. */
static int busy_if_changed(int status) { return status == -NX_ERR_CONFLICT ? -NX_ERR_BUSY : status; }

static int publish(struct nx_shared *shared, const struct nx_shared_change *change, const struct nx_entry *now,
                   struct nx_error *err) {
  struct nx_kept_handler handler = {0};
  struct nx_refusal refused = {0};
  int status = check_change(shared, change, now, err);
  if (!status && !now && !change->source_hash)
    status = nx_error_set(err, NX_ERR_NOT_FOUND, "there is no handler \"%s\"", change->name);
  if (!status) status = compose(change, now, &handler, err);
  if (!status && change->source_hash)
    status = nx_kept_put_source(shared->kept, change->source_hash, change->source, change->source_bytes, &refused, err);
  if (!status) status = busy_if_changed(nx_kept_put(shared->kept, change->name, &handler, version_of(now), err));
  nx_buf_deinit(&handler.grants);
  return status;
}

static int withdraw(struct nx_shared *shared, const struct nx_shared_change *change, const struct nx_entry *now,
                    struct nx_error *err) {
  if (!now) return nx_error_set(err, NX_ERR_NOT_FOUND, "there is no handler \"%s\"", change->name);
  int status = check_change(shared, change, now, err);
  if (status) return status;
  return busy_if_changed(nx_kept_remove(shared->kept, change->name, now->version, err));
}

typedef int change_fn(struct nx_shared *shared, const struct nx_shared_change *change, const struct nx_entry *now,
                      struct nx_error *err);

/* Judges the change by what the store has, and makes it if that is still so; else NX_ERR_BUSY. */
static int try_change(struct nx_shared *shared, const struct nx_shared_change *change, change_fn *make, bool *created,
                      struct nx_error *err) {
  int status = nx_shared_sync(shared, err);
  if (status) return status;
  struct nx_entry *now = nx_registry_get(shared->registry, change->name, strlen(change->name));
  bool is_first = change->source_hash ? !now : now && !now->grants;
  status = make(shared, change, now, err);
  nx_entry_release(now);
  if (status) return status;
  if (created) *created = is_first;
  return nx_shared_sync(shared, err);
}

static int change_store(struct nx_shared *shared, const struct nx_shared_change *change, change_fn *make,
                        bool *created, struct nx_error *err) {
  struct nx_error failure;
  int status = -NX_ERR_BUSY;
  for (int i = 0; i < TRIES_MAX && status == -NX_ERR_BUSY; i++) {
    if (i) forget_version(shared);
    status = try_change(shared, change, make, created, &failure);
  }
  if (status == -NX_ERR_BUSY)
    return nx_error_set(err, NX_ERR_UNAVAILABLE, "other replicas keep changing the handler \"%s\"; try again",
                        change->name);
  if (status == -NX_ERR_OVERLOADED) return nx_error_set(err, NX_ERR_UNAVAILABLE, "the store is full");
  if (status && err) *err = failure;
  return status;
}

int nx_shared_put(struct nx_shared *shared, const struct nx_shared_change *change, bool *created, struct nx_error *err) {
  return change_store(shared, change, publish, created, err);
}

int nx_shared_remove(struct nx_shared *shared, const char *name, const struct nx_condition *condition,
                     struct nx_error *err) {
  const struct nx_shared_change change = {.name = name, .condition = *condition};
  return change_store(shared, &change, withdraw, NULL, err);
}

int nx_shared_load_source(struct nx_shared *shared, const struct nx_entry *entry, struct nx_buf *out,
                          struct nx_error *err) {
  return nx_kept_load_source_of(shared->kept, entry->name, entry->source_hash, out, err);
}

/* ---- Life --------------------------------------------------------------------------------------------------------------- */

int nx_shared_create(struct nx_shared **out, struct nx_kept_handlers *kept, struct nx_registry *registry,
                     struct nx_error *err) {
  struct nx_shared *shared = calloc(1, sizeof *shared);
  if (!shared) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the handlers of the store");
  *shared = (struct nx_shared){.kept = kept, .registry = registry};
  pthread_mutex_init(&shared->mutex, NULL);
  *out = shared;
  return 0;
}

void nx_shared_destroy(struct nx_shared *shared) {
  if (!shared) return;
  pthread_mutex_destroy(&shared->mutex);
  free(shared);
}
