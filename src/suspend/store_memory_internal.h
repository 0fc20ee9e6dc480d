/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to the store in memory. Items and sources live in shards, each with a mutex of its own, so that nobody waits
 * for a table of hundreds of thousands to grow.
 *
 *   store_memory.c          items: states, leases, time
 *   store_memory_room.c     what is charged, and what makes way when it is full
 *   store_memory_sources.c  handlers' sources
 *
 * An item is one block: this header, then its bytes. Whoever copies its bytes holds a reference and no lock; so a block
 * never changes its bytes: a commit puts another block in its place.
 *
 * Locks: shard → ended, never two shards. Nobody charges under them, because that may have others give back memory,
 * nor copies the bytes of an item. Releasing a charge is allowed. */
#ifndef NX_SUSPEND_STORE_MEMORY_INTERNAL_H
#define NX_SUSPEND_STORE_MEMORY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "suspend/store.h"
#include "base/table.h"
#include "base/timers.h"

#define NX__SHARDS 128u /* a power of two */

struct nx__source {
  struct nx_node node; /* first, the key follows */
  uint8_t hash[NX_HASH_BYTES];
  struct nx_timer until; /* kept until then, whether items refer to it or not */
  uint32_t items;         /* that refer to it, and who copies it */
  uint32_t size;
  char text[];
};

struct nx__item {
  struct nx_node node; /* first, the key follows */
  struct nx_suspension_id id;
  struct nx_timer expiry;
  union {
    struct nx_timer wake; /* WAITING; in no heap when nothing wakes it */
    struct {
      struct nx__item *older, *newer;
    } ended; /* FINISHED, CANCELLED: neighbours in the order in which they ended */
  };
  struct nx__source *source; /* NULL: it was not kept */
  uint64_t lease_end_ms;     /* 0: free */
  uint32_t lease_number;     /* of the latest lease of this item; who has an earlier one has lost it */
  uint32_t size;
  _Atomic uint32_t refs; /* the table's, and of those who copy the bytes; only grows under the shard's lock */
  uint8_t state;         /* enum nx_stored_state */
  uint8_t bytes[];
};

struct nx__shard {
  _Alignas(64) pthread_mutex_t lock;
  struct nx_table items, sources;
  struct nx_timers expiries, wakes; /* of items */
  struct nx_timers untils;          /* of sources */
};

struct nx__memory_store {
  struct nx_store as_store; /* first */
  struct nx_store_options options;
  uint8_t secret[NX_TABLE_SECRET_BYTES];
  _Atomic uint64_t charged_bytes, waiting;
  struct {
    pthread_mutex_t lock;
    struct nx__item *oldest, *newest; /* all that ended and still have bytes */
  } ended;
  struct nx__shard shards[NX__SHARDS];
};

static inline void nx__lock(struct nx__shard *shard) { pthread_mutex_lock(&shard->lock); }
static inline void nx__unlock(struct nx__shard *shard) { pthread_mutex_unlock(&shard->lock); }
/* Keys are random, or content hashes: any byte tells shards apart. The table within has its own, secret order. */
static inline struct nx__shard *nx__shard_of(struct nx__memory_store *store, const uint8_t *key) {
  return &store->shards[(key[0] ^ key[NX_SUSPENSION_ID_BYTES - 1]) % NX__SHARDS];
}

/* ---- Room ------------------------------------------------------------------------------------------------------- */

/* Memory that the C library takes for a block of so many bytes. */
size_t nx__block_bytes(size_t bytes);
/* A block that is charged, after items that ended made way for it; NULL for 0 bytes. NX_ERR_OVERLOADED. No lock is
 * held. */
int nx__block_create(struct nx__memory_store *store, size_t bytes, void **out, struct nx_refusal *refused,
                     struct nx_error *err);
void nx__block_destroy(struct nx__memory_store *store, void *block, size_t bytes); /* NULL is allowed */

/* Locks the shard, each of whose heaps has room for one more. NX_ERR_OVERLOADED: it is not locked. */
int nx__lock_with_room(struct nx__memory_store *store, struct nx__shard *shard, struct nx_refusal *refused,
                       struct nx_error *err);
/* Brings the shard's tables to a suitable size, and its heaps if they are much too large. Where there is no memory for
 * that, they stay as they are. */
void nx__shard_fit(struct nx__memory_store *store, struct nx__shard *shard);
void nx__shard_deinit(struct nx__memory_store *store, struct nx__shard *shard);

size_t nx__item_bytes(size_t size); /* of the block of an item with so many bytes */
void nx__item_release(struct nx__memory_store *store, struct nx__item *item);
/* Under the shard's lock: it ended, and its bytes may make way; and it does not any more. */
void nx__ended_add(struct nx__memory_store *store, struct nx__item *item);
void nx__ended_remove(struct nx__memory_store *store, struct nx__item *item);

/* ---- Sources ---------------------------------------------------------------------------------------------------- */

/* One more item refers to it; NULL when it is not there. */
struct nx__source *nx__source_hold(struct nx__memory_store *store, const uint8_t hash[NX_HASH_BYTES]);
void nx__source_release(struct nx__memory_store *store, struct nx__source *source); /* NULL is allowed */
/* Frees what has been kept long enough. */
void nx__sources_sweep(struct nx__memory_store *store, struct nx__shard *shard, uint64_t now_ms);
int nx__source_keep(struct nx_store *base, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                    uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err);
int nx__source_load(struct nx_store *base, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out, struct nx_error *err);

#endif
