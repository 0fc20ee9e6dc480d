/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/keeping_internal.h"

#include <stddef.h>
#include <string.h>

#include "base/number.h"
#include "exec/result.h"
#include "metrics/metrics.h"

#define STORE_THREADS 4u
/* A lease lasts for the queue, the run, and this. */
#define LEASE_MARGIN_MS 10000u
/* Connections that may wait for their executions, of eight. */
#define WAITING_PART 5u

/* ---- Steps ------------------------------------------------------------------------------------------------------------ */

static void run_step(struct nx_work *work) {
  struct nx__continuation *c = (struct nx__continuation *)((char *)work - offsetof(struct nx__continuation, work));
  struct nx__keeper *keeper = c->keeper;
  struct nx_job *job = c->job;
  enum nx_job_state state = c->step(keeper, job);
  if (!nx_job_is_elsewhere(state)) keeper->ready(keeper->self, job);
  atomic_fetch_sub(&keeper->busy, 1);
}

enum nx_job_state nx__keeper_refuse(struct nx_job *job, enum nx_error_code code, const char *text) {
  nx_error_set(&job->refusal, code, "%s", text);
  job->state = NX_JOB_DONE;
  return job->state;
}

/* Here, or on a thread that may wait. */
enum nx_job_state nx__keeper_take(struct nx__keeper *keeper, struct nx_job *job, nx__step *step) {
  struct nx__continuation *c = job->_continuation;
  if (!keeper->queue) return step(keeper, job);
  c->step = step;
  c->keeper = keeper;
  c->work.run = run_step;
  job->state = NX_JOB_WAITING;
  atomic_fetch_add(&keeper->busy, 1);
  if (nx_work_queue_push(keeper->queue, &c->work)) return NX_JOB_WAITING;
  atomic_fetch_sub(&keeper->busy, 1);
  return nx__keeper_refuse(job, NX_ERR_NO_MEMORY, "no thread for the store of suspended executions; try again");
}

void nx__keeper_release(struct nx__keeper *keeper, struct nx_job *job) {
  nx_suspensions_release(keeper->suspensions, &job->_continuation->taken);
}

enum nx_job_state nx__keeper_fail(struct nx__keeper *keeper, struct nx_job *job, const struct nx_error *err) {
  nx__keeper_release(keeper, job);
  job->refusal = *err;
  if (err->code == NX_ERR_NO_MEMORY)
    job->refused = nx_governor_refusal(keeper->admission->governor, job->_continuation->memory_bytes);
  job->state = NX_JOB_DONE;
  return job->state;
}

uint64_t nx__keeper_lease_ms(const struct nx__keeper *keeper) {
  return keeper->config->queue_timeout_ms + keeper->config->timeout_ms + LEASE_MARGIN_MS;
}

/* ---- Life ------------------------------------------------------------------------------------------------------------- */

int nx__keeper_init(struct nx__keeper *keeper, struct nx_error *err) {
  if (!keeper->suspensions || !nx_suspensions_block(keeper->suspensions)) return 0;
  return nx_work_queue_create(&keeper->queue, "store", STORE_THREADS, err);
}

void nx__keeper_deinit(struct nx__keeper *keeper) { nx_work_queue_destroy(keeper->queue); }

/* ---- Waiting here ------------------------------------------------------------------------------------------------------- */

static uint64_t when_due_ns(const struct nx_job *job, uint64_t now_ns) {
  uint64_t in_ms = nx_minus_u64(nx_calls_due_ms(&job->execution.calls), nx_clock_realtime_ms());
  return nx_min_u64(now_ns + nx_min_u64(in_ms, UINT32_MAX) * NX_NS_PER_MS, job->_continuation->expires_ns);
}

static enum nx_job_state wait_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  uint64_t now_ns = nx_clock_ns(), until_ns = when_due_ns(job, now_ns);
  uint64_t for_ms = nx_minus_u64(until_ns, now_ns) / NX_NS_PER_MS; /* it may be due, or expired, since it began to wait */
  if (c->taken.is_leased && nx_suspensions_extend(keeper->suspensions, &c->taken, for_ms + nx__keeper_lease_ms(keeper), &err))
    return nx__keeper_fail(keeper, job, &err);
  job->state = NX_JOB_WAITING;
  if (nx__waits_start_fetches(keeper->waits, job) && nx__waits_park(keeper->waits, job, until_ns)) return NX_JOB_WAITING;
  nx_error_set(&err, NX_ERR_NO_MEMORY, "no memory to wait");
  return nx__keeper_fail(keeper, job, &err);
}

/* Each holds a connection, which nothing can make go: some must be left to jobs that queue, and to probes. */
static bool too_many_wait(const struct nx__keeper *keeper) {
  return keeper->waits->parked >= (uint64_t)keeper->config->max_connections * WAITING_PART / 8;
}

/* What waits here is bounded like what is kept in memory; it is not a part of the store's own count. */
static bool is_full(const struct nx__keeper *keeper, struct nx_job *job) {
  uint64_t most = keeper->config->suspend_max_bytes;
  uint64_t used = nx_ledger_current(keeper->admission->ledger, NX_LAYER_SUSPENDED);
  if (used <= most) return false;
  job->refused = (struct nx_refusal){"suspended", most, used, job->_continuation->patch.len};
  return true;
}

