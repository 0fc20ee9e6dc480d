/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/admission.h"

#include "base/clock.h"
#include "exec/continuation.h"
#include "metrics/metrics.h"

/* Light ones that may begin in a row while a heavy one waits. */
#define LIGHT_STREAK 8u
/* Between two attempts to reclaim for a job that waits for memory. */
#define RECLAIM_EVERY_NS (20 * NX_NS_PER_MS)

void nx__admission_init(struct nx__admission *a, const struct nx_exec_options *options, struct nx_pool *pool) {
  a->config = options->config;
  a->governor = options->governor;
  a->ledger = options->ledger;
  a->pool = pool;
  /* Each waits on a connection, which nothing can make go: the other half is left to probes and to those to be refused. */
  unsigned half = options->config->max_connections / 2;
  a->queue_max = half && half < options->config->queue_max ? half : options->config->queue_max;
  for (int lane = 0; lane < NX__LANE_COUNT; lane++) a->lanes[lane].tail = &a->lanes[lane].head;
  pthread_mutex_init(&a->mutex, NULL);
  pthread_cond_init(&a->permit_free, NULL);
}

void nx__admission_deinit(struct nx__admission *a) {
  pthread_cond_destroy(&a->permit_free);
  pthread_mutex_destroy(&a->mutex);
}

/* ---- What is expected ------------------------------------------------------------------------------------------- */

static void expect(struct nx__admission *a, struct nx_job *job) {
  struct nx_handler *handler = job->execution.handler;
  uint32_t image = handler ? handler->image->memory_bytes : nx_sandbox_base_image()->memory_bytes;
  struct nx_profile recalled;
  if (!handler) nx_profile_recall(&recalled, job->_source_hash);
  const struct nx_profile *profile = handler ? &handler->profile : &recalled;
  const struct nx_execution *x = &job->execution;
  uint64_t input = nx_execution_input_bytes(x);
  uint32_t bytes = nx_profile_expected_bytes(profile, image, input, x->limits.memory_bytes);
  if (job->_continuation) { /* what it had when it was suspended is needed at once */
    uint32_t had = job->_continuation->memory_bytes;
    image = had > image ? had : image;
    bytes = image > bytes ? image : bytes;
  }
  bool light = nx_profile_is_light(profile, input);
  job->_lane = light ? NX__LANE_LIGHT : NX__LANE_HEAVY;
  job->_expected_bytes = nx_pool_reservation_bytes(a->pool, bytes);
  job->_least_bytes = nx_pool_reservation_bytes(a->pool, image);
}

/* ---- Beginning; all under the mutex ----------------------------------------------------------------------------- */

static bool is_heavy_waiting(const struct nx__admission *a) { return a->waiting || a->lanes[NX__LANE_HEAVY].head; }

/* After a streak of light ones the next permit is a heavy one's, if that is what it lacks. Not while slow ones hold all
 * of them: its turn would be far off. */
static bool is_heavys_turn(const struct nx__admission *a) {
  if (a->streak < LIGHT_STREAK || a->slow >= (int)a->config->max_instances) return false;
  const struct nx_job *head = a->lanes[NX__LANE_HEAVY].head;
  return a->waiting ? !a->waits_for_memory : head && !head->_short_of_memory;
}

static unsigned permits_for(const struct nx__admission *a, const struct nx_job *job) {
  unsigned permits = a->config->max_instances;
  if (job->_lane != NX__LANE_LIGHT) return permits;
  if (is_heavys_turn(a)) return permits - 1;
  if (a->slow <= 0) return permits;
  return permits + ((unsigned)a->slow < NX_EXEC_LOANS_MAX ? (unsigned)a->slow : NX_EXEC_LOANS_MAX);
}

static bool has_permit(const struct nx__admission *a, const struct nx_job *job) {
  return a->running < permits_for(a, job);
}

/* One that runs alone may have all of the budget: otherwise what fits might never begin. */
static enum nx_demand demand_of(const struct nx__admission *a, const struct nx_job *job) {
  return job->_lane == NX__LANE_LIGHT || !a->running ? NX_DEMAND_WORK : NX_DEMAND_LARGE;
}

static bool is_shed(const struct nx__admission *a, const struct nx_job *job) {
  return job->_lane == NX__LANE_HEAVY && a->running && nx_governor_state(a->governor) == NX_GOVERNOR_SHEDDING;
}

static bool has_waited_long(const struct nx__admission *a, const struct nx_job *job) {
  return job->_queued_ns && nx_clock_ns() - job->_queued_ns > a->config->queue_timeout_ms * NX_NS_PER_MS / 2;
}

/* When nothing else runs and what is expected of it still does not fit, it begins with less: it may need less today, and
 * to wait for what is never there would keep it out for good. */
