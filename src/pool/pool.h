/* SPDX-License-Identifier: Apache-2.0
 *
 * Pool of instances. Life of one:
 *
 *              acquire                    release (after nx_instance_reset)
 *   ABSENT ──────────────▶ ACTIVE ◀──────────────────────────────▶ IDLE ──── trim ───▶ IDLE, shows the base image
 *            (created)              acquire: the one that shows the image, else the coldest
 *
 *   ACTIVE: leased to one thread; may be dirty; its whole memory is covered by the caller's reservation.
 *   IDLE:   clean, shows the image of its last execution; only its resident pages are charged, to the pool.
 *
 * Ownership: the pool owns every instance; callers hold a lease between acquire and release, and the reservation.
 * Threads:   any. Synchronization: a mutex, never held while an instance is created, shown or reset.
 * Limits:    at most max_instances. Callers hold one of as many permits, so acquire waits for no other caller; at most
 *            for a trim of the slot it needs. */
#ifndef NX_POOL_POOL_H
#define NX_POOL_POOL_H

#include "memory/governor.h"
#include "sandbox/sandbox.h"

struct nx_pool;

/* `lease_bytes`: what a lease takes besides linear memory (native stack, page tables). */
int nx_pool_create(struct nx_pool **out, unsigned max_instances, uint64_t lease_bytes, struct nx_governor *governor,
                   struct nx_error *err);
/* Every lease must have been released. */
void nx_pool_destroy(struct nx_pool *pool);

/* Memory set aside for an execution before it begins: charged to the layer instances, moved between the job and the
 * instances it uses, never refused once it is held. Zero-initialised: nothing. One thread at a time. */
struct nx_reservation {
  uint64_t bytes;    /* charged */
  uint64_t used;     /* of them by the lease that is out */
};
/* What an execution takes that grows to `memory_bytes`. */
uint64_t nx_pool_reservation_bytes(const struct nx_pool *pool, uint64_t memory_bytes);
/* Without reclaiming; false: nothing has changed. */
bool nx_pool_try_reserve(struct nx_pool *pool, struct nx_reservation *reservation, uint64_t bytes,
                         enum nx_demand demand);
void nx_pool_unreserve(struct nx_pool *pool, struct nx_reservation *reservation);

struct nx_lease {
  struct nx_instance *instance;
  struct nx_reservation *reservation;
  struct nx_pool *_pool;
  struct nx_slot *_slot;
};

/* An instance that shows `image`, clean. The reservation is raised to what the image takes if it is less:
 * NX_ERR_OVERLOADED when the budget has no room for that. */
int nx_pool_acquire(struct nx_pool *pool, struct nx_image *image, struct nx_reservation *reservation,
                    struct nx_lease *out, struct nx_error *err);
/* Resets the instance and takes it back, and from the reservation what stays resident. */
void nx_pool_release(struct nx_lease *lease);
/* Growth of a leased instance; for the `grant` of struct nx_guest_call: within the reservation first, then charged. */
bool nx_pool_grant(void *lease, size_t bytes);

/* Gives the private pages of instances that have been idle since before `idle_since_ns` back to the kernel, until
 * `want_bytes` were given or the deadline has passed. Returns bytes. */
size_t nx_pool_trim(struct nx_pool *pool, uint64_t idle_since_ns, uint64_t want_bytes, uint64_t deadline_ns);


#endif
