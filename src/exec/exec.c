/* SPDX-License-Identifier: Apache-2.0
 *
 * A job from its submission to its end, and the watchdog's errands. Whoever returns a permit does not hand it over but
 * lets the next caller of nx_exec_next take it, which is the same thread a moment later. */
#include "exec/exec.h"

#include <stdlib.h>

#include "base/clock.h"
#include "exec/admission.h"
#include "exec/compile.h"
#include "exec/watchdog.h"
#include "metrics/metrics.h"

/* An execution that has been inside for this long is slow: its thread is replaced at the sockets. */
#define SLOW_AFTER_NS (NX_NS_PER_MS + NX_NS_PER_MS / 2)
/* A memory limit that was lowered while executions run is known after so long at most. */
#define GLANCE_NS (5 * NX_NS_PER_MS)

struct nx_exec {
  const struct nx_config *config;
  struct nx_governor *governor;
  struct nx_compiler compiler;
  struct nx_pool *pool;
  struct nx_watchdog *watchdog;
  struct nx_exec_hooks hooks;
  struct nx__admission admission;
  uint64_t next_glance_ns, quiet_since_ns; /* the watchdog's */
};

static bool tick(void *self, uint64_t now_ns);
static void housekeeping(void *self, uint64_t now_ns);

int nx_exec_create(struct nx_exec **out, const struct nx_exec_options *options, struct nx_error *err) {
  struct nx_exec *exec = calloc(1, sizeof *exec);
  if (!exec) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the executor");
  exec->config = options->config;
  exec->governor = options->governor;
  uint64_t lease_bytes = nx_config_instance_bytes(options->config) - options->config->memory_limit_bytes;
  unsigned instances = options->config->max_instances + NX_EXEC_LOANS_MAX;
  int status = nx_pool_create(&exec->pool, instances, lease_bytes, options->governor, err);
  nx__admission_init(&exec->admission, options, exec->pool);
  exec->compiler = (struct nx_compiler){
    .pool = exec->pool,
    .registry = options->registry,
    .cache = options->cache,
    .account = nx_governor_account(options->governor, NX_LAYER_HANDLERS, NX_DEMAND_GROWTH),
    .memory_bytes = (uint32_t)options->config->memory_limit_bytes,
  };
  if (!status) status = nx_cache_writer_create(&exec->compiler.writer, options->cache, err);
  if (status) {
    nx_exec_destroy(exec);
    return status;
  }
  *out = exec;
  return 0;
}

int nx_exec_start(struct nx_exec *exec, const struct nx_exec_hooks *hooks, struct nx_error *err) {
  const struct nx_watchdog_work work = {.self = exec, .tick = tick, .housekeeping = housekeeping};
  exec->hooks = *hooks;
  return nx_watchdog_create(&exec->watchdog, &work, err);
}

void nx_exec_destroy(struct nx_exec *exec) {
  if (!exec) return;
  nx_watchdog_destroy(exec->watchdog);
  nx_cache_writer_destroy(exec->compiler.writer);
  nx_pool_destroy(exec->pool);
  nx__admission_deinit(&exec->admission);
  free(exec);
}

struct nx_execution_limits nx_exec_limits(const struct nx_config *config) {
  return (struct nx_execution_limits){
    .timeout_ns = config->timeout_ms * NX_NS_PER_MS,
    .memory_bytes = (uint32_t)config->memory_limit_bytes,
    .stack_bytes = (uint32_t)config->stack_size_bytes,
    .host_calls = config->max_host_calls,
    .state_mutations = config->max_state_mutations,
    .events = config->max_events,
    .output_bytes = (uint32_t)config->max_result_bytes,
  };
}

void nx_job_deinit(struct nx_job *job) {
  if (job->_owns_handler) nx_handler_release(job->execution.handler);
  nx_execution_deinit(&job->execution);
}

/* ---- Admission ------------------------------------------------------------------------------------------------------ */

enum nx_job_state nx_exec_submit(struct nx_exec *exec, struct nx_job *job) {
  if (!job->execution.handler) nx__compile_find(&exec->compiler, job);
  enum nx_job_state state = nx__admission_submit(&exec->admission, job);
  nx_watchdog_kick(exec->watchdog);
  return state;
}

struct nx_job *nx_exec_next(struct nx_exec *exec) { return nx__admission_next(&exec->admission); }

unsigned nx_exec_retry_after_s(struct nx_exec *exec) { return nx__admission_retry_after_s(&exec->admission); }

/* ---- Running --------------------------------------------------------------------------------------------------------- */

