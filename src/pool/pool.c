/* SPDX-License-Identifier: Apache-2.0 */
#include "pool/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"

struct nx_slot {
  struct nx_instance *instance;
  uint64_t charged_bytes; /* of an idle one: resident pages */
  uint64_t idle_since_ns;
  uint64_t last_thread; /* its caches are warm, and its fault count tells which pages are private (sandbox/instance.c) */
  bool active, trimmed; /* active: leased, or being trimmed */
  struct nx_slot *colder; /* list of idle slots, the last used first */
};

struct nx_pool {
  pthread_mutex_t mutex; /* guards everything below but the contents of active slots */
  pthread_cond_t trimmed;
  struct nx_governor *governor;
  uint64_t lease_bytes;
  struct nx_slot *slots;    /* max_instances of them; absent ones have no instance */
  struct nx_slot *idle;
  unsigned max, created, trimming;
  _Atomic unsigned active; /* leased; read without the mutex too */
};

int nx_pool_create(struct nx_pool **out, unsigned max_instances, uint64_t lease_bytes, struct nx_governor *governor,
                   struct nx_error *err) {
  struct nx_pool *pool = calloc(1, sizeof *pool);
  if (pool) pool->slots = calloc(max_instances, sizeof *pool->slots);
  if (!pool || !pool->slots) {
    free(pool);
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a pool of %u instances", max_instances);
  }
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->trimmed, NULL);
  pool->governor = governor;
  pool->lease_bytes = lease_bytes;
  pool->max = max_instances;
  *out = pool;
  return 0;
}

