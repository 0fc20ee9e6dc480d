/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/keeping.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/number.h"
#include "exec/result.h"
#include "metrics/metrics.h"

#define STORE_THREADS 4u
/* A lease lasts for the queue, the run, and this. */
#define LEASE_MARGIN_MS 10000u
/* Between two attempts to get a lease that another one holds. */
#define RETRY_NS (3 * NX_NS_PER_MS)
/* An execution that goes on by itself waits for its turn for longer: nobody will ask again. */
#define OWN_RETRY_FOR_NS (60 * NX_NS_PER_S)
/* Connections that may wait for their executions, of eight. */
#define WAITING_PART 5u
/* Executions of ended processes that are taken up at a time. */
#define DUE_BATCH 64

static uint64_t now_ms(void) { return nx_clock_realtime_ns() / NX_NS_PER_MS; }

/* ---- Steps ------------------------------------------------------------------------------------------------------------ */

static bool is_mine_no_more(enum nx_job_state state) { return state == NX_JOB_WAITING || state == NX_JOB_QUEUED; }

static void run_step(struct nx_work *work) {
  struct nx__continuation *c = (struct nx__continuation *)((char *)work - offsetof(struct nx__continuation, work));
  struct nx__keeper *keeper = c->keeper;
  struct nx_job *job = c->job;
  enum nx_job_state state = c->step(keeper, job);
  if (!is_mine_no_more(state)) keeper->ready(keeper->self, job);
  atomic_fetch_sub(&keeper->busy, 1);
}

static enum nx_job_state refuse(struct nx_job *job, enum nx_error_code code, const char *text) {
  nx_error_set(&job->refusal, code, "%s", text);
  job->state = NX_JOB_DONE;
  return job->state;
}

/* Here, or on a thread that may wait. */
static enum nx_job_state take(struct nx__keeper *keeper, struct nx_job *job,
                              enum nx_job_state (*step)(struct nx__keeper *keeper, struct nx_job *job)) {
  struct nx__continuation *c = job->_continuation;
  if (!keeper->queue) return step(keeper, job);
  c->step = step;
  c->keeper = keeper;
  c->work.run = run_step;
  job->state = NX_JOB_WAITING;
  atomic_fetch_add(&keeper->busy, 1);
  if (nx_work_queue_push(keeper->queue, &c->work)) return NX_JOB_WAITING;
  atomic_fetch_sub(&keeper->busy, 1);
  return refuse(job, NX_ERR_NO_MEMORY, "no thread for the store of suspended executions; try again");
}

/* ---- Life ------------------------------------------------------------------------------------------------------------- */

int nx__keeper_init(struct nx__keeper *keeper, struct nx_error *err) {
  if (!keeper->suspensions || !nx_suspensions_block(keeper->suspensions)) return 0;
  return nx_work_queue_create(&keeper->queue, "store", STORE_THREADS, err);
}

void nx__keeper_deinit(struct nx__keeper *keeper) { nx_work_queue_destroy(keeper->queue); }

/* ---- Beginning: from the store to admission ------------------------------------------------------------------------------ */

static void release(struct nx__keeper *keeper, struct nx_job *job) {
  nx_suspensions_release(keeper->suspensions, &job->_continuation->taken);
}

static void count_refused(enum nx_error_code code) {
  enum nx_metrics_resume outcome = NX_METRICS_RESUME_FAILED;
  if (code == NX_ERR_NO_MEMORY || code == NX_ERR_OVERLOADED) outcome = NX_METRICS_RESUME_REFUSED;
  if (code == NX_ERR_NOT_FOUND) outcome = NX_METRICS_RESUME_NOT_FOUND;
  if (code == NX_ERR_CONFLICT) outcome = NX_METRICS_RESUME_CONFLICT;
  if (code == NX_ERR_GONE) outcome = NX_METRICS_RESUME_EXPIRED;
  nx_metrics_resume(outcome, 0);
}

