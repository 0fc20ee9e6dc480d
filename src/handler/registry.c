/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/registry.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "handler/contents.h"
#include "metrics/metrics.h"

#define FIRST_BUCKETS 64u /* a power of two */

/* Executions of a name, whatever entry they ran under. */
struct nx__tally {
  _Atomic uint32_t refs;
  _Atomic uint64_t executions;
};

struct slot {
  struct slot *chain;
  struct nx_entry *entry;
};

struct nx_registry {
  pthread_rwlock_t names_lock;
  /* Synchronization: names_lock. */
  struct slot **buckets;
  size_t bucket_count, registered;
  /* Constant. */
  size_t max_registered;
  uint8_t key[crypto_shorthash_KEYBYTES]; /* names come from requests: nobody may choose their bucket */
  /* Synchronization: its own. */
  struct nx__contents contents;
};

/* ---- Entries ---------------------------------------------------------------------------------------------------- */

const char *nx_origin_name(enum nx_origin origin) { return origin == NX_ORIGIN_FILE ? "file" : "api"; }

static struct nx__tally *tally_hold(struct nx__tally *tally) {
  atomic_fetch_add_explicit(&tally->refs, 1, memory_order_relaxed);
  return tally;
}

static void tally_release(struct nx__tally *tally) {
  if (tally && atomic_fetch_sub_explicit(&tally->refs, 1, memory_order_acq_rel) == 1) free(tally);
}

struct nx_entry *nx_entry_hold(struct nx_entry *entry) {
  atomic_fetch_add_explicit(&entry->_refs, 1, memory_order_relaxed);
  return entry;
}

void nx_entry_release(struct nx_entry *entry) {
  if (!entry || atomic_fetch_sub_explicit(&entry->_refs, 1, memory_order_acq_rel) != 1) return;
  nx_handler_release(entry->handler);
  nx_grants_release(entry->grants);
  tally_release(entry->_tally);
  free(entry);
}

void nx_entry_count_execution(struct nx_entry *entry) {
  atomic_fetch_add_explicit(&entry->_tally->executions, 1, memory_order_relaxed);
}

uint64_t nx_entry_executions(const struct nx_entry *entry) {
  return atomic_load_explicit(&entry->_tally->executions, memory_order_relaxed);
}

/* ---- Table of names --------------------------------------------------------------------------------------------- */

static struct slot **bucket_of(const struct nx_registry *registry, const char *name, size_t name_bytes) {
  uint64_t value;
  crypto_shorthash((unsigned char *)&value, (const unsigned char *)name, name_bytes, registry->key);
  return &registry->buckets[value & (registry->bucket_count - 1)];
}

/* Under the lock: the link to the slot of this name, or to the NULL where it would be. */
static struct slot **find(const struct nx_registry *registry, const char *name, size_t name_bytes) {
  struct slot **link = bucket_of(registry, name, name_bytes);
  while (*link) {
    const char *have = (*link)->entry->name;
    /* The rest of `have` is zeroes, so the last test keeps out a name that ends in NUL bytes. */
    if (!memcmp(have, name, name_bytes) && !have[name_bytes] && have[name_bytes - 1]) break;
    link = &(*link)->chain;
  }
  return link;
}

/* Under the write lock. */
static void grow(struct nx_registry *registry) {
  struct slot **old = registry->buckets;
  size_t old_count = registry->bucket_count;
  struct slot **buckets = calloc(2 * old_count, sizeof(struct slot *));
  if (!buckets) return; /* harmless: chains get longer */
  registry->buckets = buckets;
  registry->bucket_count = 2 * old_count;
  for (size_t i = 0; i < old_count; i++) {
    for (struct slot *slot = old[i], *next; slot; slot = next) {
      next = slot->chain;
      struct slot **bucket = bucket_of(registry, slot->entry->name, strlen(slot->entry->name));
      slot->chain = *bucket;
      *bucket = slot;
    }
  }
  free(old);
}

