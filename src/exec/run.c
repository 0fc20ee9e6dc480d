/* SPDX-License-Identifier: Apache-2.0
 *
 * An admitted job: compile, restore, stay in the guest, suspend; then where it goes. */
#include "exec/executor.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "exec/report.h"
#include "metrics/metrics.h"

/* ---- Slow threads ---------------------------------------------------------------------------------------------------- */

/* Once for each time that the watchdog called this thread blocked. */
static void thread_is_back(struct nx_exec *exec) {
  if (exec->hooks.thread_unblocked) exec->hooks.thread_unblocked(exec->hooks.self);
  nx__admission_note_slow(&exec->admission, -1);
}

static void unblock(struct nx_exec *exec, struct nx_execution *x) {
  for (; x->slow_stays; x->slow_stays--) thread_is_back(exec);
}

/* Of nx_sandbox_work_begin: the memory of an execution that waits may be many megabytes. */
void nx__exec_end_work(struct nx_exec *exec) {
  if (nx_sandbox_work_end()) thread_is_back(exec);
}

/* ---- Running --------------------------------------------------------------------------------------------------------- */

static void host_failed(struct nx_job *job, const struct nx_error *err) {
  job->refusal = *err;
  nx_execution_fail(&job->execution, NX_OUTCOME_INTERNAL_ERROR, "%s", err->text);
}

/* The sleeps that are over, and what has come in: told at once while the execution is in its instance. */
static bool has_answers(struct nx_exec *exec, struct nx_job *job, struct nx_buf *out) {
  NX_BUF_AUTO incoming = {.account = exec->suspended};
  nx_buf_reset(out, SIZE_MAX);
  nx__waits_take_incoming(&exec->waits, job, &incoming);
  return nx__continuation_collect(job, &incoming, nx_clock_realtime_ms(), exec->waits.net, out);
}

/* Its memory as it was when it was suspended. */
static int restore(struct nx_exec *exec, struct nx_job *job, struct nx_lease *lease, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  struct nx_bytes patch = nx__continuation_patch(c);
  const uint8_t *image_hash = job->execution.handler->image->hash;
  if (job->kind == NX_JOB_RESUME && memcmp(c->taken.record.fixed.image_hash, image_hash, NX_HASH_BYTES)) {
    char theirs[2 * NX_HASH_BYTES + 1], ours[2 * NX_HASH_BYTES + 1];
    nx_hash_to_hex(theirs, c->taken.record.fixed.image_hash);
    nx_hash_to_hex(ours, image_hash);
    return nx_error_set(err, NX_ERR_CONFLICT, "suspended over image %s; its source makes image %s here", theirs, ours);
  }
  uint64_t begin_ns = nx_clock_ns();
  nx_sandbox_work_begin();
  int status = nx_instance_restore(lease->instance, patch.data, patch.size, nx_pool_grant, lease, err);
  nx__exec_end_work(exec);
  if (status) return status;
  nx__continuation_drop_patch(c);
  if (job->kind == NX_JOB_RESUME && !job->_is_own) nx_metrics_resume(NX_METRICS_RESUME_RESUMED, nx_clock_ns() - begin_ns);
  return 0;
}

/* Compresses the memory of an execution that waits into the job. */
static void suspend(struct nx_exec *exec, struct nx_job *job, struct nx_lease *lease) {
  struct nx_execution *x = &job->execution;
  struct nx__continuation *c = nx__continuation_of(job, exec->suspended);
  struct nx_error err;
  if (!c) {
    nx_error_set(&err, NX_ERR_NO_MEMORY, "no memory to suspend the execution (layer: container)");
    host_failed(job, &err);
    return;
  }
  c->memory_bytes = x->memory_peak_bytes;
  nx_sandbox_work_begin();
  int status = nx_instance_suspend(lease->instance, &c->patch, &err);
  nx__exec_end_work(exec);
  if (!status) return;
  if (status == -NX_ERR_NO_MEMORY)
    nx_error_set(&err, NX_ERR_OVERLOADED, "no memory to keep the suspended execution (layer: container)");
  host_failed(job, &err);
}

/* A handler that computed for long the last time does not wait until the watchdog finds it out: eight of them that come
 * at once would hold up all workers meanwhile. A replacement inherits the priority of the thread that begins it: this one
 * must not be lowered yet, and one that is for good leaves it to the watchdog. */