static enum nx_job_state fail(struct nx__keeper *keeper, struct nx_job *job, const struct nx_error *err) {
  release(keeper, job);
  job->refusal = *err;
  if (err->code == NX_ERR_NO_MEMORY)
    job->refused = nx_governor_refusal(keeper->admission->governor, job->_continuation->memory_bytes);
  job->state = NX_JOB_DONE;
  return job->state;
}

static int missing_handler(const struct nx_job *job, struct nx_error *err) {
  const struct nx__continuation *c = job->_continuation;
  char hash[2 * NX_HASH_BYTES + 1];
  nx_hash_to_hex(hash, c->taken.record.fixed.source_hash);
  return nx_error_set(err, NX_ERR_CONFLICT, "the handler \"%.64s\" with source hash %s is missing here; register it and resume again",
                      c->handler[0] ? c->handler : "inline", hash);
}

/* The loaded source becomes the job's. */
static int use_source(struct nx_job *job, const uint8_t expected[NX_HASH_BYTES], struct nx_error *err) {
  const struct nx_buf *source = &job->_continuation->source;
  nx_handler_hash_source(job->_source_hash, source->data, source->len);
  if (memcmp(job->_source_hash, expected, NX_HASH_BYTES))
    return nx_error_set(err, NX_ERR_INVALID, "the source in the store has been changed");
  job->source = (struct nx_text){source->data ? source->data : "", (uint32_t)source->len};
  return 0;
}

static int load_source(struct nx__keeper *keeper, struct nx_job *job, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  int status = nx_suspensions_load_source(keeper->suspensions, &c->taken, &c->source, err);
  if (status == -NX_ERR_NOT_FOUND) return missing_handler(job, err);
  return status ? status : use_source(job, c->taken.record.fixed.source_hash, err);
}

static int find_handler(struct nx__keeper *keeper, struct nx_job *job, struct nx_error *err) {
  const struct nx_record_fixed *fixed = &job->_continuation->taken.record.fixed;
  struct nx_handler *handler = nx_registry_find(keeper->compiler->registry, fixed->source_hash);
  if (!handler) return load_source(keeper, job, err);
  job->execution.handler = handler;
  job->_owns_handler = job->cache_hit = true;
  return 0;
}

static int load(struct nx__keeper *keeper, struct nx_job *job, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  int status = nx__continuation_load(job, err);
  nx_buf_add(&c->incoming, c->brought.data, c->brought.len);
  if (!status && c->incoming.failed) status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for an answer");
  if (!status) status = nx__continuation_take_answers(job, err);
  if (!status) status = find_handler(keeper, job, err);
  return status;
}

static uint64_t lease_ms(const struct nx__keeper *keeper) {
  return keeper->config->queue_timeout_ms + keeper->config->timeout_ms + LEASE_MARGIN_MS;
}

/* Another one holds the lease, for moments. */
static enum nx_job_state try_later(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  uint64_t now = nx_clock_ns(), pause = !job->_is_own ? RETRY_NS : NX__OWN_RETRY_NS;
  job->state = NX_JOB_WAITING;
  if (now < c->retry_until_ns && nx__waits_retry(keeper->waits, job, now + pause)) return NX_JOB_WAITING;
  return refuse(job, NX_ERR_OVERLOADED, "the suspended execution is being resumed by another request; try again");
}

static bool has_news(const struct nx_job *job) {
  return job->_continuation->incoming.len || nx_calls_due_ms(&job->execution.calls) <= now_ms();
}

/* The call that an alarm was for may have been cancelled or answered; or a caller came without answers, and too early. */
static enum nx_job_state nothing_new(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx_error err;
  uint64_t due_ms = nx_calls_due_ms(&job->execution.calls), now = now_ms();
  if (job->_is_own) {
    release(keeper, job);
    job->state = NX_JOB_DONE;
    return job->state;
  }
  if (job->execution.calls.callers)
    nx_error_set(&err, NX_ERR_INVALID, "results: expected a list of results of open calls, and not an empty one");
  else
    nx_error_set(&err, NX_ERR_CONFLICT, "the execution waits: it can go on in %llu ms",
                 (unsigned long long)(due_ms > now ? due_ms - now : 0));
  count_refused(err.code);
  return fail(keeper, job, &err);
}