static bool reserve(struct nx__admission *a, struct nx_job *job) {
  enum nx_demand demand = demand_of(a, job);
  return nx_pool_try_reserve(a->pool, &job->reservation, job->_expected_bytes, demand) ||
         (!a->running && has_waited_long(a, job) &&
          nx_pool_try_reserve(a->pool, &job->reservation, job->_least_bytes, demand));
}

static bool try_begin(struct nx__admission *a, struct nx_job *job) {
  bool permit = has_permit(a, job);
  job->_short_of_memory = permit && (is_shed(a, job) || !reserve(a, job));
  if (!permit || job->_short_of_memory) return false;
  a->streak = job->_lane == NX__LANE_LIGHT && is_heavy_waiting(a) ? a->streak + 1 : 0;
  a->running++;
  job->state = NX_JOB_ADMITTED;
  return true;
}

static void enqueue(struct nx__admission *a, struct nx_job *job) {
  struct nx__lane_queue *lane = &a->lanes[job->_lane];
  job->_next = NULL;
  job->_queued_ns = nx_clock_ns();
  job->state = NX_JOB_QUEUED;
  *lane->tail = job;
  lane->tail = &job->_next;
  a->queue_depth++;
}

static struct nx_job *dequeue(struct nx__admission *a, enum nx__lane which) {
  struct nx__lane_queue *lane = &a->lanes[which];
  struct nx_job *job = lane->head;
  lane->head = job->_next;
  if (lane->head)
    lane->head->_short_of_memory = job->_short_of_memory; /* what was missing for the one is for the next */
  else
    lane->tail = &lane->head;
  a->queue_depth--;
  return job;
}

static void refuse(struct nx__admission *a, struct nx_job *job, enum nx_job_state state, const char *why) {
  uint64_t instance = a->config->memory_limit_bytes;
  if (job->_short_of_memory) {
    job->refused = nx_governor_refusal(a->governor, job->_expected_bytes);
  } else {
    uint64_t max = a->config->max_instances, running = a->running < max ? a->running : max;
    job->refused = (struct nx_refusal){"pool", max * instance, running * instance, job->_expected_bytes};
  }
  nx_ledger_count_refusal(a->ledger, NX_LAYER_INSTANCES);
  nx_error_set(&job->refusal, NX_ERR_OVERLOADED, "%s (layer: %s)", why, job->refused.layer);
  job->state = state;
}

enum nx_job_state nx__admission_submit(struct nx__admission *a, struct nx_job *job) {
  expect(a, job);
  pthread_mutex_lock(&a->mutex);
  const struct nx_job *head = a->lanes[job->_lane].head;
  job->_short_of_memory = head && head->_short_of_memory;
  if (head || !try_begin(a, job)) {
    if (a->queue_depth < a->queue_max || job->_goes_on)
      enqueue(a, job);
    else
      refuse(a, job, NX_JOB_REFUSED,
             job->_short_of_memory ? "the memory budget has no room for it, and the queue is full"
                                   : "all instances are busy and the queue is full");
  }
  enum nx_job_state state = job->state; /* a queued job may be another thread's from here on */
  pthread_mutex_unlock(&a->mutex);
  a->watch(a->self);
  return state;
}

/* ---- The queue -------------------------------------------------------------------------------------------------- */

/* Under the mutex. A job may have been queued after `now_ns` was read. */
static bool is_expired(const struct nx__admission *a, const struct nx_job *head, uint64_t now_ns) {
  return head && now_ns >= head->_queued_ns + a->config->queue_timeout_ms * NX_NS_PER_MS;
}

static enum nx__lane first_lane(const struct nx__admission *a) {
  return a->streak >= LIGHT_STREAK && a->lanes[NX__LANE_HEAVY].head ? NX__LANE_HEAVY : NX__LANE_LIGHT;
}

static struct nx_job *take_expired(struct nx__admission *a, uint64_t now_ns) {
  for (int lane = 0; lane < NX__LANE_COUNT; lane++) {
    if (!is_expired(a, a->lanes[lane].head, now_ns)) continue;
    struct nx_job *job = dequeue(a, (enum nx__lane)lane);
    refuse(a, job, NX_JOB_EXPIRED,
           job->_short_of_memory ? "waited too long for memory" : "waited too long for a free instance");
    return job;
  }
  return NULL;
}

static struct nx_job *take_ready(struct nx__admission *a) {
  enum nx__lane first = first_lane(a);
  for (int i = 0; i < NX__LANE_COUNT; i++) {
    enum nx__lane lane = i ? !first : first;
    struct nx_job *job = a->lanes[lane].head;
    /* Who waits in nx__admission_wait comes before the queue. */
    if (!job || (a->waiting && lane == NX__LANE_HEAVY) || !try_begin(a, job)) continue;
    return dequeue(a, lane);
  }
  return NULL;
}

