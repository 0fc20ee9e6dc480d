/* SPDX-License-Identifier: Apache-2.0 */
#include "pool/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"

struct nx_slot {
  struct nx_instance *instance;
  size_t charged_bytes;
  uint64_t idle_since_ns;
  uint64_t last_thread; /* its caches are warm, and its fault count tells which pages are private (sandbox/instance.c) */
  bool active, trimmed;
  struct nx_slot *colder; /* list of idle slots, the last used first */
};

struct nx_pool {
  pthread_mutex_t mutex; /* guards everything below but the contents of active slots */
  pthread_cond_t trimmed;
  struct nx_ledger *ledger;
  struct nx_slot *slots;    /* max_instances of them; absent ones have no instance */
  struct nx_slot *idle;
  unsigned max, created, active, trimming;
};

int nx_pool_create(struct nx_pool **out, unsigned max_instances, struct nx_ledger *ledger, struct nx_error *err) {
  struct nx_pool *pool = calloc(1, sizeof *pool);
  if (pool) pool->slots = calloc(max_instances, sizeof *pool->slots);
  if (!pool || !pool->slots) {
    free(pool);
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a pool of %u instances", max_instances);
  }
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->trimmed, NULL);
  pool->ledger = ledger;
  pool->max = max_instances;
  *out = pool;
  return 0;
}

void nx_pool_destroy(struct nx_pool *pool) {
  if (!pool) return;
  assert(pool->active == 0);
  for (unsigned i = 0; i < pool->max; i++) {
    nx_ledger_release(pool->ledger, NX_LAYER_INSTANCES, pool->slots[i].charged_bytes);
    nx_instance_destroy(pool->slots[i].instance);
  }
  pthread_cond_destroy(&pool->trimmed);
  pthread_mutex_destroy(&pool->mutex);
  free(pool->slots);
  free(pool);
}

/* ---- Choosing ----------------------------------------------------------------------------------------------------- */

/* The idle slot that shows `image` and that this thread used last; else any that shows it; else an absent one while
 * there are any; else the coldest. */
static struct nx_slot **choose_idle(struct nx_pool *pool, const struct nx_image *image) {
  uint64_t thread = nx_sandbox_thread_serial();
  struct nx_slot **shows = NULL, **coldest = NULL;
  for (struct nx_slot **at = &pool->idle; *at; at = &(*at)->colder) {
    bool fits = nx_instance_image((*at)->instance) == image;
    if (fits && (*at)->last_thread == thread) return at;
    if (fits && !shows) shows = at;
    coldest = at;
  }
  if (shows) return shows;
  return pool->created < pool->max ? NULL : coldest;
}

/* Under the mutex; NULL when every slot is active. */
static struct nx_slot *find_slot(struct nx_pool *pool, const struct nx_image *image) {
  struct nx_slot **at = choose_idle(pool, image);
  if (at) {
    struct nx_slot *slot = *at;
    *at = slot->colder;
    return slot;
  }
  if (pool->created == pool->max) return NULL;
  pool->created++;
  struct nx_slot *absent = pool->slots;
  while (absent->active || absent->instance) absent++;
  return absent;
}

static struct nx_slot *take_slot(struct nx_pool *pool, const struct nx_image *image) {
  pthread_mutex_lock(&pool->mutex);
  struct nx_slot *slot = find_slot(pool, image);
  while (!slot && pool->trimming) {
    pthread_cond_wait(&pool->trimmed, &pool->mutex);
    slot = find_slot(pool, image);
  }
  if (slot) {
    slot->active = true;
    pool->active++;
  }
  pthread_mutex_unlock(&pool->mutex);
  return slot;
}

static void put_slot(struct nx_pool *pool, struct nx_slot *slot) {
  pthread_mutex_lock(&pool->mutex);
  slot->active = false;
  pool->active--;
  if (slot->instance) {
    slot->colder = pool->idle;
    pool->idle = slot;
  } else {
    pool->created--;
  }
  pthread_mutex_unlock(&pool->mutex);
}

