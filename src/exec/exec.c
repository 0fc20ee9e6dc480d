/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission and the queue. Permits are counted, not owned: `active` of max_instances are in use. The queue is first
 * in, first out; it is only entered when no permit is free, and whoever returns a permit does not hand it over but
 * lets the next caller of nx_exec_next take it, which is the same thread a moment later. */
#include "exec/exec.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "exec/compile.h"
#include "exec/watchdog.h"
#include "metrics/metrics.h"

/* An execution that has been inside for this long is slow: its thread is replaced at the sockets. */
#define SLOW_AFTER_NS (NX_NS_PER_MS + NX_NS_PER_MS / 2)

struct nx_exec {
  const struct nx_config *config;
  struct nx_ledger *ledger;
  struct nx_compiler compiler;
  struct nx_pool *pool;
  struct nx_watchdog *watchdog;
  struct nx_exec_hooks hooks;

  /* Synchronization: `mutex` guards the queue and changes of the two counts, which may be read without it. */
  pthread_mutex_t mutex;
  pthread_cond_t permit_free; /* for nx_exec_run_waiting */
  _Atomic unsigned active, queue_depth;
  unsigned waiting; /* threads in nx_exec_run_waiting */
  struct nx_job *head, **tail;
};

static bool tick(void *self, uint64_t now_ns);
static void housekeeping(void *self, uint64_t now_ns);

int nx_exec_create(struct nx_exec **out, const struct nx_exec_options *options, struct nx_error *err) {
  struct nx_exec *exec = calloc(1, sizeof *exec);
  if (!exec) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the executor");
  exec->config = options->config;
  exec->ledger = options->ledger;
  exec->tail = &exec->head;
  pthread_mutex_init(&exec->mutex, NULL);
  pthread_cond_init(&exec->permit_free, NULL);
  int status = nx_pool_create(&exec->pool, options->config->max_instances, options->ledger, err);
  exec->compiler = (struct nx_compiler){
    .pool = exec->pool,
    .registry = options->registry,
    .cache = options->cache,
    .memory_bytes = (uint32_t)options->config->memory_limit_bytes,
  };
  if (!status) status = nx_cache_writer_create(&exec->compiler.writer, options->cache, err);
  const struct nx_watchdog_work work = {.self = exec, .tick = tick, .housekeeping = housekeeping};
  if (!status) status = nx_watchdog_create(&exec->watchdog, &work, err);
  if (status) {
    nx_exec_destroy(exec);
    return status;
  }
  *out = exec;
  return 0;
}

void nx_exec_set_hooks(struct nx_exec *exec, const struct nx_exec_hooks *hooks) {
  pthread_mutex_lock(&exec->mutex);
  exec->hooks = *hooks;
  pthread_mutex_unlock(&exec->mutex);
}

