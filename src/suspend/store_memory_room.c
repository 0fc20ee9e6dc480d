/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/store_memory_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"

#define BLOCK_STEP_BYTES 16u
#define BLOCK_LEAST_BYTES 32u
#define BLOCK_HEAD_BYTES sizeof(size_t)
#define OWN_MAPPING_BYTES (64u << 10) /* about from where on malloc maps pages for a block alone */
#define HEAP_LEAST 8u

static uint64_t load(const _Atomic uint64_t *value) { return atomic_load_explicit(value, memory_order_relaxed); }

/* ---- Items that ended make way ---------------------------------------------------------------------------------- */

static void link_newest(struct nx__memory_store *store, struct nx__item *item) {
  item->ended.newer = NULL;
  item->ended.older = store->ended.newest;
  *(store->ended.newest ? &store->ended.newest->ended.newer : &store->ended.oldest) = item;
  store->ended.newest = item;
}

static void unlink_ended(struct nx__memory_store *store, struct nx__item *item) {
  *(item->ended.newer ? &item->ended.newer->ended.older : &store->ended.newest) = item->ended.older;
  *(item->ended.older ? &item->ended.older->ended.newer : &store->ended.oldest) = item->ended.newer;
}

void nx__ended_add(struct nx__memory_store *store, struct nx__item *item) {
  if (!item->size) return;
  pthread_mutex_lock(&store->ended.lock);
  link_newest(store, item);
  pthread_mutex_unlock(&store->ended.lock);
}

void nx__ended_remove(struct nx__memory_store *store, struct nx__item *item) {
  if (!item->size) return;
  pthread_mutex_lock(&store->ended.lock);
  unlink_ended(store, item);
  pthread_mutex_unlock(&store->ended.lock);
}

/* The oldest becomes the newest: so neither is it found again by others at once, nor when it is being read. */
static bool next_ended(struct nx__memory_store *store, struct nx_suspension_id *id) {
  pthread_mutex_lock(&store->ended.lock);
  struct nx__item *item = store->ended.oldest;
  if (item) {
    *id = item->id;
    unlink_ended(store, item);
    link_newest(store, item);
  }
  pthread_mutex_unlock(&store->ended.lock);
  return item != NULL;
}

static void release(struct nx__memory_store *store, size_t bytes) {
  atomic_fetch_sub_explicit(&store->charged_bytes, bytes, memory_order_relaxed);
  nx_account_release(store->options.account, bytes);
}

/* Under the shard's lock: puts a block without bytes in the item's place. The old block pays for the new one, which so
 * needs no charge. False when somebody reads the item, or there is not even memory for that. */
static bool strip(struct nx__memory_store *store, struct nx__shard *shard, struct nx__item *item, size_t *freed_bytes) {
  struct nx__item *bare = item->refs > 1 ? NULL : malloc(nx__item_bytes(0));
  if (!bare) return false;
  nx__ended_remove(store, item);
  memcpy(bare, item, nx__item_bytes(0));
  bare->size = 0;
  nx_table_exchange(&shard->items, &item->node, &bare->node);
  shard->expiries.heap[bare->expiry.slot - 1] = &bare->expiry;
  size_t freed = nx__block_bytes(nx__item_bytes(item->size)) - nx__block_bytes(nx__item_bytes(0));
  free(item);
  release(store, freed);
  *freed_bytes += freed;
  return true;
}

static bool strip_by_id(struct nx__memory_store *store, const struct nx_suspension_id *id, size_t *freed_bytes) {
  struct nx__shard *shard = nx__shard_of(store, id->bytes);
  nx__lock(shard);
  struct nx__item *item = (struct nx__item *)nx_table_find(&shard->items, id);
  bool stripped = item && item->state != NX_STORED_WAITING && item->size && strip(store, shard, item, freed_bytes);
  nx__unlock(shard);
  return stripped;
}

/* Oldest first; returns what that freed. Items that are being read are passed over, a few of them. */
static size_t make_way(struct nx__memory_store *store, size_t want_bytes) {
  enum { PASSED_OVER_MAX = 16 };
  struct nx_suspension_id id;
  size_t freed_bytes = 0;
  unsigned passed_over = 0;
  while (freed_bytes < want_bytes && passed_over < PASSED_OVER_MAX && next_ended(store, &id))
    passed_over += !strip_by_id(store, &id, &freed_bytes);
  return freed_bytes;
}