static enum nx_job_state resume_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  const char *name = !job->_is_own ? job->suspension.data : c->name.data;
  size_t bytes = !job->_is_own ? job->suspension.bytes : c->name.len;
  int status = nx_suspensions_take(keeper->suspensions, name, bytes, lease_ms(keeper), &c->taken, &err);
  if (status == -NX_ERR_BUSY) return try_later(keeper, job);
  if (!status) status = load(keeper, job, &err);
  if (status) {
    count_refused(err.code);
    return fail(keeper, job, &err);
  }
  if (!has_news(job)) return nothing_new(keeper, job);
  enum nx_job_state state = nx__admission_submit(keeper->admission, job);
  if (state == NX_JOB_REFUSED) release(keeper, job);
  return state;
}

/* What GET shows: the calls that are open, or the result. */
static enum nx_job_state look_up_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  job->state = NX_JOB_DONE;
  if (nx_suspensions_read(keeper->suspensions, job->suspension.data, job->suspension.bytes, &c->taken, &job->refusal))
    return job->state;
  if (c->taken.state == NX_STORED_CANCELLED)
    nx_error_set(&job->refusal, NX_ERR_GONE, "the suspended execution was cancelled");
  else if (!c->taken.bytes.len)
    nx_error_set(&job->refusal, NX_ERR_GONE, "the execution has finished, and its result was dropped to make room");
  else
    nx_result_write_kept(&c->taken, job->suspension, &job->reply);
  return job->state;
}

static enum nx_job_state cancel_step(struct nx__keeper *keeper, struct nx_job *job) {
  if (!nx_suspensions_cancel(keeper->suspensions, job->suspension.data, job->suspension.bytes, &job->refusal))
    nx__waits_drop_alarm(keeper->waits, job->suspension.data, job->suspension.bytes);
  job->state = NX_JOB_DONE;
  return job->state;
}

/* What is next for the job finds it as it was before. */
static enum nx_job_state errand_step(struct nx__keeper *keeper, struct nx_job *job) {
  (void)keeper;
  job->errand(job);
  nx__continuation_free(job);
  job->state = NX_JOB_DONE;
  return job->state;
}

enum nx_job_state nx__keeper_begin(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = nx__continuation_of(job, keeper->account);
  if (!c) return refuse(job, NX_ERR_NO_MEMORY, "no memory to resume an execution");
  if (!c->retry_until_ns)
    c->retry_until_ns = nx_clock_ns() + (!job->_is_own ? keeper->config->queue_timeout_ms * NX_NS_PER_MS : OWN_RETRY_FOR_NS);
  switch (job->kind) {
  case NX_JOB_LOOK_UP: return take(keeper, job, look_up_step);
  case NX_JOB_CANCEL: return take(keeper, job, cancel_step);
  case NX_JOB_ERRAND: return take(keeper, job, errand_step);
  default: return take(keeper, job, resume_step);
  }
}

/* ---- Handlers of the store that are not compiled here --------------------------------------------------------------------- */

static int fetch(struct nx__keeper *keeper, struct nx_job *job, struct nx_error *err) {
  struct nx_kept_handlers *handlers = nx_suspensions_handlers(keeper->suspensions);
  const struct nx_entry *entry = job->entry;
  int status = nx_kept_load_source_of(handlers, entry->name, entry->source_hash, &job->_continuation->source, err);
  return status ? status : use_source(job, job->entry->source_hash, err);
}

static enum nx_job_state fetch_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx_error err;
  if (fetch(keeper, job, &err)) return fail(keeper, job, &err);
  return nx__admission_submit(keeper->admission, job);
}