enum nx_job_state nx__keeper_wait(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  if (is_full(keeper, job)) {
    nx_error_set(&err, NX_ERR_OVERLOADED, "there is no room for another execution that waits (layer: suspended); "
                 "wait, or raise SUSPEND_MAX_MB");
    return nx__keeper_fail(keeper, job, &err);
  }
  if (!c->expires_ns) c->expires_ns = nx_clock_ns() + keeper->config->suspend_ttl_ms * NX_NS_PER_MS;
  if (too_many_wait(keeper)) {
    nx_error_set(&err, NX_ERR_OVERLOADED, "too many executions wait here; try again later");
    return nx__keeper_fail(keeper, job, &err);
  }
  return c->taken.is_leased ? nx__keeper_take(keeper, job, wait_step) : wait_step(keeper, job);
}

/* ---- Keeping ---------------------------------------------------------------------------------------------------------- */

static struct nx_bytes source_of(const struct nx_job *job) {
  const struct nx_handler *handler = job->execution.handler;
  return (struct nx_bytes){handler->source, handler->source_bytes};
}

/* Anew with each reply to its caller. One that goes on by itself lives no longer for it: a caller who never comes back
 * would leave an interval ticking for months. */
static uint64_t expiry_ms(const struct nx__keeper *keeper, const struct nx_job *job) {
  if (job->_is_own) return job->_continuation->taken.record.fixed.expires_ms;
  return nx_clock_realtime_ms() + keeper->config->suspend_ttl_ms;
}

static int keep(struct nx__keeper *keeper, struct nx_job *job, uint64_t wake_ms, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  struct nx_record record = {0};
  struct nx__record_texts texts = {0};
  c->suspensions++;
  job->expires_ms = expiry_ms(keeper, job);
  int status = nx__continuation_save(job, job->expires_ms, &record, &texts, err);
  if (!status && job->kind == NX_JOB_RESUME)
    status = nx_suspensions_put_back(keeper->suspensions, &c->taken, &record, NX_STORED_WAITING, source_of(job), wake_ms,
                                     &job->name, &job->refused, err);
  else if (!status)
    status = nx_suspensions_keep(keeper->suspensions, &record, source_of(job), wake_ms, &job->name, &job->refused, err);
  nx__record_texts_deinit(&texts);
  return status;
}

static enum nx_job_state keep_failed(struct nx__keeper *keeper, struct nx_job *job, const struct nx_error *err) {
  if (err->code != NX_ERR_TOO_LARGE) return nx__keeper_fail(keeper, job, err);
  nx__keeper_release(keeper, job);
  nx_execution_fail(&job->execution, NX_OUTCOME_RESOURCE_LIMIT, "%s", err->text);
  job->state = NX_JOB_DONE;
  return job->state;
}

static enum nx_job_state keep_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  uint64_t due_ms = nx_calls_due_ms(&job->execution.calls), now = nx_clock_realtime_ms();
  bool wakes = due_ms != UINT64_MAX;
  if (keep(keeper, job, wakes ? due_ms : 0, &err)) return keep_failed(keeper, job, &err);
  nx_metrics_suspension();
  nx_buf_deinit(&c->patch);
  if (!nx_suspensions_are_sealed(keeper->suspensions)) {
    nx__waits_start_fetches(keeper->waits, job); /* now: what could not be kept is run again, and would make them twice */
    nx__waits_hand_over(keeper->waits, job, &job->name);
    uint64_t in_ms = nx_minus_u64(due_ms, now);
    /* One for later than its end would only take room. */
    if (wakes && due_ms < job->expires_ms)
      nx__waits_set_alarm(keeper->waits, &job->name, nx_clock_ns() + in_ms * NX_NS_PER_MS);
    else
      nx__waits_drop_alarm(keeper->waits, job->name.data, job->name.len);
  }
  job->state = NX_JOB_DONE;
  return job->state;
}

enum nx_job_state nx__keeper_keep(struct nx__keeper *keeper, struct nx_job *job) {
  return nx__keeper_take(keeper, job, keep_step);
}

/* ---- Finishing -------------------------------------------------------------------------------------------------------- */

static int finish(struct nx__keeper *keeper, struct nx_job *job, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  struct nx_record record = {0};
  struct nx__record_texts texts = {0};
  NX_BUF_AUTO result = {.account = keeper->account};
  uint64_t expires_ms = c->taken.record.fixed.expires_ms;
  int status = nx__continuation_save(job, expires_ms, &record, &texts, err);
  nx_result_write(job, &result);
  if (!status && result.failed) status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the result");
  for (int i = NX_RECORD_CALLS; i < NX_RECORD_SECTIONS; i++) record.sections[i] = (struct nx_bytes){0};
  record.sections[NX_RECORD_RESULT] = (struct nx_bytes){result.data, result.len};
  if (!status)
    status = nx_suspensions_put_back(keeper->suspensions, &c->taken, &record, NX_STORED_FINISHED, source_of(job), 0,
                                     &job->name, &job->refused, err);
  nx__record_texts_deinit(&texts);
  return status;
}

static enum nx_job_state finish_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx_error err;
  char name[2 * NX_SUSPENSION_ID_BYTES + 1];
  if (finish(keeper, job, &err)) return nx__keeper_fail(keeper, job, &err);
  nx_suspension_name(name, &job->_continuation->taken.lease.id);
  nx__waits_drop_alarm(keeper->waits, name, sizeof name - 1);
  job->state = NX_JOB_DONE;
  return job->state;
}

enum nx_job_state nx__keeper_finish(struct nx__keeper *keeper, struct nx_job *job) {
  return nx__keeper_take(keeper, job, finish_step);
}

static enum nx_job_state give_up_step(struct nx__keeper *keeper, struct nx_job *job) {
  nx__keeper_release(keeper, job);
  job->state = NX_JOB_DONE; /* with the refusal that it has */
  return job->state;
}

enum nx_job_state nx__keeper_give_up(struct nx__keeper *keeper, struct nx_job *job) {
  return nx__keeper_take(keeper, job, give_up_step);
}
