/* SPDX-License-Identifier: Apache-2.0
 *
 * Pool of instances. Life of one:
 *
 *              acquire                    release (after nx_instance_reset)
 *   ABSENT ──────────────▶ ACTIVE ◀──────────────────────────────▶ IDLE ──── trim ───▶ IDLE, shows the base image
 *            (created)              acquire: the one that shows the image, else the coldest
 *
 *   ACTIVE: leased to one thread; may be dirty; its whole memory is charged to the ledger.
 *   IDLE:   clean, shows the image of its last execution; only its resident pages are charged.
 *
 * Ownership: the pool owns every instance; callers hold a lease between acquire and release.
 * Threads:   any. Synchronization: a mutex, never held while an instance is created, shown or reset.
 * Limits:    at most max_instances. Callers hold one of as many permits, so acquire waits for no other caller; at most
 *            for a trim of the slot it needs. */
#ifndef NX_POOL_POOL_H
#define NX_POOL_POOL_H

#include "memory/ledger.h"
#include "sandbox/sandbox.h"

struct nx_pool;

int nx_pool_create(struct nx_pool **out, unsigned max_instances, struct nx_ledger *ledger, struct nx_error *err);
/* Every lease must have been released. */
void nx_pool_destroy(struct nx_pool *pool);

struct nx_lease {
  struct nx_instance *instance;
  struct nx_slot *_slot;
};

/* An instance that shows `image`, clean. NX_ERR_OVERLOADED when the budget has no room for it. */
int nx_pool_acquire(struct nx_pool *pool, struct nx_image *image, struct nx_lease *out, struct nx_error *err);
/* Resets the instance and takes it back. */
void nx_pool_release(struct nx_pool *pool, struct nx_lease *lease);
/* Charges growth of a leased instance; for the `grant` of struct nx_guest_call. */
bool nx_pool_grant(void *pool, size_t bytes);

/* Gives the private pages of instances that have been idle since before `idle_since_ns` back to the kernel.
 * Returns bytes. */
size_t nx_pool_trim(struct nx_pool *pool, uint64_t idle_since_ns);

struct nx_pool_stats {
  unsigned max, active, idle;
  size_t memory_bytes; /* of active instances: whole; of idle ones: resident */
};
void nx_pool_read_stats(struct nx_pool *pool, struct nx_pool_stats *out);

#endif
