/* SPDX-License-Identifier: Apache-2.0
 *
 * The governor keeps what nexus uses below the container's limit: it answers every charge, and looks at the kernel's
 * figures all the time (read → decide → act).
 *
 *   charge    fits → granted; else what is kept only for speed is given back, cheapest first, and the charge tried once
 *             more; else refused
 *   look      limit, working set, pressure → nx_decide → the ledger's budget; reclaimers run while use is high
 *
 * Who may take the last of the budget (enum nx_demand): each demand leaves a spare part to those above it, so that new
 * large executions are refused first, then growth that nobody expected, and the server's own work last.
 *
 * Ownership: the caller owns the governor, and what it borrows: ledger, cgroup.
 * Threads:   charges and readings: any. nx_governor_look: one thread. nx_governor_glance: one thread.
 *            Synchronization: atomics; a mutex lets one thread reclaim at a time, and holds it while it does; another
 *            lets one look or glance at a time (a glance does not wait for it).
 * Errors:    a refusal is an ordinary answer, counted by layer. */
#ifndef NX_MEMORY_GOVERNOR_H
#define NX_MEMORY_GOVERNOR_H

#include "base/account.h"
#include "base/error.h"
#include "memory/cgroup.h"
#include "memory/decide.h"
#include "memory/ledger.h"
#include "metrics/metrics.h"

struct nx_governor;

struct nx_governor_options {
  struct nx_ledger *ledger;           /* borrowed */
  const struct nx_cgroup *cgroup;     /* borrowed; NULL: only the ledger counts */
  uint64_t limit_bytes;               /* in force at the start */
  bool limit_is_set;                  /* by configuration: a cgroup may only lower it */
  unsigned reserve_percent;
  const char *cache_dir;              /* borrowed; counted when it is on a tmpfs; NULL: none */
  uint64_t base_image_bytes;          /* shared by all instances, counted once */
};

int nx_governor_create(struct nx_governor **out, const struct nx_governor_options *options, struct nx_error *err);
void nx_governor_destroy(struct nx_governor *governor);

/* ---- Giving back ------------------------------------------------------------------------------------------------ */

enum nx_reclaim {
  NX_RECLAIM_DONE,    /* as much as was wanted */
  NX_RECLAIM_MORE,    /* out of time */
  NX_RECLAIM_NOTHING, /* nothing is left */
};

/* Gives back at least `want_bytes` if it can, and stops after the deadline. Adds what it freed to `freed_bytes`. May run
 * on any thread that charges. */
struct nx_reclaimer {
  enum nx_metrics_reclaim action;
  void *self;
  enum nx_reclaim (*run)(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes);
};
#define NX_RECLAIMERS_MAX 4
/* The cheapest first; before the first charge. */
void nx_governor_add_reclaimer(struct nx_governor *governor, const struct nx_reclaimer *reclaimer);

/* ---- Charging --------------------------------------------------------------------------------------------------- */

enum nx_demand {
  NX_DEMAND_SERVE,  /* connections: probes must get through */
  NX_DEMAND_WORK,   /* executions known to be short and small, or that run alone */
  NX_DEMAND_GROWTH, /* of running executions beyond what was expected of them; images of handlers; large buffers */
  NX_DEMAND_LARGE,  /* other executions that want to begin */
  NX_DEMAND_COUNT
};

/* Without reclaiming, and not counted as a refusal: for callers that wait and try again. */
bool nx_governor_try_charge(struct nx_governor *governor, enum nx_layer layer, uint64_t bytes, enum nx_demand demand)
  __attribute__((warn_unused_result));
bool nx_governor_charge(struct nx_governor *governor, enum nx_layer layer, uint64_t bytes, enum nx_demand demand)
  __attribute__((warn_unused_result));
void nx_governor_release(struct nx_governor *governor, enum nx_layer layer, uint64_t bytes);
/* Has reclaimers make room for such a charge; true when it would be granted now. */
bool nx_governor_make_room(struct nx_governor *governor, uint64_t bytes, enum nx_demand demand);
/* False while more is charged than the budget: it was lowered, and even what was promised must wait. */
bool nx_governor_is_within_budget(const struct nx_governor *governor);

/* Charges and releases of this layer with this demand; borrowed, as long as the governor lives. Handlers take half of
 * the budget at most. */
struct nx_account *nx_governor_account(struct nx_governor *governor, enum nx_layer layer, enum nx_demand demand);
/* For the buffers of requests and responses. Small ones are always let through; large ones (bodies, results) leave what
 * NX_DEMAND_GROWTH leaves, and altogether take half of the budget at most, since strangers decide how long they live. */
struct nx_account *nx_governor_buffers(struct nx_governor *governor);
/* Buffers take more than a quarter of the budget: clients that are slow must go. */
bool nx_governor_buffers_are_many(const struct nx_governor *governor);

/* ---- Looking ---------------------------------------------------------------------------------------------------- */

/* Everything: measures process, kernel and cache, reads the cgroup, decides, acts for some milliseconds. Four times a
 * second or so. */
void nx_governor_look(struct nx_governor *governor, uint64_t now_ns);
/* Only the limit, a few microseconds: every few milliseconds while executions run, so that a limit that was lowered
 * counts at once. */
void nx_governor_glance(struct nx_governor *governor);

struct nx_governor_status {
  enum nx_governor_state state;
  uint64_t limit_bytes;       /* in force */
  uint64_t budget_bytes;      /* limit − reserve − unaccounted */
  uint64_t accounted_bytes;   /* the ledger's sum */
  uint64_t unaccounted_bytes; /* working set that no layer names */
  bool unaccounted_is_high;   /* for long: something is not counted, see docs/memory.md */
  struct nx_cgroup_memory kernel; /* as of the last look */
};
void nx_governor_read_status(struct nx_governor *governor, struct nx_governor_status *out);
enum nx_governor_state nx_governor_state(const struct nx_governor *governor);

/* ---- Refusing --------------------------------------------------------------------------------------------------- */

/* Which layer of memory refused, with its figures. */
struct nx_refusal {
  const char *layer; /* "instance", "pool", "container", "store" (of others: without limit and use); constant; NULL: none did */
  uint64_t limit_bytes, used_bytes, requested_bytes;
};
/* The budget had no room for `requested_bytes`; 0 when nobody knows how many it would have been. */
struct nx_refusal nx_governor_refusal(const struct nx_governor *governor, uint64_t requested_bytes);

#endif