void nx_pool_destroy(struct nx_pool *pool) {
  if (!pool) return;
  assert(pool->active == 0 && pool->trimming == 0);
  for (unsigned i = 0; i < pool->max; i++) {
    nx_governor_release(pool->governor, NX_LAYER_INSTANCES, pool->slots[i].charged_bytes);
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

/* ---- Reservations --------------------------------------------------------------------------------------------------- */

uint64_t nx_pool_reservation_bytes(const struct nx_pool *pool, uint64_t memory_bytes) {
  return memory_bytes + pool->lease_bytes;
}

bool nx_pool_try_reserve(struct nx_pool *pool, struct nx_reservation *reservation, uint64_t bytes,
                         enum nx_demand demand) {
  if (bytes <= reservation->bytes) return true;
  if (!nx_governor_try_charge(pool->governor, NX_LAYER_INSTANCES, bytes - reservation->bytes, demand)) return false;
  reservation->bytes = bytes;
  return true;
}

void nx_pool_unreserve(struct nx_pool *pool, struct nx_reservation *reservation) {
  nx_governor_release(pool->governor, NX_LAYER_INSTANCES, reservation->bytes);
  *reservation = (struct nx_reservation){0};
}

/* Uses `bytes` of the reservation, raising it when it is too small. */
static bool take_reserved(struct nx_pool *pool, struct nx_reservation *reservation, uint64_t bytes,
                          enum nx_demand demand) {
  uint64_t used = reservation->used + bytes;
  if (used > reservation->bytes) {
    if (!nx_governor_charge(pool->governor, NX_LAYER_INSTANCES, used - reservation->bytes, demand)) return false;
    reservation->bytes = used;
  }
  reservation->used = used;
  return true;
}

/* ---- Leases --------------------------------------------------------------------------------------------------------- */

static int prepare(struct nx_slot *slot, struct nx_image *image, struct nx_error *err) {
  if (!slot->instance && nx_instance_create(&slot->instance, err)) return -(int)err->code;
  int status = nx_instance_show(slot->instance, image, err);
  if (status) {
    nx_instance_destroy(slot->instance);
    slot->instance = NULL;
  }
  return status;
}

/* What the slot has resident moves between its own charge and the reservation: no question to the ledger, so that giving
 * back cannot fail. */
static void move_charge(uint64_t *from, uint64_t *to, uint64_t bytes) {
  *from -= bytes;
  *to += bytes;
}

static void settle_charge(struct nx_slot *slot, struct nx_reservation *reservation) {
  uint64_t resident = slot->instance ? nx_instance_resident_bytes(slot->instance) : 0;
  move_charge(&reservation->bytes, &slot->charged_bytes, resident < reservation->bytes ? resident : reservation->bytes);
  reservation->used = 0;
}

int nx_pool_acquire(struct nx_pool *pool, struct nx_image *image, struct nx_reservation *reservation,
                    struct nx_lease *out, struct nx_error *err) {
  struct nx_slot *slot = take_slot(pool, image);
  if (!slot) return nx_error_set(err, NX_ERR_OVERLOADED, "all %u instances are in use", pool->max);
  move_charge(&slot->charged_bytes, &reservation->bytes, slot->charged_bytes);
  int status = 0;
  if (!take_reserved(pool, reservation, nx_pool_reservation_bytes(pool, image->memory_bytes), NX_DEMAND_WORK))
    status = nx_error_set(err, NX_ERR_OVERLOADED, "the memory budget has no room for another instance");
  if (!status) status = prepare(slot, image, err);
  if (status) {
    settle_charge(slot, reservation);
    put_slot(pool, slot);
    return status;
  }
  *out = (struct nx_lease){.instance = slot->instance, .reservation = reservation, ._pool = pool, ._slot = slot};
  return 0;
}

void nx_pool_release(struct nx_lease *lease) {
  struct nx_slot *slot = lease->_slot;
  nx_instance_reset(slot->instance);
  settle_charge(slot, lease->reservation);
  slot->idle_since_ns = nx_clock_ns();
  slot->last_thread = nx_sandbox_thread_serial();
  slot->trimmed = false;
  put_slot(lease->_pool, slot);
}

bool nx_pool_grant(void *opaque, size_t bytes) {
  struct nx_lease *lease = opaque;
  struct nx_pool *pool = lease->_pool;
  /* A budget that was lowered below what is charged takes back even what was promised. */
  if (!nx_governor_is_within_budget(pool->governor)) return false;
  bool alone = atomic_load_explicit(&pool->active, memory_order_relaxed) == 1;
  return take_reserved(pool, lease->reservation, bytes, alone ? NX_DEMAND_WORK : NX_DEMAND_GROWTH);
}

/* ---- Giving back ---------------------------------------------------------------------------------------------------- */

/* Takes the coldest slot that is due out of the idle list, so that it is trimmed without the mutex. It is nobody's
 * meanwhile, and does not count as running. */
static struct nx_slot *take_due(struct nx_pool *pool, uint64_t idle_since_ns) {
  struct nx_slot **due = NULL, *slot = NULL;
  pthread_mutex_lock(&pool->mutex);
  for (struct nx_slot **at = &pool->idle; *at; at = &(*at)->colder)
    if (!(*at)->trimmed && (*at)->idle_since_ns < idle_since_ns) due = at;
  if (due) {
    slot = *due;
    *due = slot->colder;
    slot->active = true;
    pool->trimming++;
  }
  pthread_mutex_unlock(&pool->mutex);
  return slot;
}

/* At the cold end of the list: it has nothing to lose. */
static void put_trimmed(struct nx_pool *pool, struct nx_slot *slot) {
  pthread_mutex_lock(&pool->mutex);
  struct nx_slot **at = &pool->idle;
  while (*at) at = &(*at)->colder;
  slot->trimmed = true;
  slot->active = false;
  slot->colder = NULL;
  *at = slot;
  pool->trimming--;
  pthread_cond_broadcast(&pool->trimmed);
  pthread_mutex_unlock(&pool->mutex);
}

size_t nx_pool_trim(struct nx_pool *pool, uint64_t idle_since_ns, uint64_t want_bytes, uint64_t deadline_ns) {
  size_t bytes = 0;
  struct nx_slot *slot;
  while (bytes < want_bytes && nx_clock_ns() < deadline_ns && (slot = take_due(pool, idle_since_ns))) {
    bytes += nx_instance_trim(slot->instance);
    uint64_t resident = nx_instance_resident_bytes(slot->instance);
    if (resident < slot->charged_bytes) {
      nx_governor_release(pool->governor, NX_LAYER_INSTANCES, slot->charged_bytes - resident);
      slot->charged_bytes = resident;
    }
    put_trimmed(pool, slot);
  }
  return bytes;
}
