/* SPDX-License-Identifier: Apache-2.0
 *
 * From job to result: admission, queue, compile, run, deadlines, suspend, resume. The only part that knows the whole
 * story.
 *
 *                nx_exec_submit            nx_exec_run
 *   (new) ──▶ ADMITTED ─────────────▶ running ─────────▶ DONE
 *      │                                ▲  │
 *      ├────▶ QUEUED ── nx_exec_next ───┤  │            (a permit became free)
 *      │          └──── nx_exec_next ───┼──┼──────────▶ EXPIRED (waited longer than queue_timeout)
 *      │                                │  ▼
 *      ├────▶ WAITING ─ nx_exec_next ───┴─ WAITING      (for a timer, a fetch, the store of suspended executions)
 *      │          └──── nx_exec_next ─────────────────▶ DONE, REFUSED
 *      └────▶ REFUSED                                   (queue full, or draining)
 *
 * An execution that waits holds no thread, no permit and no instance: its memory lies compressed in the job (only calls
 * of built-in extensions are open: the caller waits for the answer) or in the store of suspended executions (a call of the
 * caller's is open: it gets the suspension at once, and comes back with a RESUME).
 *
 * An admitted job holds a permit (max_instances of them) and the memory it is expected to take until nx_exec_run
 * returns: exec/admission.h says who waits for whom.
 * Ownership: the caller owns jobs and keeps them until they are done, refused or expired.
 * Threads:   any; nx_exec_run only on threads that called nx_sandbox_thread_enter. */
#ifndef NX_EXEC_EXEC_H
#define NX_EXEC_EXEC_H

#include "base/tenant.h"
#include "config/config.h"
#include "exec/execution.h"
#include "handler/cache.h"
#include "handler/registry.h"
#include "memory/governor.h"
#include "pool/pool.h"

enum nx_job_state {
  NX_JOB_NEW,
  NX_JOB_ADMITTED,
  NX_JOB_QUEUED,
  NX_JOB_WAITING,
  NX_JOB_EXPIRED,
  NX_JOB_REFUSED,
  NX_JOB_DONE
};

/* Another thread may have the job already: who got this state must not touch it, and it comes by nx_exec_next(). */
static inline bool nx_job_is_elsewhere(enum nx_job_state state) {
  return state == NX_JOB_QUEUED || state == NX_JOB_WAITING;
}

enum nx_job_kind {
  NX_JOB_EXECUTE, /* execution.handler, or else the source of `entry` in the store, or else `source` */
  NX_JOB_COMPILE, /* `source` into execution.handler */
  NX_JOB_RESUME,  /* the execution named by `suspension`, with `answers` */
  NX_JOB_LOOK_UP, /* what has become of it, as JSON into `reply` */
  NX_JOB_CANCEL,
  NX_JOB_ERRAND,  /* calls `errand` on a thread that may wait for a disk or a network; may be followed by another kind */
};

/* A result of a call, as its caller brings it. */
struct nx_answer {
  uint32_t call_id;    /* 0: the first one that is open */
  bool success;
  struct nx_text json; /* the value, or what it failed with; valid JSON; no data: none */
};

#define NX_TRACEPARENT_MAX 64u

struct nx__continuation;

struct nx_job {
  enum nx_job_kind kind;
  void (*errand)(struct nx_job *job); /* of an ERRAND; may fill `refusal` and `reply` */
  struct nx_text source;        /* borrowed */
  struct nx_entry *entry;       /* held by the caller; NULL for inline code */
  struct nx_execution execution;
  void *owner;                  /* the caller's */
  struct nx_tenant tenant;      /* who asks; nobody in particular may ask for everyone's */
  struct nx_text traceparent;   /* borrowed; passed on by requests that the execution makes */
  struct nx_text suspension;    /* RESUME, LOOK_UP, CANCEL: its id; borrowed */
  const struct nx_answer *answers; /* RESUME; borrowed */
  size_t answer_count;