/* A head that has its permit and waits for memory only. */
static const struct nx_job *find_short_of_memory(const struct nx__admission *a) {
  for (int lane = 0; lane < NX__LANE_COUNT; lane++) {
    const struct nx_job *job = a->lanes[lane].head;
    if (job && job->_short_of_memory && has_permit(a, job)) return job;
  }
  return NULL;
}

/* Under the mutex, which is let go meanwhile: reclaiming takes milliseconds. For a job that waits for memory only; NULL
 * does nothing. */
static void make_room(struct nx__admission *a, const struct nx_job *job, uint64_t now_ns) {
  if (!job || now_ns < a->next_reclaim_ns) return;
  a->next_reclaim_ns = now_ns + RECLAIM_EVERY_NS;
  uint64_t bytes = job->_expected_bytes;
  enum nx_demand demand = demand_of(a, job);
  pthread_mutex_unlock(&a->mutex);
  nx_governor_make_room(a->governor, bytes, demand);
  pthread_mutex_lock(&a->mutex);
}

struct nx_job *nx__admission_next(struct nx__admission *a) {
  if (!atomic_load_explicit(&a->queue_depth, memory_order_relaxed)) return NULL;
  pthread_mutex_lock(&a->mutex);
  uint64_t now = nx_clock_ns();
  struct nx_job *job = take_expired(a, now);
  if (!job) job = take_ready(a);
  if (!job) {
    make_room(a, find_short_of_memory(a), now);
    job = take_ready(a); /* which may have been queued meanwhile */
  }
  pthread_mutex_unlock(&a->mutex);
  if (job) nx_metrics_queue_wait(nx_clock_ns() - job->_queued_ns); /* `now` may be from before it came */
  return job;
}

void nx__admission_wait(struct nx__admission *a, struct nx_job *job) {
  expect(a, job);
  job->_queued_ns = nx_clock_ns();
  pthread_mutex_lock(&a->mutex);
  a->waiting++;
  a->queue_depth++;
  while (!try_begin(a, job)) {
    a->waits_for_memory = job->_short_of_memory;
    make_room(a, job->_short_of_memory ? job : NULL, nx_clock_ns());
    uint64_t until = nx_clock_ns() + RECLAIM_EVERY_NS;
    const struct timespec deadline = {(time_t)(until / NX_NS_PER_S), (long)(until % NX_NS_PER_S)};
    pthread_cond_clockwait(&a->permit_free, &a->mutex, CLOCK_MONOTONIC, &deadline);
  }
  a->waiting--;
  a->queue_depth--;
  pthread_mutex_unlock(&a->mutex);
  a->watch(a->self);
}

void nx__admission_leave(struct nx__admission *a, struct nx_job *job) {
  nx_pool_unreserve(a->pool, &job->reservation);
  pthread_mutex_lock(&a->mutex);
  a->running--;
  a->finished++;
  if (a->waiting) pthread_cond_signal(&a->permit_free);
  pthread_mutex_unlock(&a->mutex);
}

/* ---- The watchdog's part ---------------------------------------------------------------------------------------- */

void nx__admission_note_slow(struct nx__admission *a, int more) {
  pthread_mutex_lock(&a->mutex);
  a->slow += more;
  pthread_mutex_unlock(&a->mutex);
}

bool nx__admission_is_due(struct nx__admission *a, uint64_t now_ns) {
  bool due = false;
  pthread_mutex_lock(&a->mutex);
  for (int lane = 0; lane < NX__LANE_COUNT && !due; lane++) {
    const struct nx_job *job = a->lanes[lane].head;
    due = is_expired(a, job, now_ns) || (job && has_permit(a, job));
  }
  pthread_mutex_unlock(&a->mutex);
  return due;
}

void nx__admission_measure_rate(struct nx__admission *a) {
  pthread_mutex_lock(&a->mutex);
  uint64_t now = a->finished - a->finished_before;
  a->finished_before = a->finished;
  atomic_store(&a->finished_per_s, (uint32_t)((atomic_load(&a->finished_per_s) + now) / 2));
  pthread_mutex_unlock(&a->mutex);
}

unsigned nx__admission_retry_after_s(const struct nx__admission *a) {
  enum { MOST_S = 60 };
  unsigned depth = a->queue_depth + 1, per_s = a->finished_per_s;
  unsigned s = per_s ? (depth + per_s - 1) / per_s : (unsigned)((a->config->queue_timeout_ms + 999) / 1000);
  return s < 1 ? 1 : s > MOST_S ? MOST_S : s;
}