static void stand_aside(struct nx_exec *exec, struct nx_execution *x) {
  if (!nx_profile_is_long(&x->handler->profile, nx_execution_input_bytes(x)) || nx_sandbox_thread_is_spent()) return;
  nx__admission_note_slow(&exec->admission, 1);
  if (exec->hooks.thread_blocked) exec->hooks.thread_blocked(exec->hooks.self);
  x->long_expected = true;
  x->slow_stays++;
}

static bool stay(struct nx_exec *exec, struct nx_job *job, struct nx_lease *lease, struct nx_buf *answers) {
  struct nx_execution *x = &job->execution;
  struct nx_error err;
  if (!job->_continuation || !nx__continuation_patch(job->_continuation).size) {
    stand_aside(exec, x);
    nx_execution_run(x, lease->instance);
    return true;
  }
  if (restore(exec, job, lease, &err)) {
    host_failed(job, &err);
    return false;
  }
  if (!has_answers(exec, job, answers)) {
    nx_error_set(&err, NX_ERR_NO_MEMORY, "no memory for the answers of an execution that waits");
    host_failed(job, &err);
    return false;
  }
  stand_aside(exec, x);
  nx_execution_resume(x, lease->instance, (struct nx_text){answers->data, (uint32_t)answers->len});
  return true;
}

static void execute(struct nx_exec *exec, struct nx_job *job) {
  struct nx_execution *x = &job->execution;
  NX_BUF_AUTO answers = {.account = exec->suspended};
  struct nx_error err;
  struct nx_lease lease;
  if (nx_pool_acquire(exec->pool, x->handler->image, &job->reservation, &lease, &err)) {
    host_failed(job, &err);
    return;
  }
  x->budget = &lease;
  x->slow_ns = x->computed_ns = 0;
  if (stay(exec, job, &lease, &answers)) {
    while (x->outcome == NX_OUTCOME_SUSPENDED && has_answers(exec, job, &answers))
      nx_execution_resume(x, lease.instance, (struct nx_text){answers.data, (uint32_t)answers.len});
    nx_profile_record(&x->handler->profile, x->handler->image->memory_bytes, nx_execution_input_bytes(x),
                      x->memory_peak_bytes, x->slow_ns, x->computed_ns);
    x->long_expected = false;
    unblock(exec, x);
    if (x->outcome == NX_OUTCOME_SUSPENDED) suspend(exec, job, &lease);
  }
  nx_pool_release(&lease);
}

/* Memory that the guest, or the host for it, asked for and did not get. */
static void name_refusal(struct nx_exec *exec, struct nx_job *job) {
  const struct nx_execution *x = &job->execution;
  if (x->outcome == NX_OUTCOME_MEMORY_LIMIT)
    job->refused = (struct nx_refusal){"instance", x->limits.memory_bytes, x->memory_peak_bytes, x->refused_bytes};
  else if (job->refusal.code || (x->outcome == NX_OUTCOME_RESOURCE_LIMIT && x->out_of_budget))
    job->refused = nx_governor_refusal(exec->governor, x->refused_bytes ? x->refused_bytes : job->_expected_bytes);
}

/* It must be in the store to get an answer that comes there, and nobody could put that in while this job has the lease. */
static bool is_answered_in_store(const struct nx_exec *exec, const struct nx_job *job) {
  struct nx_call call;
  if (job->kind != NX_JOB_RESUME || nx_suspensions_are_sealed(exec->keeper.suspensions)) return false;
  for (size_t at = 0; nx_calls_next(&job->execution.calls, &at, &call) && call.id <= job->_continuation->stored_to;)
    if (call.kind == NX_CALL_NET) return true;
  return false;
}

/* Only calls that nexus answers itself are open, and somebody waits for the result. Sealed continuations cannot be found
 * again by a request that ends later: those requests are waited for, too. */
static bool waits_here(const struct nx_exec *exec, const struct nx_job *job) {
  const struct nx_suspensions *suspensions = exec->keeper.suspensions;
  if (job->_is_own || job->_continuation->must_leave || is_answered_in_store(exec, job)) return false;
  if (!job->execution.calls.callers) return true;
  return suspensions && nx_suspensions_are_sealed(suspensions) && nx_calls_have(&job->execution.calls, NX_CALL_NET);
}

/* The handler of a suspended execution was compiled before: what fails now is this machine's memory, time or settings. The
 * execution stays as it is. */
static void refuse_uncompiled(struct nx_job *job) {
  struct nx_error err;
  const struct nx_buf *why = &job->execution.error.message;
  nx_error_set(&err, NX_ERR_OVERLOADED, "the handler of the suspended execution cannot be compiled here now: %.*s",
               (int)why->len, why->data);
  host_failed(job, &err);
}

