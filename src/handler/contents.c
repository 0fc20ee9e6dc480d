/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/contents.h"

#include <stdlib.h>
#include <string.h>

struct kept {
  struct nx__content node; /* first: the map's view of it */
  struct nx_handler *handler;
  uint32_t pins;
  uint64_t used_in; /* the period of its last use */
  struct kept *next_dropped;
};

bool nx__contents_init(struct nx__contents *contents, size_t max_bytes, size_t max_count) {
  *contents = (struct nx__contents){._max_bytes = max_bytes, ._max_count = max_count};
  if (!nx__content_map_init(&contents->_map)) return false;
  pthread_mutex_init(&contents->_lock, NULL);
  return true;
}

static void lock(struct nx__contents *contents) { pthread_mutex_lock(&contents->_lock); }
static void unlock(struct nx__contents *contents) { pthread_mutex_unlock(&contents->_lock); }

static void add(_Atomic size_t *value, size_t bytes) { atomic_fetch_add_explicit(value, bytes, memory_order_relaxed); }
static void subtract(_Atomic size_t *value, size_t bytes) {
  atomic_fetch_sub_explicit(value, bytes, memory_order_relaxed);
}
static size_t load(const _Atomic size_t *value) { return atomic_load_explicit(value, memory_order_relaxed); }

/* Under the lock: takes the coldest out, and puts it before those that are. */
static struct kept *take_oldest(struct nx__contents *contents, struct kept *dropped) {
  struct kept *kept = (struct kept *)contents->_map.oldest;
  nx__content_remove(&contents->_map, &kept->node);
  subtract(&contents->cached_bytes, kept->handler->bytes);
  contents->_cached--;
  kept->next_dropped = dropped;
  return kept;
}

/* Under the lock: takes the coldest out until at most `max_bytes` and `max_count` stay. */
static struct kept *collect(struct nx__contents *contents, size_t max_bytes, size_t max_count) {
  struct kept *dropped = NULL;
  while (contents->_map.oldest && (load(&contents->cached_bytes) > max_bytes || contents->_cached > max_count))
    dropped = take_oldest(contents, dropped);
  return dropped;
}

/* Under the lock: it is the most recently used one. */
static void touch(struct nx__contents *contents, struct kept *kept) {
  nx__content_touch(&contents->_map, &kept->node);
  kept->used_in = contents->_period;
}

/* Outside the lock: unmapping megabytes takes a while. Returns the bytes of the handlers. */
static size_t release_all(struct kept *dropped) {
  size_t bytes = 0;
  while (dropped) {
    struct kept *next = dropped->next_dropped;
    bytes += dropped->handler->bytes;
    nx_handler_release(dropped->handler);
    free(dropped);
    dropped = next;
  }
  return bytes;
}

void nx__contents_deinit(struct nx__contents *contents) {
  release_all(collect(contents, 0, 0));
  nx__content_map_deinit(&contents->_map);
  pthread_mutex_destroy(&contents->_lock);
}

struct nx_handler *nx__contents_find(struct nx__contents *contents, const uint8_t hash[NX_HASH_BYTES]) {
  lock(contents);
  struct kept *kept = (struct kept *)nx__content_find(&contents->_map, hash);
  struct nx_handler *handler = kept ? nx_handler_hold(kept->handler) : NULL;
  if (kept && !kept->pins) touch(contents, kept);
  *(kept ? &contents->_hits : &contents->_misses) += 1;
  unlock(contents);
  return handler;
}

/* Under the lock: the node for this content; a new one is neither pinned nor in the order yet. */
static struct kept *find_or_insert(struct nx__contents *contents, struct nx_handler *handler, bool *inserted) {
  struct kept *kept = (struct kept *)nx__content_find(&contents->_map, handler->source_hash);
  *inserted = !kept;
  if (kept) return kept;
  kept = calloc(1, sizeof *kept);
  if (!kept) return NULL;
  memcpy(kept->node.hash, handler->source_hash, NX_HASH_BYTES);
  kept->handler = nx_handler_hold(handler);
  nx__content_insert(&contents->_map, &kept->node);
  return kept;
}

/* Under the lock. */
static void make_cached(struct nx__contents *contents, struct kept *kept) {
  touch(contents, kept);
  add(&contents->cached_bytes, kept->handler->bytes);
  contents->_cached++;
}

struct nx_handler *nx__contents_keep(struct nx__contents *contents, struct nx_handler *handler) {
  struct kept *dropped = NULL;
  struct nx_handler *equal = NULL;
  bool inserted;
  lock(contents);
  struct kept *kept = find_or_insert(contents, handler, &inserted);
  if (kept && inserted) {
    make_cached(contents, kept);
    dropped = collect(contents, contents->_max_bytes, contents->_max_count);
  } else if (kept) {
    if (!kept->pins) touch(contents, kept);
    equal = nx_handler_hold(kept->handler);
  }
  unlock(contents);
  release_all(dropped);
  if (!equal) return handler;
  nx_handler_release(handler);
  return equal;
}

struct nx_handler *nx__contents_pin(struct nx__contents *contents, struct nx_handler *handler) {
  struct nx_handler *result = NULL;
  bool inserted;
  lock(contents);
  struct kept *kept = find_or_insert(contents, handler, &inserted);
  if (kept) {
    if (!kept->pins++) {
      if (!inserted) {
        nx__content_pin(&contents->_map, &kept->node);
        subtract(&contents->cached_bytes, kept->handler->bytes);
        contents->_cached--;
      }
      add(&contents->pinned_bytes, kept->handler->bytes);
    }
    result = nx_handler_hold(kept->handler);
  }
  unlock(contents);
  return result;
}

void nx__contents_unpin(struct nx__contents *contents, const uint8_t hash[NX_HASH_BYTES]) {
  struct kept *dropped = NULL;
  lock(contents);
  struct kept *kept = (struct kept *)nx__content_find(&contents->_map, hash);
  if (!--kept->pins) {
    subtract(&contents->pinned_bytes, kept->handler->bytes);
    make_cached(contents, kept);
    dropped = collect(contents, contents->_max_bytes, contents->_max_count);
  }
  unlock(contents);
  release_all(dropped);
}

size_t nx__contents_drop(struct nx__contents *contents, size_t bytes) {
  lock(contents);
  size_t cached = load(&contents->cached_bytes);
  struct kept *dropped = collect(contents, cached > bytes ? cached - bytes : 0, SIZE_MAX);
  unlock(contents);
  return release_all(dropped);
}

size_t nx__contents_drop_unused(struct nx__contents *contents) {
  struct kept *dropped = NULL;
  lock(contents);
  while (contents->_map.oldest && ((struct kept *)contents->_map.oldest)->used_in < contents->_period)
    dropped = take_oldest(contents, dropped);
  contents->_period++;
  unlock(contents);
  return release_all(dropped);
}

void nx__contents_read_stats(struct nx__contents *contents, struct nx_registry_stats *out) {
  lock(contents);
  out->registered_bytes = load(&contents->pinned_bytes);
  out->cached = contents->_cached;
  out->cached_bytes = load(&contents->cached_bytes);
  out->hits = contents->_hits;
  out->misses = contents->_misses;
  unlock(contents);
}