  struct nx_buf name;           /* of the suspension, when the execution is SUSPENDED now; empty: it is not kept */
  uint64_t expires_ms;          /* and when that expires, since 1970 */
  struct nx_buf reply;
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
  bool _is_own;                 /* the executor made it, and frees it: nobody waits for the result */
  bool _missed;                 /* the disk cache has just been asked, in vain */
  bool _goes_on;                /* was admitted before: the queue's length does not count */
  struct nx__continuation *_continuation;
  uint8_t _source_hash[NX_HASH_BYTES];
};

/* What must reach the threads above. Called on the watchdog's thread; thread_blocked also, and thread_unblocked only, on
 * the executing one. */
struct nx_exec_hooks {
  void *self;
  void (*thread_blocked)(void *self);   /* an execution is slow, or going to be: its thread is gone for long … */
  void (*thread_unblocked)(void *self); /* … and is back */
  void (*wake)(void *self);             /* nx_exec_next has something, and no thread may be about to ask */
  void (*quiet)(void *self);            /* nothing was executed for idle_trim_ms, each time */
  void (*aged)(void *self);             /* idle_trim_ms have passed, each time, whatever was executed */
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
  struct nx_suspensions *suspensions; /* borrowed; NULL: what the caller would have to answer is not kept */
  struct nx_net *net;             /* borrowed; NULL: requests of handlers are off */
};

int nx_exec_create(struct nx_exec **out, const struct nx_exec_options *options, struct nx_error *err);
/* Once, before the first submit: from here on deadlines are kept. */
int nx_exec_start(struct nx_exec *exec, const struct nx_exec_hooks *hooks, struct nx_error *err);
/* From here on no execution in the store goes on by itself. */
void nx_exec_retire(struct nx_exec *exec);
/* Retired, with no job left, and `net` destroyed: from here on no hook is called any more, and no deadline kept. */
void nx_exec_stop(struct nx_exec *exec);
/* No job is under way. */
void nx_exec_destroy(struct nx_exec *exec);

/* Limits as configured; the caller lowers what it wants lower. */
struct nx_execution_limits nx_exec_limits(const struct nx_config *config);

/* ADMITTED: run it now on this thread. QUEUED: it comes through nx_exec_next. REFUSED: see job->refusal. */
enum nx_job_state nx_exec_submit(struct nx_exec *exec, struct nx_job *job);
/* A job that has become ADMITTED, EXPIRED, REFUSED or DONE; NULL when there is none. Cheap when none waits. Also runs
 * executions of the store that go on by themselves. */
struct nx_job *nx_exec_next(struct nx_exec *exec);
/* Runs an admitted job and returns its permit: DONE, or WAITING. */
enum nx_job_state nx_exec_run(struct nx_exec *exec, struct nx_job *job);
/* A reclaimer (memory/governor.h): gives back what idle instances hold. `self` is the executor. */
enum nx_reclaim nx_exec_reclaim_instances(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes);
/* Waits for a permit as long as it takes, then runs: for work that is not a request. */
enum nx_job_state nx_exec_run_waiting(struct nx_exec *exec, struct nx_job *job);
/* The same for a COMPILE job, on a thread of its own, whose stack ends in a guard: what nests too deeply runs into it.
 * A source that has been compiled before needs neither. The job is DONE unless no thread could be had. */
int nx_exec_compile(struct nx_exec *exec, struct nx_job *job, struct nx_error *err);
/* The process is shutting down: executions that wait for longer than `longest_ns` go to the store, if that outlives the
 * process, and else are refused; their callers are told. */
void nx_exec_flush(struct nx_exec *exec, uint64_t longest_ns);
/* As long as the job lives; "" for inline code. */
const char *nx_job_handler_name(const struct nx_job *job);
/* Frees what the job made. */
void nx_job_deinit(struct nx_job *job);

/* Seconds after which a refused caller may come again. */
unsigned nx_exec_retry_after_s(struct nx_exec *exec);

struct nx_exec_stats {
  unsigned max;
  unsigned active;      /* permits in use, lent ones counted once */
  unsigned queue_depth; /* work that is no request and waits included */
  unsigned queue_max;
  unsigned waiting;     /* jobs in state WAITING: their callers are still there */
  unsigned storing;     /* images on their way to the disk cache */
};
void nx_exec_read_stats(struct nx_exec *exec, struct nx_exec_stats *out);

#endif