struct nx_entry *nx_registry_get(struct nx_registry *registry, const char *name, size_t name_bytes) {
  if (!name_bytes || name_bytes > NX_HANDLER_NAME_MAX) return NULL;
  pthread_rwlock_rdlock(&registry->names_lock);
  struct slot *slot = *find(registry, name, name_bytes);
  struct nx_entry *entry = slot ? nx_entry_hold(slot->entry) : NULL;
  pthread_rwlock_unlock(&registry->names_lock);
  return entry;
}

/* ---- Changes ---------------------------------------------------------------------------------------------------- */

static int unmet(struct nx_error *err, const char *name, const char *why) {
  return nx_error_set(err, NX_ERR_PRECONDITION, "handler '%s' %s", name, why);
}

int nx_condition_check(const struct nx_condition *condition, const char *name, const struct nx_entry *now,
                       struct nx_error *err) {
  bool needs_one = condition->must_exist || condition->hash || condition->origin != NX_ORIGIN_ANY;
  if (condition->must_not_exist && now) return unmet(err, name, "exists already");
  if (needs_one && !now) return unmet(err, name, "does not exist");
  if (condition->hash && sodium_memcmp(condition->hash, now->source_hash, NX_HASH_BYTES))
    return unmet(err, name, "has another version than the one expected");
  if (condition->origin != NX_ORIGIN_ANY && condition->origin != now->origin)
    return unmet(err, name, now->origin == NX_ORIGIN_FILE ? "comes from a file" : "was set through the API");
  if (condition->is_compared && condition->entry != now) return unmet(err, name, "has been changed meanwhile");
  return 0;
}

/* Everything a change may need, allocated before the lock is taken. */
struct fresh {
  struct nx_entry *entry;
  struct slot *slot;
  struct nx__tally *tally;
};

static void discard(struct fresh *fresh) {
  nx_entry_release(fresh->entry);
  free(fresh->slot);
  tally_release(fresh->tally);
}

static bool prepare(struct fresh *fresh, const char *name, bool may_create) {
  *fresh = (struct fresh){.entry = calloc(1, sizeof *fresh->entry)};
  if (fresh->entry) {
    fresh->entry->_refs = 1;
    fresh->entry->metrics_label = nx_metrics_handler_label(name);
    strcpy(fresh->entry->name, name);
  }
  if (may_create) {
    fresh->slot = calloc(1, sizeof *fresh->slot);
    fresh->tally = calloc(1, sizeof *fresh->tally);
    if (fresh->tally) fresh->tally->refs = 1;
  }
  if (fresh->entry && (!may_create || (fresh->slot && fresh->tally))) return true;
  discard(fresh);
  return false;
}

/* Under the write lock: puts the fresh entry where `link` points. What it displaces is left in `fresh`. */
static void publish(struct nx_registry *registry, struct slot **link, struct fresh *fresh) {
  struct nx_entry *entry = fresh->entry;
  if (*link) {
    entry->_tally = tally_hold((*link)->entry->_tally);
    fresh->entry = (*link)->entry;
    (*link)->entry = entry;
    return;
  }
  entry->_tally = fresh->tally;
  fresh->slot->entry = entry;
  *link = fresh->slot;
  *fresh = (struct fresh){0};
  if (++registry->registered > registry->bucket_count) grow(registry);
}

/* Under the write lock; `fresh->entry` has its content already. */
static int try_put(struct nx_registry *registry, const struct nx_registration *what, struct fresh *fresh,
                   bool *created, struct nx_error *err) {
  struct slot **link = find(registry, what->name, strlen(what->name));
  const struct nx_entry *now = *link ? (*link)->entry : NULL;
  int status = nx_condition_check(&what->condition, what->name, now, err);
  if (status) return status;
  if (!now && registry->registered >= registry->max_registered)
    return nx_error_set(err, NX_ERR_CONFLICT, "%zu handlers are registered, which is the limit: remove some first",
                        registry->registered);
  fresh->entry->origin = what->origin;
  fresh->entry->version = what->version;
  fresh->entry->grants = nx_grants_hold(what->set_grants ? what->grants : now ? now->grants : NULL);
  *created = !now;
  publish(registry, link, fresh);
  return 0;
}

