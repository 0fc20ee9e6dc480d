/* SPDX-License-Identifier: Apache-2.0
 *
 * A job from its submission to its end, and the watchdog's errands. Whoever returns a permit does not hand it over but
 * lets the next caller of nx_exec_next take it, which is the same thread a moment later. */
#include "exec/executor.h"

#include <stdlib.h>

#include "base/clock.h"
#include "metrics/metrics.h"

/* A memory limit that was lowered while executions run is known after so long at most. */
#define GLANCE_NS (5 * NX_NS_PER_MS)

static uint64_t tick(void *self, uint64_t now_ns);
static void housekeeping(void *self, uint64_t now_ns);

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

static void fire(void *self, struct nx__wake *wake);
static void answer(void *self, const struct nx_buf *name, const struct nx__incoming *in);
static void watch(void *self);
static void ready(void *self, struct nx_job *job);

static int create_waiting(struct nx_exec *exec, const struct nx_exec_options *options, struct nx_error *err) {
  exec->suspended = nx_governor_account(options->governor, NX_LAYER_SUSPENDED, NX_DEMAND_GROWTH);
  exec->ready_tail = &exec->ready;
  exec->waits.net = options->net;
  exec->waits.account = exec->suspended;
  exec->waits.self = exec;
  exec->waits.fire = fire;
  exec->waits.answer = answer;
  exec->waits.sooner = watch;
  exec->keeper.config = options->config;
  exec->keeper.suspensions = options->suspensions;
  exec->keeper.compiler = &exec->compiler;
  exec->keeper.admission = &exec->admission;
  exec->keeper.waits = &exec->waits;
  exec->keeper.account = exec->suspended;
  exec->keeper.self = exec;
  exec->keeper.ready = ready;
  return nx__keeper_init(&exec->keeper, err);
}

