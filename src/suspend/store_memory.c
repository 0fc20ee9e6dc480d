/* SPDX-License-Identifier: Apache-2.0
 *
 * Items in memory. A shard's lock covers what is said about an item; its bytes never change, and are copied outside. */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "suspend/store_memory_internal.h"

#define DUE_MAX 256u /* ids that one call gives back */

static struct nx__memory_store *of(struct nx_store *base) { return (struct nx__memory_store *)base; }

static struct nx__item *item_of_expiry(struct nx_timer *timer) {
  return (struct nx__item *)((char *)timer - offsetof(struct nx__item, expiry));
}

static struct nx__item *item_of_wake(struct nx_timer *timer) {
  return (struct nx__item *)((char *)timer - offsetof(struct nx__item, wake));
}

static int not_found(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NOT_FOUND, "there is no such suspended execution");
}

static int lost(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_GONE, "the suspended execution was cancelled, or another request resumes it now");
}

/* ---- Blocks ----------------------------------------------------------------------------------------------------- */

/* A block that nobody else can see yet. */
static int make_item(struct nx__memory_store *store, const struct nx_suspension_id *id,
                     const struct nx_store_item *item, struct nx__item **out, struct nx_refusal *refused,
                     struct nx_error *err) {
  void *block;
  if (item->size > NX_STORE_ITEM_MAX_BYTES)
    return nx_error_set(err, NX_ERR_TOO_LARGE, "a suspended execution of %zu bytes is too large to be kept",
                        item->size);
  int status = nx__block_create(store, nx__item_bytes(item->size), &block, refused, err);
  if (status) return status;
  struct nx__item *made = block;
  memset(made, 0, nx__item_bytes(0));
  made->id = *id;
  made->expiry.at = item->expires_ms;
  made->source = nx__source_hold(store, item->source_name);
  made->size = (uint32_t)item->size;
  made->refs = 1;
  made->state = (uint8_t)item->state;
  if (item->state == NX_STORED_WAITING) made->wake.at = item->wake_ms;
  memcpy(made->bytes, item->bytes, item->size);
  *out = made;
  return 0;
}

/* It is in no table: it lives on only for those who copy its bytes. */
static void retire(struct nx__memory_store *store, struct nx__item *item) {
  nx__source_release(store, item->source);
  nx__item_release(store, item);
}

/* Under the shard's lock, what follows from its state: it may wake, or is over. */
static void begin_state(struct nx__memory_store *store, struct nx__shard *shard, struct nx__item *item) {
  if (item->state != NX_STORED_WAITING) {
    nx__ended_add(store, item);
    return;
  }
  atomic_fetch_add_explicit(&store->waiting, 1, memory_order_relaxed);
  if (item->wake.at) nx_timers_add(&shard->wakes, &item->wake);
}

static void end_state(struct nx__memory_store *store, struct nx__shard *shard, struct nx__item *item) {
  if (item->state != NX_STORED_WAITING) {
    nx__ended_remove(store, item);
    return;
  }
  atomic_fetch_sub_explicit(&store->waiting, 1, memory_order_relaxed);
  nx_timers_remove(&shard->wakes, &item->wake);
}

/* ---- Looking, under the shard's lock ---------------------------------------------------------------------------- */

static struct nx__item *find(struct nx__shard *shard, const struct nx_suspension_id *id) {
  return (struct nx__item *)nx_table_find(&shard->items, id);
}

static bool is_leased(const struct nx__item *item, uint64_t now) { return item->lease_end_ms > now; }

/* Who resumes it in time may bring it to its end. */
static bool is_expired(const struct nx__item *item, uint64_t now) {
  return item->expiry.at <= now && !is_leased(item, now);
}

/* The item as long as this lease is its latest, also past its time: work that is done and in nobody's way counts. */
static struct nx__item *find_held(struct nx__shard *shard, const struct nx_store_lease *lease) {
  struct nx__item *item = find(shard, &lease->id);
  return item && item->lease_end_ms && item->lease_number == lease->token ? item : NULL;
}