enum nx_job_state nx__keeper_fetch(struct nx__keeper *keeper, struct nx_job *job) {
  if (!nx__continuation_of(job, keeper->account)) return refuse(job, NX_ERR_NO_MEMORY, "no memory to load a handler");
  return take(keeper, job, fetch_step);
}

/* ---- Waiting here ------------------------------------------------------------------------------------------------------- */

static uint64_t when_due_ns(const struct nx_job *job, uint64_t now_ns) {
  uint64_t in_ms = nx_minus_u64(nx_calls_due_ms(&job->execution.calls), now_ms());
  return nx_min_u64(now_ns + nx_min_u64(in_ms, UINT32_MAX) * NX_NS_PER_MS, job->_continuation->expires_ns);
}

static enum nx_job_state wait_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  uint64_t now_ns = nx_clock_ns(), until_ns = when_due_ns(job, now_ns);
  uint64_t for_ms = nx_minus_u64(until_ns, now_ns) / NX_NS_PER_MS; /* it may be due, or expired, since it began to wait */
  if (c->taken.is_leased && nx_suspensions_extend(keeper->suspensions, &c->taken, for_ms + lease_ms(keeper), &err))
    return fail(keeper, job, &err);
  job->state = NX_JOB_WAITING;
  if (nx__waits_start_fetches(keeper->waits, job) && nx__waits_park(keeper->waits, job, until_ns)) return NX_JOB_WAITING;
  nx_error_set(&err, NX_ERR_NO_MEMORY, "no memory to wait");
  return fail(keeper, job, &err);
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
    return fail(keeper, job, &err);
  }
  if (!c->expires_ns) c->expires_ns = nx_clock_ns() + keeper->config->suspend_ttl_ms * NX_NS_PER_MS;
  if (too_many_wait(keeper)) {
    nx_error_set(&err, NX_ERR_OVERLOADED, "too many executions wait here; try again later");
    return fail(keeper, job, &err);
  }
  return c->taken.is_leased ? take(keeper, job, wait_step) : wait_step(keeper, job);
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
  return now_ms() + keeper->config->suspend_ttl_ms;
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
  if (err->code != NX_ERR_TOO_LARGE) return fail(keeper, job, err);
  release(keeper, job);
  nx_execution_fail(&job->execution, NX_OUTCOME_RESOURCE_LIMIT, "%s", err->text);
  job->state = NX_JOB_DONE;
  return job->state;
}

static enum nx_job_state keep_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  uint64_t due_ms = nx_calls_due_ms(&job->execution.calls), now = now_ms();
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
  return take(keeper, job, keep_step);
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
  if (finish(keeper, job, &err)) return fail(keeper, job, &err);
  nx_suspension_name(name, &job->_continuation->taken.lease.id);
  nx__waits_drop_alarm(keeper->waits, name, sizeof name - 1);
  job->state = NX_JOB_DONE;
  return job->state;
}

enum nx_job_state nx__keeper_finish(struct nx__keeper *keeper, struct nx_job *job) {
  return take(keeper, job, finish_step);
}

static enum nx_job_state give_up_step(struct nx__keeper *keeper, struct nx_job *job) {
  release(keeper, job);
  job->state = NX_JOB_DONE; /* with the refusal that it has */
  return job->state;
}

enum nx_job_state nx__keeper_give_up(struct nx__keeper *keeper, struct nx_job *job) {
  return take(keeper, job, give_up_step);
}

/* ---- Executions that go on by themselves ---------------------------------------------------------------------------------- */

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
  if (job && !is_mine_no_more(nx__keeper_begin(keeper, job))) keeper->ready(keeper->self, job);
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
  size_t count = nx_suspensions_due(keeper->suspensions, now_ms(), ids, DUE_BATCH);
  for (size_t i = 0; i < count; i++) {
    char name[2 * NX_SUSPENSION_ID_BYTES + 1];
    nx_suspension_name(name, &ids[i]);
    nx__keeper_wake(keeper, name, sizeof name - 1, NULL);
  }
  nx_suspensions_sweep(keeper->suspensions, now_ms());
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