int nx_exec_create(struct nx_exec **out, const struct nx_exec_options *options, struct nx_error *err) {
  struct nx_exec *exec = calloc(1, sizeof *exec);
  if (!exec) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the executor");
  exec->config = options->config;
  exec->governor = options->governor;
  pthread_mutex_init(&exec->ready_mutex, NULL);
  nx__waits_init(&exec->waits);
  uint64_t lease_bytes = nx_config_instance_bytes(options->config) - options->config->memory_limit_bytes;
  unsigned instances = options->config->max_instances + NX_EXEC_LOANS_MAX;
  int status = nx_pool_create(&exec->pool, instances, lease_bytes, options->governor, err);
  nx__admission_init(&exec->admission, options, exec->pool);
  exec->admission.self = exec;
  exec->admission.watch = watch;
  exec->compiler = (struct nx_compiler){
    .pool = exec->pool,
    .registry = options->registry,
    .cache = options->cache,
    .account = nx_governor_account(options->governor, NX_LAYER_HANDLERS, NX_DEMAND_GROWTH),
    .memory_bytes = (uint32_t)options->config->memory_limit_bytes,
    .timeout_ns = options->config->timeout_ms * NX_NS_PER_MS,
  };
  if (!status) status = nx_cache_writer_create(&exec->compiler.writer, options->cache, err);
  if (!status) status = create_waiting(exec, options, err);
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

void nx_exec_retire(struct nx_exec *exec) { nx__keeper_retire(&exec->keeper); }

void nx_exec_stop(struct nx_exec *exec) { nx_watchdog_stop(exec->watchdog); }

void nx_exec_destroy(struct nx_exec *exec) {
  if (!exec) return;
  nx_exec_retire(exec);
  nx_watchdog_destroy(exec->watchdog); /* first: it gives the keeper work */
  nx__keeper_deinit(&exec->keeper);
  nx__waits_deinit(&exec->waits);
  pthread_mutex_destroy(&exec->ready_mutex);
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
  nx__waits_forget(job);
  nx__continuation_free(job);
  nx_buf_deinit(&job->name);
  nx_buf_deinit(&job->reply);
  if (job->_owns_handler) nx_handler_release(job->execution.handler);
  nx_execution_deinit(&job->execution);
}

/* ---- Own jobs: executions in the store that go on by themselves ------------------------------------------ */

static bool may_be_tried_again(const struct nx_job *job) {
  enum nx_error_code code = job->refusal.code;
  return (code == NX_ERR_OVERLOADED || code == NX_ERR_NO_MEMORY || code == NX_ERR_UNAVAILABLE) &&
         nx_clock_ns() < job->_continuation->retry_until_ns;
}

/* Nobody else would ask again. */
void nx__exec_end_own(struct nx_exec *exec, struct nx_job *job) {
  if (may_be_tried_again(job)) {
    nx__waits_forget(job); /* the next try makes its requests again */
    nx__continuation_unload(job);
    job->state = NX_JOB_WAITING;
    if (nx__waits_retry(&exec->waits, job, nx_clock_ns() + NX__OWN_RETRY_NS)) return;
  }
  nx_job_deinit(job);
  free(job);
}

/* ---- Admission ------------------------------------------------------------------------------------------------------ */

static bool begins_with_keeper(const struct nx_job *job) {
  return job->kind != NX_JOB_EXECUTE && job->kind != NX_JOB_COMPILE;
}

static void find(struct nx_exec *exec, struct nx_job *job) {
  nx__compile_find(&exec->compiler, job);
  if (job->entry && job->execution.handler)
    nx_registry_bind(exec->compiler.registry, job->entry, job->execution.handler);
}

/* Without a store that blocks it is copied here and now. */
static enum nx_job_state begin(struct nx_exec *exec, struct nx_job *job) {
  nx_sandbox_work_begin();
  enum nx_job_state state = nx__keeper_begin(&exec->keeper, job);
  nx__exec_end_work(exec);
  return state;
}

enum nx_job_state nx_exec_submit(struct nx_exec *exec, struct nx_job *job) {
  if (begins_with_keeper(job)) return begin(exec, job);
  if (!job->execution.handler) find(exec, job);
  if (!job->execution.handler && job->entry) return nx__keeper_fetch(&exec->keeper, job);
  return nx__admission_submit(&exec->admission, job);
}

/* A resumed one that was sent away gives its lease back first, so that nothing has happened. */
static struct nx_job *take_queued(struct nx_exec *exec) {
  struct nx_job *job = nx__admission_next(&exec->admission);
  bool holds = job && job->state == NX_JOB_EXPIRED && job->kind == NX_JOB_RESUME;
  return holds && nx__keeper_give_up(&exec->keeper, job) == NX_JOB_WAITING ? NULL : job;
}

static struct nx_job *take_ready(struct nx_exec *exec) {
  if (!atomic_load_explicit(&exec->ready_count, memory_order_relaxed)) return NULL;
  pthread_mutex_lock(&exec->ready_mutex);
  struct nx_job *job = exec->ready;
  if (job) {
    exec->ready = job->_next;
    if (!exec->ready) exec->ready_tail = &exec->ready;
    exec->ready_count--;
  }
  pthread_mutex_unlock(&exec->ready_mutex);
  return job;
}

/* Own ones run here and now. */
struct nx_job *nx_exec_next(struct nx_exec *exec) {
  for (;;) {
    struct nx_job *job = take_ready(exec);
    if (!job) job = take_queued(exec);
    if (!job || !job->_is_own) return job;
    if (job->state == NX_JOB_ADMITTED)
      nx_exec_run(exec, job);
    else
      nx__exec_end_own(exec, job);
  }
}

unsigned nx_exec_retry_after_s(struct nx_exec *exec) { return nx__admission_retry_after_s(&exec->admission); }

/* ---- Waiting ---------------------------------------------------------------------------------------------------------- */

/* A job that waited can go on, on whatever thread asks next. */
static void ready(void *self, struct nx_job *job) {
  struct nx_exec *exec = self;
  job->_next = NULL;
  pthread_mutex_lock(&exec->ready_mutex);
  *exec->ready_tail = job;
  exec->ready_tail = &job->_next;
  exec->ready_count++;
  pthread_mutex_unlock(&exec->ready_mutex);
  if (exec->hooks.wake) exec->hooks.wake(exec->hooks.self);
}

/* The process is shutting down: what is kept outside of it another one takes up. */
static enum nx_job_state leave_waiting(struct nx_exec *exec, struct nx_job *job) {
  struct nx_suspensions *suspensions = exec->keeper.suspensions;
  if (suspensions && nx_suspensions_are_durable(suspensions)) return nx__keeper_keep(&exec->keeper, job);
  nx_error_set(&job->refusal, NX_ERR_UNAVAILABLE, "this instance is shutting down, and nothing keeps what waits in it: "
               "set SUSPEND_STORE to have it taken up elsewhere");
  job->state = NX_JOB_DONE;
  return job->kind == NX_JOB_RESUME ? nx__keeper_give_up(&exec->keeper, job) : job->state;
}

/* It waited for as long as a suspended execution may. */
static enum nx_job_state expire(struct nx_exec *exec, struct nx_job *job) {
  nx_execution_fail(&job->execution, NX_OUTCOME_TIMEOUT, "the execution waited longer than the %llu ms of SUSPEND_TTL_MS",
                    (unsigned long long)exec->config->suspend_ttl_ms);
  job->state = NX_JOB_DONE;
  return job->kind == NX_JOB_RESUME ? nx__keeper_finish(&exec->keeper, job) : job->state;
}

static enum nx_job_state next_step(struct nx_exec *exec, struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  if (c->must_leave) return leave_waiting(exec, job);
  if (nx__waits_have_news(&exec->waits, job)) return nx__admission_submit(&exec->admission, job);
  return nx_clock_ns() >= c->expires_ns ? expire(exec, job) : nx__keeper_wait(&exec->keeper, job);
}

/* What it waited for has come; or there is no time left to wait. */
static void go_on(struct nx_exec *exec, struct nx_job *job) {
  job->_goes_on = true;
  if (!nx_job_is_elsewhere(next_step(exec, job))) ready(exec, job);
}

static void fire(void *self, struct nx__wake *wake) {
  struct nx_exec *exec = self;
  if (wake->kind == NX__WAKE_ALARM) {
    struct nx__alarm *alarm = nx__alarm_of(wake);
    nx__keeper_wake(&exec->keeper, alarm->name, sizeof alarm->name, NULL);
    nx__alarm_free(&exec->waits, alarm);
    return;
  }
  struct nx_job *job = ((struct nx__continuation *)wake)->job;
  if (wake->kind == NX__WAKE_PARKED)
    go_on(exec, job);
  else if (!nx_job_is_elsewhere(nx__keeper_begin(&exec->keeper, job)))
    ready(exec, job);
}

static void answer(void *self, const struct nx_buf *name, const struct nx__incoming *in) {
  nx__keeper_wake(&((struct nx_exec *)self)->keeper, name->data, name->len, in);
}

void nx_exec_flush(struct nx_exec *exec, uint64_t longest_ns) {
  nx__waits_flush(&exec->waits, nx_clock_ns() + longest_ns);
}

/* ---- The watchdog's part ----------------------------------------------------------------------------------------------- */

static void watch(void *self) { nx_watchdog_kick(((struct nx_exec *)self)->watchdog); }

static uint64_t tick(void *self, uint64_t now_ns) {
  struct nx_exec *exec = self;
  unsigned newly_slow;
  unsigned inside = nx_sandbox_watch(now_ns, NX_EXECUTION_SLOW_NS, &newly_slow);
  if (newly_slow) nx__admission_note_slow(&exec->admission, (int)newly_slow);
  for (; newly_slow && exec->hooks.thread_blocked; newly_slow--) exec->hooks.thread_blocked(exec->hooks.self);
  if (inside && now_ns >= exec->next_glance_ns) {
    nx_governor_glance(exec->governor);
    exec->next_glance_ns = now_ns + GLANCE_NS;
  }
  bool waiting = exec->admission.queue_depth != 0;
  if (waiting && exec->hooks.wake && nx__admission_is_due(&exec->admission, now_ns)) exec->hooks.wake(exec->hooks.self);
  uint64_t next_ns = nx__waits_run_due(&exec->waits, now_ns);
  return inside || waiting || exec->admission.running ? now_ns : next_ns;
}

static void housekeeping(void *self, uint64_t now_ns) {
  struct nx_exec *exec = self;
  nx__admission_measure_rate(&exec->admission);
  nx__keeper_sweep(&exec->keeper);
  uint64_t age_ns = exec->config->idle_trim_ms * NX_NS_PER_MS;
  size_t bytes = now_ns > age_ns ? nx_pool_trim(exec->pool, now_ns - age_ns, SIZE_MAX, UINT64_MAX) : 0;
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_IDLE_INSTANCES, bytes);
  if (exec->admission.finished_per_s || exec->admission.running) {
    exec->quiet_since_ns = now_ns;
  } else if (now_ns - exec->quiet_since_ns >= age_ns) {
    if (exec->hooks.quiet) exec->hooks.quiet(exec->hooks.self);
    exec->quiet_since_ns = now_ns;
  }
  if (now_ns - exec->aged_ns >= age_ns) {
    if (exec->hooks.aged) exec->hooks.aged(exec->hooks.self);
    exec->aged_ns = now_ns;
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
    .waiting = exec->waits.parked + exec->waits.retried + exec->keeper.busy + exec->ready_count,
    .storing = nx_cache_writer_pending(exec->compiler.writer),
  };
}