/* Moves the charge of a slot to `bytes`; only more can be refused. */
static bool recharge(struct nx_pool *pool, struct nx_slot *slot, size_t bytes) {
  if (bytes > slot->charged_bytes) {
    if (!nx_ledger_charge(pool->ledger, NX_LAYER_INSTANCES, bytes - slot->charged_bytes)) return false;
  } else {
    nx_ledger_release(pool->ledger, NX_LAYER_INSTANCES, slot->charged_bytes - bytes);
  }
  slot->charged_bytes = bytes;
  return true;
}

static int prepare(struct nx_pool *pool, struct nx_slot *slot, struct nx_image *image, struct nx_error *err) {
  if (!recharge(pool, slot, image->memory_bytes))
    return nx_error_set(err, NX_ERR_OVERLOADED, "the memory budget has no room for another instance");
  if (!slot->instance && nx_instance_create(&slot->instance, err)) return -(int)err->code;
  int status = nx_instance_show(slot->instance, image, err);
  if (status) {
    nx_instance_destroy(slot->instance);
    slot->instance = NULL;
  }
  return status;
}

int nx_pool_acquire(struct nx_pool *pool, struct nx_image *image, struct nx_lease *out, struct nx_error *err) {
  struct nx_slot *slot = take_slot(pool, image);
  if (!slot) return nx_error_set(err, NX_ERR_OVERLOADED, "all %u instances are in use", pool->max);
  int status = prepare(pool, slot, image, err);
  if (status) {
    recharge(pool, slot, slot->instance ? nx_instance_resident_bytes(slot->instance) : 0);
    put_slot(pool, slot);
    return status;
  }
  *out = (struct nx_lease){.instance = slot->instance, ._slot = slot};
  return 0;
}

void nx_pool_release(struct nx_pool *pool, struct nx_lease *lease) {
  struct nx_slot *slot = lease->_slot;
  slot->charged_bytes += nx_instance_reset(slot->instance); /* nx_pool_grant charged the growth */
  recharge(pool, slot, nx_instance_resident_bytes(slot->instance));
  slot->idle_since_ns = nx_clock_ns();
  slot->last_thread = nx_sandbox_thread_serial();
  slot->trimmed = false;
  put_slot(pool, slot);
}

bool nx_pool_grant(void *pool, size_t bytes) {
  return nx_ledger_charge(((struct nx_pool *)pool)->ledger, NX_LAYER_INSTANCES, bytes);
}

/* ---- Giving back ---------------------------------------------------------------------------------------------------- */

/* Takes one slot that is due out of the idle list, so that it is trimmed without the mutex. */
static struct nx_slot *take_due(struct nx_pool *pool, uint64_t idle_since_ns) {
  pthread_mutex_lock(&pool->mutex);
  struct nx_slot **at = &pool->idle;
  while (*at && ((*at)->trimmed || (*at)->idle_since_ns >= idle_since_ns)) at = &(*at)->colder;
  struct nx_slot *slot = *at;
  if (slot) {
    *at = slot->colder;
    slot->active = true;
    pool->active++;
    pool->trimming++;
  }
  pthread_mutex_unlock(&pool->mutex);
  return slot;
}

static void put_trimmed(struct nx_pool *pool, struct nx_slot *slot) {
  slot->trimmed = true;
  put_slot(pool, slot);
  pthread_mutex_lock(&pool->mutex);
  pool->trimming--;
  pthread_cond_broadcast(&pool->trimmed);
  pthread_mutex_unlock(&pool->mutex);
}

size_t nx_pool_trim(struct nx_pool *pool, uint64_t idle_since_ns) {
  size_t bytes = 0;
  for (struct nx_slot *slot; (slot = take_due(pool, idle_since_ns));) {
    bytes += nx_instance_trim(slot->instance);
    recharge(pool, slot, nx_instance_resident_bytes(slot->instance));
    put_trimmed(pool, slot);
  }
  return bytes;
}

void nx_pool_read_stats(struct nx_pool *pool, struct nx_pool_stats *out) {
  pthread_mutex_lock(&pool->mutex);
  *out = (struct nx_pool_stats){.max = pool->max, .active = pool->active, .idle = pool->created - pool->active};
  pthread_mutex_unlock(&pool->mutex);
  out->memory_bytes = nx_ledger_current(pool->ledger, NX_LAYER_INSTANCES);
}