/* ---- Charging --------------------------------------------------------------------------------------------------- */

size_t nx__block_bytes(size_t bytes) {
  size_t step = bytes >= OWN_MAPPING_BYTES ? 4096 : BLOCK_STEP_BYTES;
  size_t block = (bytes + BLOCK_HEAD_BYTES + step - 1) / step * step;
  return block < BLOCK_LEAST_BYTES ? BLOCK_LEAST_BYTES : block;
}

/* Within the bound of the store itself. */
static bool take_share(struct nx__memory_store *store, size_t bytes) {
  uint64_t used = load(&store->charged_bytes);
  do {
    if (bytes > store->options.max_bytes || used > store->options.max_bytes - bytes) return false;
  } while (!atomic_compare_exchange_weak_explicit(&store->charged_bytes, &used, used + bytes, memory_order_relaxed,
                                                  memory_order_relaxed));
  return true;
}

static int refuse_store(struct nx__memory_store *store, size_t bytes, struct nx_refusal *refused,
                        struct nx_error *err) {
  *refused = (struct nx_refusal){"suspended", store->options.max_bytes, load(&store->charged_bytes), bytes};
  return nx_error_set(err, NX_ERR_OVERLOADED,
                      "the store of suspended executions is full (layer: suspended): %lu of %lu bytes are used and %zu "
                      "more needed; SUSPEND_MAX_MB sets the limit",
                      refused->used_bytes, refused->limit_bytes, bytes);
}

static int refuse_container(struct nx__memory_store *store, size_t bytes, struct nx_refusal *refused,
                            struct nx_error *err) {
  *refused = nx_governor_refusal(store->options.governor, bytes);
  return nx_error_set(err, NX_ERR_OVERLOADED,
                      "the container has no memory to keep a suspended execution of %zu bytes (layer: %s)", bytes,
                      refused->layer);
}

static int charge(struct nx__memory_store *store, size_t bytes, struct nx_refusal *refused, struct nx_error *err) {
  while (!take_share(store, bytes)) {
    uint64_t room = nx_minus_u64(store->options.max_bytes, load(&store->charged_bytes));
    if (bytes > store->options.max_bytes || (room < bytes && !make_way(store, bytes - room)))
      return refuse_store(store, bytes, refused, err);
  }
  /* How much is missing there is not known: so as much makes way as is wanted. */
  while (!nx_account_charge(store->options.account, bytes)) {
    if (make_way(store, bytes)) continue;
    atomic_fetch_sub_explicit(&store->charged_bytes, bytes, memory_order_relaxed);
    return refuse_container(store, bytes, refused, err);
  }
  return 0;
}

int nx__block_create(struct nx__memory_store *store, size_t bytes, void **out, struct nx_refusal *refused,
                     struct nx_error *err) {
  *out = NULL;
  if (!bytes) return 0;
  size_t block_bytes = nx__block_bytes(bytes);
  int status = charge(store, block_bytes, refused, err);
  if (status) return status;
  *out = malloc(bytes);
  if (*out) return 0;
  release(store, block_bytes);
  return refuse_container(store, block_bytes, refused, err);
}

void nx__block_destroy(struct nx__memory_store *store, void *block, size_t bytes) {
  if (!block) return;
  free(block);
  release(store, nx__block_bytes(bytes));
}

size_t nx__item_bytes(size_t size) { return offsetof(struct nx__item, bytes) + size; }

void nx__item_release(struct nx__memory_store *store, struct nx__item *item) {
  if (atomic_fetch_sub_explicit(&item->refs, 1, memory_order_acq_rel) != 1) return;
  nx__block_destroy(store, item, nx__item_bytes(item->size));
}

/* ---- Arrays of a shard ------------------------------------------------------------------------------------------ */

static size_t heap_bytes(uint32_t capacity) { return capacity * sizeof(struct nx_timer *); }

/* An eighth more than there shall be. */
static uint32_t suitable_capacity(uint32_t count) {
  uint32_t capacity = count + count / 8;
  if (!count) return 0;
  return capacity < HEAP_LEAST ? HEAP_LEAST : capacity;
}