static enum nx_job_state keep(struct nx_exec *exec, struct nx_job *job) {
  nx_sandbox_work_begin();
  enum nx_job_state state = nx__keeper_keep(&exec->keeper, job);
  nx__exec_end_work(exec);
  return state;
}

/* Where it goes after its stay in the guest. */
static enum nx_job_state conclude(struct nx_exec *exec, struct nx_job *job) {
  bool suspended = job->execution.outcome == NX_OUTCOME_SUSPENDED && !job->refusal.code;
  job->state = NX_JOB_DONE;
  if (suspended && waits_here(exec, job)) return nx__keeper_wait(&exec->keeper, job);
  if (suspended && exec->keeper.suspensions) return keep(exec, job);
  if (suspended || job->kind != NX_JOB_RESUME) return job->state;
  return job->refusal.code ? nx__keeper_give_up(&exec->keeper, job) : nx__keeper_finish(&exec->keeper, job);
}

/* An error in a source that compiled elsewhere is an operator's matter, too. */
static void log_not_compiled(const struct nx_job *job) {
  const struct nx_buf *why = &job->execution.error.message;
  NX_BUF_AUTO reason = {0};
  if (!nx_log_enabled(NX_LOG_WARN) || !nx_log_take()) return;
  nx_buf_printf(&reason, "%s: %.*s", nx_outcome_code(job->execution.outcome), (int)(why->len > 160 ? 160 : why->len),
                why->len ? why->data : "");
  nx_log(NX_LOG_WARN, "a handler of the store does not compile here", "handler", job->entry->name, "reason",
         reason.failed ? "" : reason.data, NULL);
}

static bool compile(struct nx_exec *exec, struct nx_job *job) {
  bool compiled = nx__compile(&exec->compiler, job);
  if (job->entry && compiled) nx_registry_bind(exec->compiler.registry, job->entry, job->execution.handler);
  if (job->entry && !compiled) log_not_compiled(job);
  return compiled;
}

enum nx_job_state nx_exec_run(struct nx_exec *exec, struct nx_job *job) {
  struct nx_execution *x = &job->execution;
  x->grant = nx_pool_grant;
  bool compiled = x->handler || compile(exec, job);
  unblock(exec, x);
  if (!compiled && job->kind == NX_JOB_RESUME && !job->refusal.code) refuse_uncompiled(job);
  if (compiled && job->kind != NX_JOB_COMPILE) execute(exec, job);
  if (compiled && job->kind == NX_JOB_COMPILE) nx_profile_trust(&x->handler->profile);
  unblock(exec, x);
  name_refusal(exec, job);
  if (job->_is_own && !job->refusal.code) nx_job_report(job, (struct nx_text){0}); /* others with the replies to their callers */
  nx__admission_leave(&exec->admission, job);
  enum nx_job_state state = conclude(exec, job);
  if (state != NX_JOB_DONE || !job->_is_own) return state;
  nx__exec_end_own(exec, job);
  return NX_JOB_WAITING;
}

enum nx_job_state nx_exec_run_waiting(struct nx_exec *exec, struct nx_job *job) {
  if (!job->execution.handler) nx__compile_find(&exec->compiler, job);
  nx__admission_wait(&exec->admission, job);
  return nx_exec_run(exec, job);
}

/* ---- Compiling for nobody's request ----------------------------------------------------------------------------------- */

/* Without a guest; false: it takes one. */
static bool find_compiled(struct nx_exec *exec, struct nx_job *job) {
  nx__compile_find(&exec->compiler, job);
  if (!job->execution.handler && !nx__compile_load(&exec->compiler, job) && !job->refusal.code) return false;
  if (job->execution.handler) nx_profile_trust(&job->execution.handler->profile);
  job->state = NX_JOB_DONE;
  return true;
}

struct compilation {
  struct nx_exec *exec;
  struct nx_job *job;
};

static void compile_waiting(void *opaque) {
  struct compilation *compilation = opaque;
  nx_exec_run_waiting(compilation->exec, compilation->job);
}

int nx_exec_compile(struct nx_exec *exec, struct nx_job *job, struct nx_error *err) {
  struct compilation compilation = {exec, job};
  if (find_compiled(exec, job)) return 0;
  return nx_sandbox_run_thread(exec->config->stack_size_bytes, compile_waiting, &compilation, err);
}