void nx_exec_destroy(struct nx_exec *exec) {
  if (!exec) return;
  nx_watchdog_destroy(exec->watchdog);
  nx_cache_writer_destroy(exec->compiler.writer);
  nx_pool_destroy(exec->pool);
  pthread_cond_destroy(&exec->permit_free);
  pthread_mutex_destroy(&exec->mutex);
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

static enum nx_job_state refuse(struct nx_exec *exec, struct nx_job *job, const char *why) {
  nx_ledger_count_refusal(exec->ledger, NX_LAYER_INSTANCES);
  nx_error_set(&job->refusal, NX_ERR_OVERLOADED, "%s (layer: pool)", why);
  return job->state = NX_JOB_REFUSED;
}

/* Under the mutex. */
static bool take_permit(struct nx_exec *exec) {
  if (exec->active >= exec->config->max_instances) return false;
  exec->active++;
  return true;
}

enum nx_job_state nx_exec_submit(struct nx_exec *exec, struct nx_job *job) {
  pthread_mutex_lock(&exec->mutex);
  if (!exec->head && take_permit(exec)) {
    job->state = NX_JOB_ADMITTED;
  } else if (exec->queue_depth >= exec->config->queue_max) {
    refuse(exec, job, "all instances are busy and the queue is full");
  } else {
    job->_next = NULL;
    job->_queued_ns = nx_clock_ns();
    job->state = NX_JOB_QUEUED;
    *exec->tail = job;
    exec->tail = &job->_next;
    exec->queue_depth++;
  }
  enum nx_job_state state = job->state; /* a queued job may be another thread's from here on */
  pthread_mutex_unlock(&exec->mutex);
  nx_watchdog_kick(exec->watchdog);
  return state;
}

/* Under the mutex. A job may have been queued after `now_ns` was read. */
static bool head_expired(const struct nx_exec *exec, uint64_t now_ns) {
  return exec->head && now_ns >= exec->head->_queued_ns + exec->config->queue_timeout_ms * NX_NS_PER_MS;
}

/* Under the mutex. */
static struct nx_job *take_head(struct nx_exec *exec) {
  struct nx_job *job = exec->head;
  exec->head = job->_next;
  if (!exec->head) exec->tail = &exec->head;
  exec->queue_depth--;
  return job;
}

struct nx_job *nx_exec_next(struct nx_exec *exec) {
  if (!atomic_load_explicit(&exec->queue_depth, memory_order_relaxed)) return NULL;
  struct nx_job *job = NULL;
  pthread_mutex_lock(&exec->mutex);
  uint64_t now = nx_clock_ns();
  if (head_expired(exec, now)) {
    job = take_head(exec);
    refuse(exec, job, "waited too long for a free instance");
    job->state = NX_JOB_EXPIRED;
  } else if (exec->head && !exec->waiting && take_permit(exec)) { /* who waits in nx_exec_run_waiting comes first */
    job = take_head(exec);
    job->state = NX_JOB_ADMITTED;
  }
  pthread_mutex_unlock(&exec->mutex);
  if (job) nx_metrics_queue_wait(now - job->_queued_ns);
  return job;
}

static void return_permit(struct nx_exec *exec) {
  pthread_mutex_lock(&exec->mutex);
  exec->active--;
  if (exec->waiting) pthread_cond_signal(&exec->permit_free);
  pthread_mutex_unlock(&exec->mutex);
}

unsigned nx_exec_retry_after_s(struct nx_exec *exec) {
  /* A queue that is full is served within its own timeout, or refused. */
  uint64_t ms = exec->config->queue_timeout_ms;
  return ms < 1000 ? 1 : (unsigned)((ms + 999) / 1000);
}

/* ---- Running --------------------------------------------------------------------------------------------------------- */

static void host_failed(struct nx_job *job, const struct nx_error *err) {
  job->refusal = *err;
  nx_execution_fail(&job->execution, NX_OUTCOME_INTERNAL_ERROR, "%s", err->text);
}

static void execute(struct nx_exec *exec, struct nx_job *job) {
  struct nx_execution *x = &job->execution;
  struct nx_error err;
  struct nx_lease lease;
  if (nx__acquire(&exec->compiler, x->handler->image, &lease, &err)) {
    host_failed(job, &err);
    return;
  }
  nx_execution_run(x, lease.instance);
  nx_pool_release(exec->pool, &lease);
}

/* Once for each time that the watchdog called this thread blocked. */
static void unblock(const struct nx_exec *exec, struct nx_execution *x) {
  if (x->was_slow && exec->hooks.thread_unblocked) exec->hooks.thread_unblocked(exec->hooks.self);
  x->was_slow = false;
}

void nx_exec_run(struct nx_exec *exec, struct nx_job *job) {
  struct nx_execution *x = &job->execution;
  x->grant = nx_pool_grant;
  x->budget = exec->pool;
  bool compiled = x->handler || nx__compile(&exec->compiler, job);
  unblock(exec, x);
  if (compiled && job->kind == NX_JOB_EXECUTE) execute(exec, job);
  unblock(exec, x);
  job->state = NX_JOB_DONE;
  return_permit(exec);
}

void nx_exec_run_waiting(struct nx_exec *exec, struct nx_job *job) {
  pthread_mutex_lock(&exec->mutex);
  exec->waiting++;
  while (!take_permit(exec)) pthread_cond_wait(&exec->permit_free, &exec->mutex);
  exec->waiting--;
  pthread_mutex_unlock(&exec->mutex);
  job->state = NX_JOB_ADMITTED;
  nx_watchdog_kick(exec->watchdog);
  nx_exec_run(exec, job);
}

/* ---- The watchdog's part ----------------------------------------------------------------------------------------------- */

static bool tick(void *self, uint64_t now_ns) {
  struct nx_exec *exec = self;
  unsigned newly_slow;
  unsigned inside = nx_sandbox_watch(now_ns, SLOW_AFTER_NS, &newly_slow);
  pthread_mutex_lock(&exec->mutex);
  struct nx_exec_hooks hooks = exec->hooks;
  bool waiting = exec->head != NULL;
  bool due = head_expired(exec, now_ns) || (waiting && exec->active < exec->config->max_instances);
  pthread_mutex_unlock(&exec->mutex);
  for (; newly_slow && hooks.thread_blocked; newly_slow--) hooks.thread_blocked(hooks.self);
  if (due && hooks.wake) hooks.wake(hooks.self);
  return inside || waiting || exec->active;
}

static void housekeeping(void *self, uint64_t now_ns) {
  struct nx_exec *exec = self;
  uint64_t age_ns = exec->config->idle_trim_ms * NX_NS_PER_MS;
  size_t bytes = now_ns > age_ns ? nx_pool_trim(exec->pool, now_ns - age_ns) : 0;
  if (!bytes) return;
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_IDLE_INSTANCES, bytes);
  malloc_trim(0); /* what connections and compiles freed since: the burst is over */
}

size_t nx_exec_trim(struct nx_exec *exec) { return nx_pool_trim(exec->pool, UINT64_MAX); }

void nx_exec_read_stats(struct nx_exec *exec, struct nx_exec_stats *out) {
  nx_pool_read_stats(exec->pool, &out->pool);
  out->active = exec->active;
  out->queue_depth = exec->queue_depth;
}