static int check_waits(const struct nx__item *item, uint64_t now, struct nx_error *err) {
  if (is_expired(item, now)) return nx_error_set(err, NX_ERR_GONE, "the suspended execution has expired");
  if (item->state == NX_STORED_FINISHED)
    return nx_error_set(err, NX_ERR_GONE, "the suspended execution has already finished");
  if (item->state == NX_STORED_CANCELLED)
    return nx_error_set(err, NX_ERR_GONE, "the suspended execution was cancelled");
  return 0;
}

/* Returns the item, which stays until nx__item_release. */
static struct nx__item *hold(struct nx__item *item, struct nx_stored *out) {
  out->state = (enum nx_stored_state)item->state;
  out->expires_ms = item->expiry.at;
  out->wake_ms = item->state == NX_STORED_WAITING ? item->wake.at : 0;
  atomic_fetch_add_explicit(&item->refs, 1, memory_order_relaxed);
  return item;
}

/* Without the lock. */
static int copy_and_release(struct nx__memory_store *store, struct nx__item *item, struct nx_stored *out,
                            struct nx_error *err) {
  nx_buf_add(&out->bytes, item->bytes, item->size);
  nx__item_release(store, item);
  return out->bytes.failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to read a suspended execution") : 0;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

static int create(struct nx_store *base, const struct nx_suspension_id *id, const struct nx_store_item *item,
                  struct nx_refusal *refused, struct nx_error *err) {
  struct nx__memory_store *store = of(base);
  struct nx__shard *shard = nx__shard_of(store, id->bytes);
  struct nx__item *made;
  int status = make_item(store, id, item, &made, refused, err);
  if (status) return status;
  status = nx__lock_with_room(store, shard, refused, err);
  if (status) {
    retire(store, made);
    return status;
  }
  nx_table_insert(&shard->items, &made->node);
  nx_timers_add(&shard->expiries, &made->expiry);
  begin_state(store, shard, made);
  nx__unlock(shard);
  nx__shard_fit(store, shard);
  return 0;
}

static void release(struct nx_store *base, struct nx_store_lease *lease) {
  struct nx__shard *shard = nx__shard_of(of(base), lease->id.bytes);
  nx__lock(shard);
  struct nx__item *item = find_held(shard, lease);
  if (item) item->lease_end_ms = 0;
  nx__unlock(shard);
}

/* Under the shard's lock. */
static int take_lease(struct nx__item *item, uint64_t lease_ms, struct nx_store_lease *lease, struct nx_error *err) {
  uint64_t now = nx_clock_realtime_ms();
  int status = check_waits(item, now, err);
  if (status) return status;
  if (is_leased(item, now))
    return nx_error_set(err, NX_ERR_BUSY, "another request resumes this suspended execution right now");
  item->lease_end_ms = now + lease_ms;
  *lease = (struct nx_store_lease){.id = item->id, .token = ++item->lease_number};
  return 0;
}

static int lease_item(struct nx_store *base, const struct nx_suspension_id *id, uint64_t lease_ms,
                      struct nx_stored *out, struct nx_store_lease *lease, struct nx_error *err) {
  struct nx__memory_store *store = of(base);
  struct nx__shard *shard = nx__shard_of(store, id->bytes);
  nx__lock(shard);
  struct nx__item *item = find(shard, id);
  int status = item ? take_lease(item, lease_ms, lease, err) : not_found(err);
  if (status == 0 || status == -NX_ERR_GONE) hold(item, out);
  nx__unlock(shard);
  if (status && status != -NX_ERR_GONE) return status;
  int copied = copy_and_release(store, item, out, err);
  if (copied && !status) release(base, lease);
  return copied ? copied : status;
}

static int extend(struct nx_store *base, struct nx_store_lease *lease, uint64_t lease_ms, struct nx_error *err) {
  struct nx__shard *shard = nx__shard_of(of(base), lease->id.bytes);
  nx__lock(shard);
  struct nx__item *item = find_held(shard, lease);
  if (item) item->lease_end_ms = nx_clock_realtime_ms() + lease_ms;
  nx__unlock(shard);
  return item ? 0 : lost(err);
}

/* Under the shard's lock: `made` takes the place of `item`, which is in nothing afterwards. */
static void replace(struct nx__memory_store *store, struct nx__shard *shard, struct nx__item *item,
                    struct nx__item *made) {
  end_state(store, shard, item);
  nx_timers_remove(&shard->expiries, &item->expiry);
  nx_table_exchange(&shard->items, &item->node, &made->node);
  nx_timers_add(&shard->expiries, &made->expiry);
  made->lease_number = item->lease_number;
  begin_state(store, shard, made);
}

static int commit(struct nx_store *base, struct nx_store_lease *lease, const struct nx_store_item *item,
                  struct nx_refusal *refused, struct nx_error *err) {
  struct nx__memory_store *store = of(base);
  struct nx__shard *shard = nx__shard_of(store, lease->id.bytes);
  struct nx__item *made;
  int status = make_item(store, &lease->id, item, &made, refused, err);
  if (status == -NX_ERR_TOO_LARGE) release(base, lease);
  if (status) return status;
  status = nx__lock_with_room(store, shard, refused, err);
  if (status) {
    retire(store, made);
    return status;
  }
  struct nx__item *held = find_held(shard, lease);
  if (held) replace(store, shard, held, made);
  nx__unlock(shard);
  retire(store, held ? held : made);
  return held ? 0 : lost(err);
}

static int read_item(struct nx_store *base, const struct nx_suspension_id *id, struct nx_stored *out,
                     struct nx_error *err) {
  struct nx__memory_store *store = of(base);
  struct nx__shard *shard = nx__shard_of(store, id->bytes);
  nx__lock(shard);
  struct nx__item *item = find(shard, id);
  item = item && !is_expired(item, nx_clock_realtime_ms()) ? hold(item, out) : NULL;
  nx__unlock(shard);
  return item ? copy_and_release(store, item, out, err) : not_found(err);
}

static int cancel(struct nx_store *base, const struct nx_suspension_id *id, struct nx_error *err) {
  struct nx__memory_store *store = of(base);
  struct nx__shard *shard = nx__shard_of(store, id->bytes);
  nx__lock(shard);
  struct nx__item *item = find(shard, id);
  int status = item ? check_waits(item, nx_clock_realtime_ms(), err) : not_found(err);
  if (!status) {
    end_state(store, shard, item);
    item->state = NX_STORED_CANCELLED;
    item->lease_end_ms = 0;
    begin_state(store, shard, item);
  }
  nx__unlock(shard);
  return status;
}

/* ---- Time ------------------------------------------------------------------------------------------------------- */

struct due {
  uint64_t now;
  size_t count, max;
  struct {
    uint64_t at_ms;
    struct nx_suspension_id id;
  } found[DUE_MAX]; /* the earliest first */
};

static bool is_too_late(const struct due *due, uint64_t at_ms) {
  return at_ms > due->now || (due->count == due->max && at_ms >= due->found[due->count - 1].at_ms);
}

static void add_due(struct due *due, const struct nx__item *item) {
  if (due->count < due->max) due->count++;
  size_t i = due->count - 1;
  for (; i > 0 && due->found[i - 1].at_ms > item->wake.at; i--) due->found[i] = due->found[i - 1];
  due->found[i].at_ms = item->wake.at;
  due->found[i].id = item->id;
}

/* Those below a timer in the heap are not earlier than it: so only what is due is visited, and little more. */
static void collect_due(struct due *due, const struct nx_timers *wakes, uint32_t slot) {
  if (slot > wakes->count || is_too_late(due, wakes->heap[slot - 1]->at)) return;
  const struct nx__item *item = item_of_wake(wakes->heap[slot - 1]);
  if (!is_leased(item, due->now) && !is_expired(item, due->now)) add_due(due, item);
  collect_due(due, wakes, 2 * slot);
  collect_due(due, wakes, 2 * slot + 1);
}

static size_t find_due(struct nx_store *base, uint64_t at_ms, struct nx_suspension_id *ids, size_t max) {
  struct nx__memory_store *store = of(base);
  struct due due = {.now = at_ms, .max = max < DUE_MAX ? max : DUE_MAX};
  for (unsigned i = 0; i < NX__SHARDS && due.max; i++) {
    nx__lock(&store->shards[i]);
    collect_due(&due, &store->shards[i].wakes, 1);
    nx__unlock(&store->shards[i]);
  }
  for (size_t i = 0; i < due.count; i++) ids[i] = due.found[i].id;
  return due.count;
}

/* Takes out an item that has expired; NULL: there is none. Those under a lease stay as long as that. */
static struct nx__item *take_expired(struct nx__memory_store *store, struct nx__shard *shard, uint64_t now) {
  struct nx_timer *expiry;
  struct nx__item *item = NULL;
  nx__lock(shard);
  while ((expiry = nx_timers_first(&shard->expiries, now)) && is_leased(item_of_expiry(expiry), now))
    nx_timers_set(&shard->expiries, expiry, item_of_expiry(expiry)->lease_end_ms);
  if (expiry) {
    item = item_of_expiry(expiry);
    end_state(store, shard, item);
    nx_timers_remove(&shard->expiries, expiry);
    nx_table_remove(&shard->items, &item->node);
  }
  nx__unlock(shard);
  return item;
}

static void sweep(struct nx_store *base, uint64_t at_ms) {
  struct nx__memory_store *store = of(base);
  struct nx__item *item;
  for (unsigned i = 0; i < NX__SHARDS; i++)
    while ((item = take_expired(store, &store->shards[i], at_ms))) retire(store, item);
  for (unsigned i = 0; i < NX__SHARDS; i++) {
    nx__sources_sweep(store, &store->shards[i], at_ms);
    nx__shard_fit(store, &store->shards[i]);
  }
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void read_stats(struct nx_store *base, struct nx_store_stats *out) {
  out->waiting = atomic_load_explicit(&of(base)->waiting, memory_order_relaxed);
  out->foreign = 0;
  out->bytes = atomic_load_explicit(&of(base)->charged_bytes, memory_order_relaxed);
  out->is_counted = true;
}

static void close_store(struct nx_store *base) {
  struct nx__memory_store *store = of(base);
  sweep(base, UINT64_MAX);
  for (unsigned i = 0; i < NX__SHARDS; i++) nx__shard_deinit(store, &store->shards[i]);
  pthread_mutex_destroy(&store->ended.lock);
  free(store);
}

static const struct nx_store_ops memory_ops = {
  .name = "memory",
  .create = create,
  .lease = lease_item,
  .extend = extend,
  .commit = commit,
  .release = release,
  .read = read_item,
  .cancel = cancel,
  .due = find_due,
  .sweep = sweep,
  .keep_source = nx__source_keep,
  .load_source = nx__source_load,
  .read_stats = read_stats,
  .close = close_store,
};

int nx_store_open_memory(struct nx_store **out, const struct nx_store_options *options, struct nx_error *err) {
  struct nx__memory_store *store = aligned_alloc(_Alignof(struct nx__memory_store), sizeof *store);
  if (!store) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the store of suspended executions");
  memset(store, 0, sizeof *store);
  store->as_store.ops = &memory_ops;
  store->options = *options;
  randombytes_buf(store->secret, sizeof store->secret);
  pthread_mutex_init(&store->ended.lock, NULL);
  for (unsigned i = 0; i < NX__SHARDS; i++) {
    struct nx__shard *shard = &store->shards[i];
    pthread_mutex_init(&shard->lock, NULL);
    shard->items = (struct nx_table){.key_bytes = NX_SUSPENSION_ID_BYTES, .secret = store->secret};
    shard->sources = (struct nx_table){.key_bytes = NX_HASH_BYTES, .secret = store->secret};
  }
  *out = &store->as_store;
  return 0;
}