/* Gives the heap another array, unless others did so meanwhile. No lock is held. */
static int resize_heap(struct nx__memory_store *store, struct nx__shard *shard, struct nx_timers *timers,
                       uint32_t capacity, struct nx_refusal *refused, struct nx_error *err) {
  void *unused;
  int status = nx__block_create(store, heap_bytes(capacity), &unused, refused, err);
  if (status) return status;
  uint32_t unused_capacity = capacity;
  nx__lock(shard);
  if (timers->count <= capacity && timers->capacity != capacity) {
    struct nx_timer **heap = unused;
    if (timers->count) memcpy(heap, timers->heap, heap_bytes(timers->count));
    unused = timers->heap;
    unused_capacity = timers->capacity;
    timers->heap = heap;
    timers->capacity = capacity;
  }
  nx__unlock(shard);
  nx__block_destroy(store, unused, heap_bytes(unused_capacity));
  return 0;
}

static struct nx_timers *heap_of(struct nx__shard *shard, unsigned n) {
  struct nx_timers *const heaps[] = {&shard->expiries, &shard->wakes, &shard->untils};
  return n < sizeof heaps / sizeof *heaps ? heaps[n] : NULL;
}

/* Under the lock. */
static struct nx_timers *full_heap(struct nx__shard *shard) {
  struct nx_timers *timers;
  for (unsigned n = 0; (timers = heap_of(shard, n)); n++)
    if (timers->count == timers->capacity) return timers;
  return NULL;
}

int nx__lock_with_room(struct nx__memory_store *store, struct nx__shard *shard, struct nx_refusal *refused,
                       struct nx_error *err) {
  for (;;) {
    nx__lock(shard);
    struct nx_timers *full = full_heap(shard);
    if (!full) return 0;
    uint32_t capacity = suitable_capacity(full->count + 1);
    nx__unlock(shard);
    int status = resize_heap(store, shard, full, capacity, refused, err);
    if (status) return status;
  }
}

static void fit_heap(struct nx__memory_store *store, struct nx__shard *shard, struct nx_timers *timers) {
  struct nx_refusal refused;
  nx__lock(shard);
  uint32_t capacity = suitable_capacity(timers->count);
  bool is_much_too_large = capacity < timers->capacity - timers->capacity / 4;
  nx__unlock(shard);
  if (is_much_too_large) resize_heap(store, shard, timers, capacity, &refused, NULL);
}

static size_t buckets_bytes(size_t count) { return count * sizeof(struct nx_node *); }

static void fit_table(struct nx__memory_store *store, struct nx__shard *shard, struct nx_table *table) {
  struct nx_refusal refused;
  nx__lock(shard);
  size_t unused_count = nx_table_suitable(table);
  bool fits = unused_count == table->bucket_count;
  nx__unlock(shard);
  void *unused;
  if (fits || nx__block_create(store, buckets_bytes(unused_count), &unused, &refused, NULL)) return;
  if (unused) memset(unused, 0, buckets_bytes(unused_count));
  nx__lock(shard);
  if (nx_table_suitable(table) == unused_count && table->bucket_count != unused_count) {
    size_t old_count = table->bucket_count;
    unused = nx_table_rehash(table, unused, unused_count);
    unused_count = old_count;
  }
  nx__unlock(shard);
  nx__block_destroy(store, unused, buckets_bytes(unused_count));
}

void nx__shard_fit(struct nx__memory_store *store, struct nx__shard *shard) {
  struct nx_timers *timers;
  fit_table(store, shard, &shard->items);
  fit_table(store, shard, &shard->sources);
  for (unsigned n = 0; (timers = heap_of(shard, n)); n++) fit_heap(store, shard, timers);
}

void nx__shard_deinit(struct nx__memory_store *store, struct nx__shard *shard) {
  struct nx_timers *timers;
  for (unsigned n = 0; (timers = heap_of(shard, n)); n++)
    nx__block_destroy(store, timers->heap, heap_bytes(timers->capacity));
  nx__block_destroy(store, shard->items.buckets, buckets_bytes(shard->items.bucket_count));
  nx__block_destroy(store, shard->sources.buckets, buckets_bytes(shard->sources.bucket_count));
  pthread_mutex_destroy(&shard->lock);
}
