/* SPDX-License-Identifier: Apache-2.0
 *
 * Sources in memory: once each, as long as items refer to them or their time has not come. Whoever keeps a source is
 * about to create an item: the time bridges the moment in between. */
#include <string.h>

#include "base/clock.h"
#include "suspend/store_memory_internal.h"

static size_t source_bytes(size_t size) { return sizeof(struct nx__source) + size; }

static struct nx__source *find(struct nx__shard *shard, const uint8_t *hash) {
  return (struct nx__source *)nx_table_find(&shard->sources, hash);
}

/* Under the lock: takes it out of the table when nothing keeps it any more; the caller then frees it. */
static bool take_unused(struct nx__shard *shard, struct nx__source *source) {
  if (source->items || source->until.slot) return false;
  nx_table_remove(&shard->sources, &source->node);
  return true;
}

struct nx__source *nx__source_hold(struct nx__memory_store *store, const uint8_t hash[NX_HASH_BYTES]) {
  struct nx__shard *shard = nx__shard_of(store, hash);
  nx__lock(shard);
  struct nx__source *source = find(shard, hash);
  if (source) source->items++;
  nx__unlock(shard);
  return source;
}

void nx__source_release(struct nx__memory_store *store, struct nx__source *source) {
  if (!source) return;
  struct nx__shard *shard = nx__shard_of(store, source->hash);
  nx__lock(shard);
  source->items--;
  bool unused = take_unused(shard, source);
  nx__unlock(shard);
  if (unused) nx__block_destroy(store, source, source_bytes(source->size));
}

void nx__sources_sweep(struct nx__memory_store *store, struct nx__shard *shard, uint64_t now_ms) {
  for (;;) {
    nx__lock(shard);
    struct nx_timer *until = nx_timers_first(&shard->untils, now_ms);
    struct nx__source *source =
      until ? (struct nx__source *)((char *)until - offsetof(struct nx__source, until)) : NULL;
    bool unused = false;
    if (source) {
      nx_timers_remove(&shard->untils, until);
      unused = take_unused(shard, source);
    }
    nx__unlock(shard);
    if (!source) return;
    if (unused) nx__block_destroy(store, source, source_bytes(source->size));
  }
}

/* Under the lock, with room in the heap: never earlier than it was. */
static void keep_until(struct nx__shard *shard, struct nx__source *source, uint64_t until_ms) {
  if (!source->until.slot) {
    source->until.at = until_ms;
    nx_timers_add(&shard->untils, &source->until);
  } else if (source->until.at < until_ms) {
    nx_timers_set(&shard->untils, &source->until, until_ms);
  }
}

/* 1: it is there, and kept for long enough; 0: it is not. */
static int keep_existing(struct nx__memory_store *store, const uint8_t *hash, uint64_t until_ms,
                         struct nx_refusal *refused, struct nx_error *err) {
  struct nx__shard *shard = nx__shard_of(store, hash);
  int status = nx__lock_with_room(store, shard, refused, err);
  if (status) return status;
  struct nx__source *source = find(shard, hash);
  if (source) keep_until(shard, source, until_ms);
  nx__unlock(shard);
  return source != NULL;
}

/* `made` becomes the store's, unless another thread was faster: then it is the caller's still. */
static int insert(struct nx__memory_store *store, struct nx__source *made, uint64_t until_ms, bool *inserted,
                  struct nx_refusal *refused, struct nx_error *err) {
  struct nx__shard *shard = nx__shard_of(store, made->hash);
  int status = nx__lock_with_room(store, shard, refused, err);
  if (status) return status;
  struct nx__source *source = find(shard, made->hash);
  *inserted = !source;
  if (!source) nx_table_insert(&shard->sources, &made->node);
  keep_until(shard, source ? source : made, until_ms);
  nx__unlock(shard);
  nx__shard_fit(store, shard);
  return 0;
}

int nx__source_keep(struct nx_store *base, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                    uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err) {
  struct nx__memory_store *store = (struct nx__memory_store *)base;
  bool inserted = false;
  void *block;
  if (bytes > NX_STORE_ITEM_MAX_BYTES)
    return nx_error_set(err, NX_ERR_TOO_LARGE, "a source of %zu bytes is too large to be kept", bytes);
  int status = keep_existing(store, hash, until_ms, refused, err);
  if (status) return status > 0 ? 0 : status;
  if (!source) return nx_error_set(err, NX_ERR_NOT_FOUND, "the source is not kept yet");
  status = nx__block_create(store, source_bytes(bytes), &block, refused, err);
  if (status) return status;
  struct nx__source *made = block;
  *made = (struct nx__source){.size = (uint32_t)bytes};
  memcpy(made->hash, hash, NX_HASH_BYTES);
  memcpy(made->text, source, bytes);
  status = insert(store, made, until_ms, &inserted, refused, err);
  if (!inserted) nx__block_destroy(store, made, source_bytes(bytes));
  return status;
}

int nx__source_load(struct nx_store *base, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out,
                    struct nx_error *err) {
  struct nx__memory_store *store = (struct nx__memory_store *)base;
  struct nx__source *source = nx__source_hold(store, hash);
  if (!source) return nx_error_set(err, NX_ERR_NOT_FOUND, "the source of the suspended execution is not kept any more");
  nx_buf_add(out, source->text, source->size);
  nx__source_release(store, source);
  return out->failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to load the source of a suspended execution") : 0;
}