static bool set_content(struct nx_registry *registry, struct nx_entry *entry, const struct nx_registration *what) {
  memcpy(entry->source_hash, what->handler ? what->handler->source_hash : what->source_hash, NX_HASH_BYTES);
  if (!what->handler) return true;
  entry->handler = nx__contents_pin(&registry->contents, what->handler);
  return entry->handler != NULL;
}

static void unpin(struct nx_registry *registry, const struct nx_entry *entry) {
  if (entry && entry->handler) nx__contents_unpin(&registry->contents, entry->source_hash);
}

int nx_registry_put(struct nx_registry *registry, const struct nx_registration *what, bool *created,
                    struct nx_error *err) {
  if (!nx_handler_name_valid(what->name, strlen(what->name)))
    return nx_error_set(err, NX_ERR_INVALID,
                        "a handler's name is 1 to %u letters, digits, '_', '.' or '-', and begins with none of the "
                        "last two", NX_HANDLER_NAME_MAX);
  struct fresh fresh;
  if (!prepare(&fresh, what->name, true)) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to register a handler");
  if (!set_content(registry, fresh.entry, what)) {
    discard(&fresh);
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to register a handler");
  }
  bool is_new = false;
  pthread_rwlock_wrlock(&registry->names_lock);
  int status = try_put(registry, what, &fresh, &is_new, err);
  pthread_rwlock_unlock(&registry->names_lock);
  /* The entry left in `fresh` is the displaced one, or ours when the change was refused: its pin ends either way. */
  unpin(registry, fresh.entry);
  discard(&fresh);
  if (!status && created) *created = is_new;
  return status;
}

void nx_registry_bind(struct nx_registry *registry, const struct nx_entry *entry, struct nx_handler *handler) {
  const struct nx_registration what = {
    .name = entry->name,
    .handler = handler,
    .version = entry->version,
    .origin = entry->origin,
    .set_grants = true,
    .grants = entry->grants,
    .condition = {.is_compared = true, .entry = entry},
  };
  nx_registry_put(registry, &what, NULL, NULL); /* else it is found by content, as long as that is kept */
}

static int not_found(struct nx_error *err, const char *name) {
  return nx_error_set(err, NX_ERR_NOT_FOUND, "there is no handler '%.*s'", (int)NX_HANDLER_NAME_MAX, name);
}

int nx_registry_remove(struct nx_registry *registry, const char *name, const struct nx_condition *condition,
                       struct nx_error *err) {
  if (!nx_handler_name_valid(name, strlen(name))) return not_found(err, name);
  struct slot *removed = NULL;
  pthread_rwlock_wrlock(&registry->names_lock);
  struct slot **link = find(registry, name, strlen(name));
  int status = *link ? 0 : not_found(err, name);
  if (!status && condition) status = nx_condition_check(condition, name, (*link)->entry, err);
  if (!status) {
    removed = *link;
    *link = removed->chain;
    registry->registered--;
  }
  pthread_rwlock_unlock(&registry->names_lock);
  if (!removed) return status;
  unpin(registry, removed->entry);
  nx_entry_release(removed->entry);
  free(removed);
  return 0;
}

int nx_registry_set_grants(struct nx_registry *registry, const char *name, struct nx_grants *grants,
                           struct nx_error *err) {
  struct fresh fresh;
  if (!nx_handler_name_valid(name, strlen(name))) return not_found(err, name);
  if (!prepare(&fresh, name, false)) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to set grants");
  pthread_rwlock_wrlock(&registry->names_lock);
  struct slot **link = find(registry, name, strlen(name));
  bool found = *link != NULL;
  if (found) {
    const struct nx_entry *now = (*link)->entry;
    fresh.entry->origin = now->origin;
    fresh.entry->version = now->version;
    memcpy(fresh.entry->source_hash, now->source_hash, NX_HASH_BYTES);
    if (now->handler) fresh.entry->handler = nx_handler_hold(now->handler); /* its pin goes over to the new entry */
    fresh.entry->grants = nx_grants_hold(grants);
    publish(registry, link, &fresh);
  }
  pthread_rwlock_unlock(&registry->names_lock);
  discard(&fresh);
  return found ? 0 : not_found(err, name);
}