static void host_failed(struct nx_job *job, const struct nx_error *err) {
  job->refusal = *err;
  nx_execution_fail(&job->execution, NX_OUTCOME_INTERNAL_ERROR, "%s", err->text);
}

static void execute(struct nx_exec *exec, struct nx_job *job) {
  struct nx_execution *x = &job->execution;
  struct nx_error err;
  struct nx_lease lease;
  if (nx_pool_acquire(exec->pool, x->handler->image, &job->reservation, &lease, &err)) {
    host_failed(job, &err);
    return;
  }
  x->budget = &lease;
  nx_execution_run(x, lease.instance);
  nx_profile_record(&x->handler->profile, x->handler->image->memory_bytes, nx_execution_input_bytes(x),
                    x->memory_peak_bytes, x->was_slow ? x->duration_ns : 0);
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

/* Once for each time that the watchdog called this thread blocked. */
static void unblock(struct nx_exec *exec, struct nx_execution *x) {
  if (!x->was_slow) return;
  if (exec->hooks.thread_unblocked) exec->hooks.thread_unblocked(exec->hooks.self);
  nx__admission_note_slow(&exec->admission, -1);
  x->was_slow = false;
}

void nx_exec_run(struct nx_exec *exec, struct nx_job *job) {
  struct nx_execution *x = &job->execution;
  x->grant = nx_pool_grant;
  bool compiled = x->handler || nx__compile(&exec->compiler, job);
  unblock(exec, x);
  if (compiled && job->kind == NX_JOB_EXECUTE) execute(exec, job);
  if (compiled && job->kind == NX_JOB_COMPILE) nx_profile_trust(&x->handler->profile);
  unblock(exec, x);
  name_refusal(exec, job);
  job->state = NX_JOB_DONE;
  nx__admission_leave(&exec->admission, job);
}

void nx_exec_run_waiting(struct nx_exec *exec, struct nx_job *job) {
  if (!job->execution.handler) nx__compile_find(&exec->compiler, job);
  nx__admission_wait(&exec->admission, job);
  nx_watchdog_kick(exec->watchdog);
  nx_exec_run(exec, job);
}

/* ---- The watchdog's part ----------------------------------------------------------------------------------------------- */

static bool tick(void *self, uint64_t now_ns) {
  struct nx_exec *exec = self;
  unsigned newly_slow;
  unsigned inside = nx_sandbox_watch(now_ns, SLOW_AFTER_NS, &newly_slow);
  if (newly_slow) nx__admission_note_slow(&exec->admission, (int)newly_slow);
  for (; newly_slow && exec->hooks.thread_blocked; newly_slow--) exec->hooks.thread_blocked(exec->hooks.self);
  if (inside && now_ns >= exec->next_glance_ns) {
    nx_governor_glance(exec->governor);
    exec->next_glance_ns = now_ns + GLANCE_NS;
  }
  bool waiting = exec->admission.queue_depth != 0;
  if (waiting && exec->hooks.wake && nx__admission_is_due(&exec->admission, now_ns)) exec->hooks.wake(exec->hooks.self);
  return inside || waiting || exec->admission.running;
}

static void housekeeping(void *self, uint64_t now_ns) {
  struct nx_exec *exec = self;
  nx__admission_measure_rate(&exec->admission);
  uint64_t age_ns = exec->config->idle_trim_ms * NX_NS_PER_MS;
  size_t bytes = now_ns > age_ns ? nx_pool_trim(exec->pool, now_ns - age_ns, SIZE_MAX, UINT64_MAX) : 0;
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_IDLE_INSTANCES, bytes);
  if (exec->admission.finished_per_s || exec->admission.running) {
    exec->quiet_since_ns = now_ns;
  } else if (now_ns - exec->quiet_since_ns >= age_ns) {
    if (exec->hooks.quiet) exec->hooks.quiet(exec->hooks.self);
    exec->quiet_since_ns = now_ns;
  }
}

enum nx_reclaim nx_exec_reclaim_instances(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes) {
  struct nx_exec *exec = self;
  size_t freed = nx_pool_trim(exec->pool, UINT64_MAX, want_bytes, deadline_ns);
  *freed_bytes += freed;
  if (freed >= want_bytes) return NX_RECLAIM_DONE;
  return nx_clock_ns() >= deadline_ns ? NX_RECLAIM_MORE : NX_RECLAIM_NOTHING;
}

void nx_exec_read_stats(struct nx_exec *exec, struct nx_exec_stats *out) {
  unsigned running = exec->admission.running, max = exec->config->max_instances;
  *out = (struct nx_exec_stats){
    .max = max,
    .active = running < max ? running : max,
    .queue_depth = exec->admission.queue_depth,
    .queue_max = exec->admission.queue_max,
  };
}
