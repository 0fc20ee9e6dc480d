/* SPDX-License-Identifier: Apache-2.0
 *
 * From job to result: admission, queue, compile, run, deadlines. The only part that knows the whole story.
 *
 *                nx_exec_submit            nx_exec_run
 *   (new) ──▶ ADMITTED ─────────────▶ running ─────────▶ done
 *      │                                  ▲
 *      ├────▶ QUEUED ── nx_exec_next ─────┘   (a permit became free)
 *      │          └──── nx_exec_next ───────▶ EXPIRED   (waited longer than queue_timeout)
 *      └────▶ REFUSED                                   (queue full, or draining)
 *
 * An admitted job holds a permit (max_instances of them) and the memory it is expected to take until nx_exec_run
 * returns: exec/admission.h says who waits for whom.
 * Ownership: the caller owns jobs and keeps them until they are done, refused or expired.
 * Threads:   any; nx_exec_run only on threads that called nx_sandbox_thread_enter. */
#ifndef NX_EXEC_EXEC_H
#define NX_EXEC_EXEC_H

#include "config/config.h"
#include "exec/execution.h"
#include "handler/cache.h"
#include "handler/registry.h"
#include "memory/governor.h"
#include "pool/pool.h"

enum nx_job_state { NX_JOB_NEW, NX_JOB_ADMITTED, NX_JOB_QUEUED, NX_JOB_EXPIRED, NX_JOB_REFUSED, NX_JOB_DONE };

enum nx_job_kind {
  NX_JOB_EXECUTE, /* execution.handler, or `source` when that is NULL */
  NX_JOB_COMPILE, /* `source` into execution.handler */
};

struct nx_job {
  enum nx_job_kind kind;
  struct nx_text source;        /* borrowed */
  struct nx_entry *entry;       /* held by the caller; NULL for inline code */
  struct nx_execution execution;
  void *owner;                  /* the caller's */

  bool cache_hit;               /* the source had been compiled before */
  uint64_t compile_us;          /* what compiling it now took; 0 for a hit */
  enum nx_job_state state;
  struct nx_error refusal;      /* REFUSED, EXPIRED, or DONE with a failure of the host's before the guest ran */
  struct nx_refusal refused;    /* of REFUSED, EXPIRED, and executions that were refused memory */
  struct nx_reservation reservation;

  struct nx_job *_next;
  uint64_t _queued_ns;
  uint64_t _expected_bytes, _least_bytes;
  int _lane;
  bool _short_of_memory;        /* had a permit, and no room in the budget */
  bool _owns_handler;
  uint8_t _source_hash[NX_HASH_BYTES];
};

/* What must reach the threads above. Called on the watchdog's thread, unblocked on the executing one. */
struct nx_exec_hooks {
  void *self;
  void (*thread_blocked)(void *self);   /* one execution has become slow: its thread is gone for long … */
  void (*thread_unblocked)(void *self); /* … and is back */
  void (*wake)(void *self);             /* nx_exec_next has something, and no thread may be about to ask */
  void (*quiet)(void *self);            /* nothing was executed for idle_trim_ms, each time */
};

/* Permits that executions which compute for long lend to short ones: so many instances and threads more than
 * max_instances may be in use for moments. */
#define NX_EXEC_LOANS_MAX 2u

struct nx_exec;

struct nx_exec_options {
  const struct nx_config *config; /* borrowed, resolved */
  struct nx_ledger *ledger;       /* borrowed */
  struct nx_governor *governor;   /* borrowed */
  struct nx_registry *registry;   /* borrowed */
  struct nx_cache *cache;         /* borrowed; NULL: no disk cache */
};

int nx_exec_create(struct nx_exec **out, const struct nx_exec_options *options, struct nx_error *err);
/* Once, before the first submit: from here on deadlines are kept. */
int nx_exec_start(struct nx_exec *exec, const struct nx_exec_hooks *hooks, struct nx_error *err);
void nx_exec_destroy(struct nx_exec *exec);

/* Limits as configured; the caller lowers what it wants lower. */
struct nx_execution_limits nx_exec_limits(const struct nx_config *config);

/* ADMITTED: run it now on this thread. QUEUED: it comes through nx_exec_next. REFUSED: see job->refusal. */
enum nx_job_state nx_exec_submit(struct nx_exec *exec, struct nx_job *job);
/* A queued job that has become ADMITTED or EXPIRED; NULL when there is none. Cheap when the queue is empty. */
struct nx_job *nx_exec_next(struct nx_exec *exec);
/* Runs an admitted job to its end and returns its permit. */
void nx_exec_run(struct nx_exec *exec, struct nx_job *job);
/* A reclaimer (memory/governor.h): gives back what idle instances hold. `self` is the executor. */
enum nx_reclaim nx_exec_reclaim_instances(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes);
/* Waits for a permit as long as it takes, then runs: for work that is not a request (handlers from files). */
void nx_exec_run_waiting(struct nx_exec *exec, struct nx_job *job);
/* Frees what the job made. */
void nx_job_deinit(struct nx_job *job);

/* Seconds after which a refused caller may come again. */
unsigned nx_exec_retry_after_s(struct nx_exec *exec);

struct nx_exec_stats {
  unsigned max;
  unsigned active;      /* permits in use, lent ones counted once */
  unsigned queue_depth; /* work that is no request and waits included */
  unsigned queue_max;
};
void nx_exec_read_stats(struct nx_exec *exec, struct nx_exec_stats *out);

#endif