/* ---- List ------------------------------------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b) {
  return strcmp((*(struct nx_entry *const *)a)->name, (*(struct nx_entry *const *)b)->name);
}

int nx_registry_list(struct nx_registry *registry, struct nx_registry_list *out, struct nx_error *err) {
  struct nx_registry_list list = {0};
  pthread_rwlock_rdlock(&registry->names_lock);
  if (registry->registered) list.entries = malloc(registry->registered * sizeof(struct nx_entry *));
  bool failed = registry->registered && !list.entries;
  for (size_t i = 0; !failed && i < registry->bucket_count; i++)
    for (struct slot *slot = registry->buckets[i]; slot; slot = slot->chain)
      list.entries[list.count++] = nx_entry_hold(slot->entry);
  pthread_rwlock_unlock(&registry->names_lock);
  if (failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to list the handlers");
  if (list.count > 1) qsort(list.entries, list.count, sizeof(struct nx_entry *), compare_entries);
  *out = list;
  return 0;
}

void nx_registry_list_deinit(struct nx_registry_list *list) {
  for (size_t i = 0; i < list->count; i++) nx_entry_release(list->entries[i]);
  free(list->entries);
  *list = (struct nx_registry_list){0};
}

/* ---- Contents --------------------------------------------------------------------------------------------------- */

struct nx_handler *nx_registry_find(struct nx_registry *registry, const uint8_t source_hash[NX_HASH_BYTES]) {
  return nx__contents_find(&registry->contents, source_hash);
}

struct nx_handler *nx_registry_keep(struct nx_registry *registry, struct nx_handler *handler) {
  return nx__contents_keep(&registry->contents, handler);
}

size_t nx_registry_drop_cold(struct nx_registry *registry, size_t bytes) {
  return nx__contents_drop(&registry->contents, bytes);
}

size_t nx_registry_drop_unused(struct nx_registry *registry) {
  return nx__contents_drop_unused(&registry->contents);
}

void nx_registry_read_stats(struct nx_registry *registry, struct nx_registry_stats *out) {
  pthread_rwlock_rdlock(&registry->names_lock);
  out->registered = registry->registered;
  pthread_rwlock_unlock(&registry->names_lock);
  nx__contents_read_stats(&registry->contents, out);
}

size_t nx_registry_bytes(const struct nx_registry *registry) {
  return atomic_load_explicit(&registry->contents.pinned_bytes, memory_order_relaxed) +
         atomic_load_explicit(&registry->contents.cached_bytes, memory_order_relaxed);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

int nx_registry_create(struct nx_registry **out, const struct nx_registry_opts *opts, struct nx_error *err) {
  struct nx_registry *registry = calloc(1, sizeof *registry);
  if (!registry) goto fail;
  registry->max_registered = opts->max_registered ? opts->max_registered : NX_REGISTRY_MAX_REGISTERED;
  registry->bucket_count = FIRST_BUCKETS;
  registry->buckets = calloc(FIRST_BUCKETS, sizeof(struct slot *));
  if (!registry->buckets) goto fail_registry;
  if (!nx__contents_init(&registry->contents, opts->cache_max_bytes, opts->cache_max_count)) goto fail_buckets;
  randombytes_buf(registry->key, sizeof registry->key);
  pthread_rwlock_init(&registry->names_lock, NULL);
  *out = registry;
  return 0;

fail_buckets:
  free(registry->buckets);
fail_registry:
  free(registry);
fail:
  return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the handler registry");
}

void nx_registry_destroy(struct nx_registry *registry) {
  if (!registry) return;
  for (size_t i = 0; i < registry->bucket_count; i++) {
    for (struct slot *slot = registry->buckets[i], *next; slot; slot = next) {
      next = slot->chain;
      unpin(registry, slot->entry);
      nx_entry_release(slot->entry);
      free(slot);
    }
  }
  free(registry->buckets);
  nx__contents_deinit(&registry->contents);
  pthread_rwlock_destroy(&registry->names_lock);
  free(registry);
}
