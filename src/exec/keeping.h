/* SPDX-License-Identifier: Apache-2.0
 *
 * Between jobs and the store of suspended executions: each step may wait for a disk or a network, and then runs on a
 * thread of its own; the job is WAITING meanwhile, and comes back through `ready`. Private to src/exec.
 *
 *   begin    RESUME: take the lease, load, find the handler, then admission; LOOK_UP, CANCEL and ERRAND to their end
 *   fetch    EXECUTE of a handler that is not compiled here: its source from the store, then admission
 *   wait     the execution waits for calls that nexus answers itself, and its caller for the result
 *   keep     the execution is suspended: into the store, or back into it
 *   finish   the resumed execution has ended: its result into the store
 *
 * Threads: any. */
#ifndef NX_EXEC_KEEPING_H
#define NX_EXEC_KEEPING_H

#include "base/clock.h"
#include "base/work_queue.h"
#include "exec/admission.h"
#include "exec/compile.h"
#include "exec/continuation.h"
#include "exec/waits.h"

/* Between two attempts of an execution that goes on by itself: nobody waits for it. */
#define NX__OWN_RETRY_NS (100 * NX_NS_PER_MS)

struct nx__keeper {
  const struct nx_config *config;
  struct nx_suspensions *suspensions; /* NULL: nothing is kept */
  struct nx_compiler *compiler;
  struct nx__admission *admission;
  struct nx__waits *waits;
  struct nx_account *account;
  struct nx_work_queue *queue;        /* NULL: the store does not block */
  void *self;
  /* A job that was WAITING can go on: ADMITTED, REFUSED or DONE. */
  void (*ready)(void *self, struct nx_job *job);
  _Atomic unsigned busy;              /* steps under way */
  _Atomic bool retired;               /* nothing goes on by itself any more */
  struct nx_work sweep;
  _Atomic bool sweeps;
};

int nx__keeper_init(struct nx__keeper *keeper, struct nx_error *err);
void nx__keeper_deinit(struct nx__keeper *keeper);

/* Each gives back the job's state; WAITING: it is not the caller's any more. */
enum nx_job_state nx__keeper_begin(struct nx__keeper *keeper, struct nx_job *job);
enum nx_job_state nx__keeper_fetch(struct nx__keeper *keeper, struct nx_job *job);
enum nx_job_state nx__keeper_wait(struct nx__keeper *keeper, struct nx_job *job);
enum nx_job_state nx__keeper_keep(struct nx__keeper *keeper, struct nx_job *job);
enum nx_job_state nx__keeper_finish(struct nx__keeper *keeper, struct nx_job *job);
/* The lease, if the job has one, ends as if nothing had happened; then the job is ready as it is. */
enum nx_job_state nx__keeper_give_up(struct nx__keeper *keeper, struct nx_job *job);

/* An execution in the store goes on by itself, with `answer` or because something is due. */
void nx__keeper_wake(struct nx__keeper *keeper, const char *name, size_t bytes, const struct nx__incoming *answer);
/* From here on that does nothing. */
void nx__keeper_retire(struct nx__keeper *keeper);
/* Those in the store that should have gone on by now, and are nobody's: of processes that have ended. Deletes what has
 * expired. Once a second. */
void nx__keeper_sweep(struct nx__keeper *keeper);

#endif
