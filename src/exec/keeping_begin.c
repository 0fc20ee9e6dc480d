/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs that begin with the store: those that resume, look up, cancel; and handlers whose source is there. */
#include "exec/keeping_internal.h"

#include <string.h>

#include "base/number.h"
#include "exec/result.h"
#include "metrics/metrics.h"

/* Between two attempts to get a lease that another one holds. */
#define RETRY_NS (3 * NX_NS_PER_MS)
/* An execution that goes on by itself waits for its turn for longer: nobody will ask again. */
#define OWN_RETRY_FOR_NS (60 * NX_NS_PER_S)

/* ---- Beginning: from the store to admission ------------------------------------------------------------------------------ */

static void count_refused(enum nx_error_code code) {
  enum nx_metrics_resume outcome = NX_METRICS_RESUME_FAILED;
  if (code == NX_ERR_NO_MEMORY || code == NX_ERR_OVERLOADED) outcome = NX_METRICS_RESUME_REFUSED;
  if (code == NX_ERR_NOT_FOUND) outcome = NX_METRICS_RESUME_NOT_FOUND;
  if (code == NX_ERR_CONFLICT) outcome = NX_METRICS_RESUME_CONFLICT;
  if (code == NX_ERR_GONE) outcome = NX_METRICS_RESUME_EXPIRED;
  nx_metrics_resume(outcome, 0);
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

/* What was allowed where it was suspended is not more than is allowed here. */
static void lower_limits(const struct nx_config *config, struct nx_execution_limits *limits) {
  limits->timeout_ns = nx_min_u64(limits->timeout_ns, config->timeout_ms * NX_NS_PER_MS);
  limits->memory_bytes = (uint32_t)nx_min_u64(limits->memory_bytes, config->memory_limit_bytes);
  limits->stack_bytes = (uint32_t)nx_min_u64(limits->stack_bytes, config->stack_size_bytes);
}

static int load(struct nx__keeper *keeper, struct nx_job *job, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  int status = nx__continuation_load(job, err);
  lower_limits(keeper->config, &job->execution.limits);
  nx_buf_add(&c->incoming, c->brought.data, c->brought.len);
  if (!status && c->incoming.failed) status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for an answer");
  if (!status) status = nx__continuation_take_answers(job, err);
  if (!status) status = find_handler(keeper, job, err);
  return status;
}

/* Another one holds the lease, for moments. */
static enum nx_job_state try_later(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  uint64_t now = nx_clock_ns(), pause = !job->_is_own ? RETRY_NS : NX__OWN_RETRY_NS;
  job->state = NX_JOB_WAITING;
  if (now < c->retry_until_ns && nx__waits_retry(keeper->waits, job, now + pause)) return NX_JOB_WAITING;
  return nx__keeper_refuse(job, NX_ERR_OVERLOADED, "the suspended execution is being resumed by another request; try again");
}

/* The call that an alarm was for may have been cancelled or answered; or a caller came without answers, and too early. */
static enum nx_job_state nothing_new(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx_error err;
  if (job->_is_own) {
    nx__keeper_release(keeper, job);
    job->state = NX_JOB_DONE;
    return job->state;
  }
  if (job->execution.calls.callers)
    nx_error_set(&err, NX_ERR_INVALID, "results: expected a list of results of open calls, and not an empty one");
  else
    nx_error_set(&err, NX_ERR_CONFLICT, "the execution waits: it can go on in %llu ms",
                 (unsigned long long)nx_minus_u64(nx_calls_due_ms(&job->execution.calls), nx_clock_realtime_ms()));
  count_refused(err.code);
  return nx__keeper_fail(keeper, job, &err);
}

static enum nx_job_state resume_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_error err;
  const char *name = !job->_is_own ? job->suspension.data : c->name.data;
  size_t bytes = !job->_is_own ? job->suspension.bytes : c->name.len;
  int status = nx_suspensions_take(keeper->suspensions, &job->tenant, name, bytes, nx__keeper_lease_ms(keeper), &c->taken, &err);
  if (status == -NX_ERR_BUSY) return try_later(keeper, job);
  if (!status) status = load(keeper, job, &err);
  if (status) {
    count_refused(err.code);
    return nx__keeper_fail(keeper, job, &err);
  }
  if (!nx__waits_have_news(keeper->waits, job)) return nothing_new(keeper, job);
  enum nx_job_state state = nx__admission_submit(keeper->admission, job);
  if (state == NX_JOB_REFUSED) nx__keeper_release(keeper, job);
  return state;
}

/* What GET shows: the calls that are open, or the result. */
static enum nx_job_state look_up_step(struct nx__keeper *keeper, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  job->state = NX_JOB_DONE;
  if (nx_suspensions_read(keeper->suspensions, &job->tenant, job->suspension.data, job->suspension.bytes, &c->taken,
                          &job->refusal))
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
  if (!nx_suspensions_cancel(keeper->suspensions, &job->tenant, job->suspension.data, job->suspension.bytes, &job->refusal))
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
  if (!c) return nx__keeper_refuse(job, NX_ERR_NO_MEMORY, "no memory to resume an execution");
  if (!c->retry_until_ns)
    c->retry_until_ns = nx_clock_ns() + (!job->_is_own ? keeper->config->queue_timeout_ms * NX_NS_PER_MS : OWN_RETRY_FOR_NS);
  switch (job->kind) {
  case NX_JOB_LOOK_UP: return nx__keeper_take(keeper, job, look_up_step);
  case NX_JOB_CANCEL: return nx__keeper_take(keeper, job, cancel_step);
  case NX_JOB_ERRAND: return nx__keeper_take(keeper, job, errand_step);
  default: return nx__keeper_take(keeper, job, resume_step);
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
  if (fetch(keeper, job, &err)) return nx__keeper_fail(keeper, job, &err);
  return nx__admission_submit(keeper->admission, job);
}

enum nx_job_state nx__keeper_fetch(struct nx__keeper *keeper, struct nx_job *job) {
  if (!nx__continuation_of(job, keeper->account)) return nx__keeper_refuse(job, NX_ERR_NO_MEMORY, "no memory to load a handler");
  return nx__keeper_take(keeper, job, fetch_step);
}
