/* SPDX-License-Identifier: Apache-2.0
 *
 * Executions in the store that go on by themselves: jobs that nobody sent. */
#include "exec/keeping_internal.h"

#include <stddef.h>
#include <stdlib.h>

/* Executions of ended processes that are taken up at a time. */
#define DUE_BATCH 64

static struct nx_job *make_job(struct nx__keeper *keeper, const char *name, size_t bytes,
                               const struct nx__incoming *answer) {
  struct nx_job *job = calloc(1, sizeof *job);
  if (!job) return NULL;
  job->kind = NX_JOB_RESUME;
  job->_is_own = true;
  job->execution.account = keeper->account;
  struct nx__continuation *c = nx__continuation_of(job, keeper->account);
  if (c) nx_buf_add(&c->name, name, bytes);
  if (c && answer) nx__incoming_add(&c->brought, answer);
  if (c && !c->name.failed && !c->brought.failed) return job;
  nx__continuation_free(job);
  free(job);
  return NULL;
}

/* Without memory nothing is lost: the sweep finds it again when it is due. */
static void wake(struct nx__keeper *keeper, const char *name, size_t bytes, const struct nx__incoming *answer) {
  struct nx_job *job = make_job(keeper, name, bytes, answer);
  if (job && !nx_job_is_elsewhere(nx__keeper_begin(keeper, job))) keeper->ready(keeper->self, job);
}

/* Busy first: who retires the keeper and then finds it idle knows that nothing comes any more. */
void nx__keeper_wake(struct nx__keeper *keeper, const char *name, size_t bytes, const struct nx__incoming *answer) {
  atomic_fetch_add(&keeper->busy, 1);
  if (!atomic_load(&keeper->retired)) wake(keeper, name, bytes, answer);
  atomic_fetch_sub(&keeper->busy, 1);
}

void nx__keeper_retire(struct nx__keeper *keeper) { atomic_store(&keeper->retired, true); }

static void sweep(struct nx__keeper *keeper) {
  struct nx_suspension_id ids[DUE_BATCH];
  size_t count = nx_suspensions_due(keeper->suspensions, nx_clock_realtime_ms(), ids, DUE_BATCH);
  for (size_t i = 0; i < count; i++) {
    char name[2 * NX_SUSPENSION_ID_BYTES + 1];
    nx_suspension_name(name, &ids[i]);
    nx__keeper_wake(keeper, name, sizeof name - 1, NULL);
  }
  nx_suspensions_sweep(keeper->suspensions, nx_clock_realtime_ms());
}

static void run_sweep(struct nx_work *work) {
  struct nx__keeper *keeper = (struct nx__keeper *)((char *)work - offsetof(struct nx__keeper, sweep));
  sweep(keeper);
  atomic_store(&keeper->sweeps, false);
}

void nx__keeper_sweep(struct nx__keeper *keeper) {
  if (!keeper->suspensions || nx_suspensions_are_sealed(keeper->suspensions)) return;
  if (!keeper->queue) {
    sweep(keeper);
    return;
  }
  if (atomic_exchange(&keeper->sweeps, true)) return; /* the last one is still at it */
  keeper->sweep.run = run_sweep;
  if (!nx_work_queue_push(keeper->queue, &keeper->sweep)) atomic_store(&keeper->sweeps, false);
}
