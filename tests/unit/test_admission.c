/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission: lanes, loans, memory, refusals, and many threads at once. No guest: that an execution is slow is said by the
 * test, in the watchdog's place. */
#include "handler_support.h"

#include <pthread.h>

#include "base/clock.h"
#include "exec/admission.h"
#include "metrics/metrics.h"

#define MIB (1u << 20)
#define LEASE_BYTES (64u << 10)
#define STREAK 8 /* LIGHT_STREAK */
#define LONG_NS (20 * NX_NS_PER_S)
#define EVENTUALLY(condition)                                                                \
  do {                                                                                       \
    for (uint64_t until_ = nx_clock_ns() + LONG_NS; !(condition); usleep(1000))              \
      if (nx_clock_ns() > until_) fail_msg("line %d: never: %s", __LINE__, #condition);      \
  } while (0)

static struct nx_config config;
static struct nx_ledger ledger;
static struct nx_governor *governor;
static struct nx_pool *pool;
static struct nx__admission admission;
static struct nx_handler *light, *heavy;
static _Atomic unsigned watched;

static void count_watch(void *self) {
  (void)self;
  watched++;
}

static void begin(unsigned max_instances, unsigned queue_max, uint64_t budget_bytes) {
  struct nx_error err;
  memset(&config, 0, sizeof config);
  memset(&ledger, 0, sizeof ledger);
  memset(&admission, 0, sizeof admission);
  config.max_instances = max_instances;
  config.queue_max = queue_max;
  config.queue_timeout_ms = 600000;
  config.memory_limit_bytes = 32 * MIB;
  const struct nx_governor_options memory = {.ledger = &ledger, .limit_bytes = budget_bytes};
  assert_int_equal(nx_governor_create(&governor, &memory, &err), 0);
  assert_int_equal(nx_pool_create(&pool, max_instances + NX_EXEC_LOANS_MAX, LEASE_BYTES, governor, &err), 0);
  const struct nx_exec_options options = {.config = &config, .ledger = &ledger, .governor = governor};
  nx__admission_init(&admission, &options, pool);
  admission.watch = count_watch;
  watched = 0;
  light = make_handler("light");
  heavy = make_handler("heavy");
  nx_profile_trust(&light->profile);
}

/* Whatever the test did, every charge has been returned. */
static void end(void) {
  assert_int_equal(admission.running, 0);
  assert_int_equal(admission.queue_depth, 0);
  assert_int_equal(admission.slow, 0);
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_INSTANCES), 0);
  nx_handler_release(light);
  nx_handler_release(heavy);
  nx__admission_deinit(&admission);
  nx_pool_destroy(pool);
  nx_governor_destroy(governor);
}

static struct nx_job job_of(struct nx_handler *handler) {
  return (struct nx_job){.execution = {.handler = handler, .limits = {.memory_bytes = 32 * MIB}}};
}

static enum nx_job_state submit(struct nx_job *job, struct nx_handler *handler) {
  *job = job_of(handler);
  return nx__admission_submit(&admission, job);
}

#define SUBMIT(job, handler, expected) assert_int_equal(submit((job), (handler)), NX_JOB_##expected)

static void leave(struct nx_job *job) {
  assert_int_equal(job->state, NX_JOB_ADMITTED);
  nx__admission_leave(&admission, job);
  assert_int_equal(job->reservation.bytes, 0);
}

static struct nx_job *next(void) { return nx__admission_next(&admission); }

/* The handler's next execution is expected to reach this. */
static void expect_bytes(struct nx_handler *handler, uint32_t bytes) { handler->profile.peak_bytes = bytes; }

/* ---- Lanes ------------------------------------------------------------------------------------------------------ */

static void light_goes_first(void **state) {
  (void)state;
  begin(1, 10, 1024 * MIB);
  struct nx_job first, large[2], small[2];
  SUBMIT(&first, heavy, ADMITTED);
  SUBMIT(&large[0], heavy, QUEUED);
  SUBMIT(&small[0], light, QUEUED);
  SUBMIT(&large[1], heavy, QUEUED);
  SUBMIT(&small[1], light, QUEUED);
  assert_int_equal(watched, 5);
  assert_null(next());
  struct nx_job *expected[] = {&small[0], &small[1], &large[0], &large[1]}, *running = &first;
  for (int i = 0; i < 4; i++) {
    leave(running);
    running = next();
    assert_ptr_equal(running, expected[i]);
    assert_null(next());
  }
  leave(running);
  end();
}

/* Takes queued ones one after the other: 'l' or 'h' for each. */
static void take_all(struct nx_job *running, char *order) {
  do {
    leave(running);
    running = next();
    if (running) *order++ = running->execution.handler == light ? 'l' : 'h';
  } while (running);
  *order = 0;
}

static void after_a_streak_it_is_heavys_turn(void **state) {
  (void)state;
  begin(1, 100, 1024 * MIB);
  struct nx_job first, large[2], small[3 * STREAK];
  char order[64];
  SUBMIT(&first, light, ADMITTED);
  for (int i = 0; i < 2; i++) SUBMIT(&large[i], heavy, QUEUED);
  for (int i = 0; i < 3 * STREAK; i++) SUBMIT(&small[i], light, QUEUED);
  take_all(&first, order);
  assert_string_equal(order, "llllllll" "h" "llllllll" "h" "llllllll");
  /* The streak begins when a heavy one waits, not before. */
  SUBMIT(&first, light, ADMITTED);
  for (int i = 0; i < STREAK + 2; i++) SUBMIT(&small[i], light, QUEUED);
  struct nx_job *running = &first;
  for (int i = 0; i < STREAK + 2; i++) {
    leave(running);
    running = next();
    assert_ptr_equal(running, &small[i]);
  }
  SUBMIT(&large[0], heavy, QUEUED);
  for (int i = 0; i < STREAK + 1; i++) SUBMIT(&small[STREAK + 2 + i], light, QUEUED);
  take_all(running, order);
  assert_string_equal(order, "llllllll" "h" "l");
  end();
}

/* A handler is in the lane of its profile and input at the time it is submitted. */
static void lanes_follow_profiles(void **state) {
  (void)state;
  begin(4, 10, 1024 * MIB);
  struct nx_job job;
  SUBMIT(&job, light, ADMITTED);
  assert_int_equal(job._lane, NX__LANE_LIGHT);
  leave(&job);
  job = job_of(light);
  job.execution.args.bytes = NX_PROFILE_MUCH_INPUT_BYTES;
  job.execution.state.bytes = 1;
  assert_int_equal(nx__admission_submit(&admission, &job), NX_JOB_ADMITTED);
  assert_int_equal(job._lane, NX__LANE_HEAVY);
  leave(&job);
  nx_profile_record(&light->profile, MEMORY_BYTES, 0, MEMORY_BYTES, NX_NS_PER_S, 0);
  SUBMIT(&job, light, ADMITTED);
  assert_int_equal(job._lane, NX__LANE_HEAVY);
  leave(&job);
  for (int i = NX_PROFILE_WORST; i < 0; i++) nx_profile_record(&light->profile, MEMORY_BYTES, 0, MEMORY_BYTES, 0, 0);
  SUBMIT(&job, light, ADMITTED);
  assert_int_equal(job._lane, NX__LANE_LIGHT);
  leave(&job);
  end();
}

/* ---- Loans ------------------------------------------------------------------------------------------------------ */

static void slow_ones_lend_to_light_ones(void **state) {
  (void)state;
  begin(3, 10, 1024 * MIB);
  struct nx_job running[3], small[4], large;
  for (int i = 0; i < 3; i++) SUBMIT(&running[i], heavy, ADMITTED);
  SUBMIT(&large, heavy, QUEUED);
  for (int i = 0; i < 4; i++) SUBMIT(&small[i], light, QUEUED);
  assert_null(next());
  for (unsigned slow = 1; slow <= 3; slow++) {
    nx__admission_note_slow(&admission, 1);
    struct nx_job *lent = next();
    if (slow <= NX_EXEC_LOANS_MAX) assert_ptr_equal(lent, &small[slow - 1]);
    else assert_null(lent); /* never more */
    assert_null(next());
    assert_in_range(admission.running, 3, 3 + NX_EXEC_LOANS_MAX);
  }
  /* One comes to its end: what was lent is not given to a heavy one, nor beyond the most. */
  leave(&small[0]);
  assert_ptr_equal(next(), &small[2]);
  assert_null(next());
  nx__admission_note_slow(&admission, -1);
  leave(&running[0]);
  assert_ptr_equal(next(), &small[3]);
  assert_null(next());
  nx__admission_note_slow(&admission, -2);
  leave(&running[1]);
  leave(&running[2]);
  assert_null(next()); /* three light ones are running */
  leave(&small[1]);
  assert_ptr_equal(next(), &large);
  leave(&small[2]);
  leave(&small[3]);
  leave(&large);
  end();
}

static void a_light_one_begins_on_a_loan_at_once(void **state) {
  (void)state;
  begin(1, 10, 1024 * MIB);
  struct nx_job running, large, small[3];
  SUBMIT(&running, heavy, ADMITTED);
  nx__admission_note_slow(&admission, 1);
  SUBMIT(&large, heavy, QUEUED);
  SUBMIT(&small[0], light, ADMITTED);
  SUBMIT(&small[1], light, QUEUED);
  /* The light one turns out to be slow, too, and lends in its turn. */
  nx__admission_note_slow(&admission, 1);
  assert_ptr_equal(next(), &small[1]);
  nx__admission_note_slow(&admission, 1);
  SUBMIT(&small[2], light, QUEUED);
  assert_null(next());
  nx__admission_note_slow(&admission, -3);
  leave(&small[0]);
  leave(&small[1]);
  leave(&running);
  assert_ptr_equal(next(), &small[2]);
  leave(&small[2]);
  assert_ptr_equal(next(), &large);
  leave(&large);
  end();
}

/* The watchdog tells of a slow one after its end: nothing is lent for it meanwhile, nor afterwards. */
static void late_news_lend_nothing(void **state) {
  (void)state;
  begin(1, 10, 1024 * MIB);
  struct nx_job running, small;
  SUBMIT(&running, heavy, ADMITTED);
  nx__admission_note_slow(&admission, -1);
  SUBMIT(&small, light, QUEUED);
  assert_null(next());
  nx__admission_note_slow(&admission, 1);
  assert_null(next());
  leave(&running);
  assert_ptr_equal(next(), &small);
  leave(&small);
  end();
}

/* Light ones without end, and one slow execution, because of which they may be one more: heavy ones have their turn all
 * the same. */
static void loans_do_not_keep_heavy_ones_waiting(void **state) {
  (void)state;
  begin(2, 1000, 1024 * MIB);
  struct nx_job slow, large, small[100], *running[2];
  SUBMIT(&slow, heavy, ADMITTED);
  nx__admission_note_slow(&admission, 1);
  SUBMIT(&large, heavy, ADMITTED);
  leave(&large);
  SUBMIT(&small[0], light, ADMITTED);
  SUBMIT(&small[1], light, ADMITTED);
  SUBMIT(&large, heavy, QUEUED);
  for (int i = 2; i < 100; i++) SUBMIT(&small[i], light, QUEUED);
  running[0] = &small[0];
  running[1] = &small[1];
  int begun = 0;
  for (int i = 0; i < 40 && large.state != NX_JOB_ADMITTED; i++) {
    struct nx_job **one = &running[i % 2];
    if (*one) leave(*one);
    *one = next();
    if (*one && (*one)->execution.handler == light) begun++;
  }
  assert_int_equal(large.state, NX_JOB_ADMITTED);
  assert_in_range(begun, STREAK, STREAK + 4);
  nx__admission_note_slow(&admission, -1);
  leave(&slow);
  for (int i = 0; i < 2; i++)
    if (running[i]) leave(running[i]);
  for (struct nx_job *job; (job = next());) leave(job);
  end();
}

/* But while slow ones hold all permits, a heavy one's turn would be far off: light ones go on. */
static void heavys_turn_does_not_stop_light_ones_beside_slow_ones(void **state) {
  (void)state;
  begin(2, 100, 1024 * MIB);
  struct nx_job slow[2], large, small[3 * STREAK];
  for (int i = 0; i < 2; i++) SUBMIT(&slow[i], heavy, ADMITTED);
  nx__admission_note_slow(&admission, 2);
  SUBMIT(&large, heavy, QUEUED);
  for (int i = 0; i < 3 * STREAK; i++) {
    SUBMIT(&small[i], light, ADMITTED);
    leave(&small[i]);
  }
  nx__admission_note_slow(&admission, -1);
  leave(&slow[0]);
  assert_ptr_equal(next(), &large);
  nx__admission_note_slow(&admission, -1);
  leave(&slow[1]);
  leave(&large);
  end();
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static void heavy_ones_wait_for_memory_and_light_ones_do_not(void **state) {
  (void)state;
  begin(8, 10, 64 * MIB); /* LARGE leaves 16 MiB of them, WORK 2 */
  struct nx_job running, large[2], small[3];
  expect_bytes(heavy, 30 * MIB);
  SUBMIT(&running, heavy, ADMITTED);
  SUBMIT(&large[0], heavy, QUEUED);
  SUBMIT(&large[1], heavy, QUEUED);
  for (int i = 0; i < 3; i++) SUBMIT(&small[i], light, ADMITTED);
  assert_null(next());
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_INSTANCES),
                   running.reservation.bytes + 3 * small[0].reservation.bytes);
  leave(&running);
  assert_ptr_equal(next(), &large[0]);
  assert_null(next());
  for (int i = 0; i < 3; i++) leave(&small[i]);
  assert_null(next());
  leave(&large[0]);
  assert_ptr_equal(next(), &large[1]);
  leave(&large[1]);
  end();
}

static void one_alone_may_take_all(void **state) {
  (void)state;
  begin(8, 10, 64 * MIB);
  struct nx_job running, large;
  config.memory_limit_bytes = 60 * MIB;
  expect_bytes(heavy, 60 * MIB);
  running = job_of(light);
  assert_int_equal(nx__admission_submit(&admission, &running), NX_JOB_ADMITTED);
  large = job_of(heavy);
  large.execution.limits.memory_bytes = 60 * MIB;
  assert_int_equal(nx__admission_submit(&admission, &large), NX_JOB_QUEUED);
  assert_null(next());
  leave(&running);
  assert_ptr_equal(next(), &large);
  assert_int_equal(large.reservation.bytes, 60 * MIB + LEASE_BYTES);
  leave(&large);
  end();
}

/* What only serves speed is given back for those that wait. */
static _Atomic bool kept;
static struct nx_job late;
static bool submits_late;
static enum nx_reclaim give_back(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes) {
  (void)self, (void)want_bytes, (void)deadline_ns;
  if (submits_late) SUBMIT(&late, light, QUEUED);
  submits_late = false;
  if (!atomic_exchange(&kept, false)) return NX_RECLAIM_NOTHING;
  nx_governor_release(governor, NX_LAYER_HANDLERS, 60 * MIB);
  *freed_bytes += 60 * MIB;
  return NX_RECLAIM_DONE;
}

static void reclaims_for_who_waits(void **state) {
  (void)state;
  begin(2, 10, 64 * MIB);
  const struct nx_reclaimer reclaimer = {.action = NX_METRICS_RECLAIM_HANDLER_IMAGES, .run = give_back};
  nx_governor_add_reclaimer(governor, &reclaimer);
  assert_true(nx_governor_charge(governor, NX_LAYER_HANDLERS, 60 * MIB, NX_DEMAND_WORK));
  kept = true;
  struct nx_job large;
  SUBMIT(&large, heavy, QUEUED);
  assert_true(nx__admission_is_due(&admission, nx_clock_ns()));
  assert_ptr_equal(next(), &large);
  assert_false(kept);
  leave(&large);
  end();
}

/* A peak that no longer fits would keep a handler out for good. */
static void who_runs_alone_begins_with_less_in_the_end(void **state) {
  (void)state;
  begin(2, 10, 64 * MIB);
  assert_true(nx_governor_charge(governor, NX_LAYER_HANDLERS, 54 * MIB, NX_DEMAND_SERVE));
  struct nx_job large;
  SUBMIT(&large, heavy, QUEUED);
  assert_null(next());
  large._queued_ns -= config.queue_timeout_ms * NX_NS_PER_MS * 3 / 4;
  assert_ptr_equal(next(), &large);
  assert_int_equal(large.state, NX_JOB_ADMITTED);
  assert_int_equal(large.reservation.bytes, large._least_bytes);
  assert_true(large._least_bytes < large._expected_bytes);
  leave(&large);
  nx_governor_release(governor, NX_LAYER_HANDLERS, 54 * MIB);
  end();
}

/* The wait of one that came while room was made for another is short, not negative. */
static void a_wait_is_never_negative(void **state) {
  (void)state;
  begin(2, 10, 64 * MIB);
  const struct nx_reclaimer reclaimer = {.action = NX_METRICS_RECLAIM_HANDLER_IMAGES, .run = give_back};
  nx_governor_add_reclaimer(governor, &reclaimer);
  assert_true(nx_governor_charge(governor, NX_LAYER_HANDLERS, 62 * MIB, NX_DEMAND_SERVE));
  struct nx_job large;
  SUBMIT(&large, heavy, QUEUED);
  nx_governor_release(governor, NX_LAYER_HANDLERS, 2 * MIB);
  kept = submits_late = true;
  expect_bytes(light, 16 * MIB);
  assert_ptr_equal(next(), &late);
  struct nx_metrics_totals totals;
  nx_metrics_totals(&totals);
  assert_true(totals.queue_wait_max_ns < LONG_NS);
  leave(&late);
  assert_ptr_equal(next(), &large);
  leave(&large);
  end();
}

/* Use passes the budget, and falls again: the governor goes on shedding for a while. */
static void shed(void) {
  assert_true(nx_governor_charge(governor, NX_LAYER_HANDLERS, 1000 * MIB, NX_DEMAND_SERVE));
  nx_ledger_set(&ledger, NX_LAYER_CACHE, 100 * MIB);
  nx_governor_look(governor, nx_clock_ns());
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_SHEDDING);
  nx_ledger_set(&ledger, NX_LAYER_CACHE, 0);
  nx_governor_release(governor, NX_LAYER_HANDLERS, 1000 * MIB);
}

static void while_shedding_only_light_ones_begin(void **state) {
  (void)state;
  begin(8, 1, 1024 * MIB);
  shed();
  struct nx_job alone, large, more, small;
  SUBMIT(&alone, heavy, ADMITTED); /* something must go on */
  SUBMIT(&large, heavy, QUEUED);
  SUBMIT(&more, heavy, REFUSED);
  assert_string_equal(more.refused.layer, "container");
  SUBMIT(&small, light, ADMITTED);
  assert_null(next());
  nx_governor_look(governor, nx_clock_ns() + 2 * NX_NS_PER_S);
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_NORMAL);
  assert_ptr_equal(next(), &large);
  leave(&alone);
  leave(&large);
  leave(&small);
  end();
}

/* ---- Refusals --------------------------------------------------------------------------------------------------- */

static uint64_t refusals(void) {
  struct nx_ledger_snapshot snapshot;
  nx_ledger_snapshot(&ledger, &snapshot);
  return snapshot.layers[NX_LAYER_INSTANCES].refusals;
}

static void assert_refused(const struct nx_job *job, const char *layer, uint64_t limit, uint64_t used, const char *why) {
  assert_int_equal(job->refusal.code, NX_ERR_OVERLOADED);
  assert_string_equal(job->refused.layer, layer);
  assert_int_equal(job->refused.limit_bytes, limit);
  assert_int_equal(job->refused.used_bytes, used);
  assert_int_equal(job->refused.requested_bytes, job->_expected_bytes);
  assert_true(job->refused.requested_bytes > MEMORY_BYTES);
  assert_non_null(strstr(job->refusal.text, why));
  assert_non_null(strstr(job->refusal.text, layer));
  assert_int_equal(job->reservation.bytes, 0);
}

static void refused_for_the_queue(void **state) {
  (void)state;
  begin(2, 1, 1024 * MIB);
  struct nx_job running[3], waiting, refused;
  for (int i = 0; i < 2; i++) SUBMIT(&running[i], heavy, ADMITTED);
  SUBMIT(&waiting, heavy, QUEUED);
  SUBMIT(&refused, heavy, REFUSED);
  assert_refused(&refused, "pool", 2 * 32 * MIB, 2 * 32 * MIB, "queue is full");
  nx__admission_note_slow(&admission, 1);
  SUBMIT(&running[2], light, ADMITTED);
  SUBMIT(&refused, light, REFUSED); /* lent ones are not counted twice */
  assert_refused(&refused, "pool", 2 * 32 * MIB, 2 * 32 * MIB, "queue is full");
  nx__admission_note_slow(&admission, -1);
  assert_int_equal(refusals(), 2);
  for (int i = 0; i < 3; i++) leave(&running[i]);
  assert_ptr_equal(next(), &waiting);
  leave(&waiting);
  end();
}

static void refused_for_memory(void **state) {
  (void)state;
  begin(2, 0, 64 * MIB);
  struct nx_job running, refused;
  expect_bytes(heavy, 30 * MIB);
  SUBMIT(&running, heavy, ADMITTED);
  SUBMIT(&refused, heavy, REFUSED);
  assert_refused(&refused, "container", 64 * MIB, running.reservation.bytes, "the memory budget has no room");
  assert_int_equal(refusals(), 1);
  leave(&running);
  end();
}

static void expired_for_a_permit(void **state) {
  (void)state;
  begin(1, 2, 1024 * MIB);
  struct nx_job running, large, small;
  SUBMIT(&running, heavy, ADMITTED);
  SUBMIT(&large, heavy, QUEUED);
  SUBMIT(&small, light, QUEUED);
  assert_false(nx__admission_is_due(&admission, nx_clock_ns()));
  config.queue_timeout_ms = 0;
  assert_true(nx__admission_is_due(&admission, nx_clock_ns()));
  struct nx_job *first = next(), *second = next();
  assert_true((first == &small && second == &large) || (first == &large && second == &small));
  assert_null(next());
  assert_int_equal(large.state, NX_JOB_EXPIRED);
  assert_int_equal(small.state, NX_JOB_EXPIRED);
  assert_refused(&large, "pool", 32 * MIB, 32 * MIB, "waited too long for a free instance");
  assert_refused(&small, "pool", 32 * MIB, 32 * MIB, "waited too long for a free instance");
  leave(&running);
  end();
}

static void expired_for_memory(void **state) {
  (void)state;
  begin(2, 2, 64 * MIB);
  struct nx_job running, large;
  expect_bytes(heavy, 30 * MIB);
  SUBMIT(&running, heavy, ADMITTED);
  SUBMIT(&large, heavy, QUEUED);
  assert_null(next());
  config.queue_timeout_ms = 0;
  assert_ptr_equal(next(), &large);
  assert_int_equal(large.state, NX_JOB_EXPIRED);
  assert_refused(&large, "container", 64 * MIB, running.reservation.bytes, "waited too long for memory");
  leave(&running);
  end();
}

/* Short of memory at first, of a permit at last: the last reason counts. */
static void expired_for_what_is_missing_now(void **state) {
  (void)state;
  begin(2, 3, 64 * MIB);
  struct nx_job running[2], large;
  expect_bytes(heavy, 30 * MIB);
  SUBMIT(&running[0], heavy, ADMITTED);
  SUBMIT(&large, heavy, QUEUED);
  assert_null(next());
  assert_true(large._short_of_memory);
  SUBMIT(&running[1], light, ADMITTED);
  assert_null(next());
  assert_false(large._short_of_memory);
  config.queue_timeout_ms = 0;
  assert_ptr_equal(next(), &large);
  assert_refused(&large, "pool", 2 * 32 * MIB, 2 * 32 * MIB, "waited too long for a free instance");
  leave(&running[0]);
  leave(&running[1]);
  end();
}

/* Those behind the head of a lane never tried: what it lacks is what they lack. */
static void expired_behind_one_that_is_short_of_memory(void **state) {
  (void)state;
  begin(4, 3, 64 * MIB);
  struct nx_job running, large[3], refused;
  expect_bytes(heavy, 30 * MIB);
  SUBMIT(&running, heavy, ADMITTED);
  for (int i = 0; i < 3; i++) SUBMIT(&large[i], heavy, QUEUED);
  SUBMIT(&refused, heavy, REFUSED);
  assert_refused(&refused, "container", 64 * MIB, running.reservation.bytes, "the memory budget has no room");
  config.queue_timeout_ms = 0;
  for (int i = 0; i < 3; i++) {
    assert_ptr_equal(next(), &large[i]);
    assert_refused(&large[i], "container", 64 * MIB, running.reservation.bytes, "waited too long for memory");
  }
  leave(&running);
  end();
}

/* ---- Those that wait on a thread of their own ------------------------------------------------------------------------ */

static struct nx_job waiting_job;
static void *wait_and_leave(void *unused) {
  (void)unused;
  waiting_job = job_of(heavy);
  nx__admission_wait(&admission, &waiting_job);
  leave(&waiting_job);
  return NULL;
}

static unsigned threads_waiting(void) {
  pthread_mutex_lock(&admission.mutex);
  unsigned count = admission.waiting;
  pthread_mutex_unlock(&admission.mutex);
  return count;
}

static void who_waits_goes_before_the_heavy_lane(void **state) {
  (void)state;
  begin(1, 10, 1024 * MIB);
  struct nx_job running, large;
  pthread_t thread;
  SUBMIT(&running, heavy, ADMITTED);
  pthread_create(&thread, NULL, wait_and_leave, NULL);
  EVENTUALLY(threads_waiting() == 1);
  SUBMIT(&large, heavy, QUEUED);
  assert_null(next());
  assert_int_equal(watched, 2);
  leave(&running);
  pthread_join(thread, NULL);
  assert_int_equal(watched, 3);
  assert_ptr_equal(next(), &large);
  leave(&large);
  end();
}

static void who_waits_for_memory_gets_it(void **state) {
  (void)state;
  begin(2, 10, 64 * MIB);
  struct nx_job running;
  pthread_t thread;
  expect_bytes(heavy, 30 * MIB);
  SUBMIT(&running, heavy, ADMITTED);
  pthread_create(&thread, NULL, wait_and_leave, NULL);
  EVENTUALLY(threads_waiting() == 1);
  leave(&running);
  pthread_join(thread, NULL);
  end();
}

/* Light ones without end take every permit the moment that it is free. */
static void light_ones_do_not_starve_who_waits(void **state) {
  (void)state;
  enum { ROUNDS = 2000 };
  begin(1, ROUNDS + 1, 1024 * MIB);
  static struct nx_job small[ROUNDS];
  pthread_t thread;
  for (int i = 0; i < ROUNDS; i++) submit(&small[i], light);
  pthread_create(&thread, NULL, wait_and_leave, NULL);
  EVENTUALLY(threads_waiting() == 1);
  struct nx_job *running = &small[0];
  int begun = 0;
  for (; running && threads_waiting(); begun++) {
    leave(running);
    running = next();
  }
  assert_true(begun < ROUNDS); /* it had its turn between them */
  if (running) leave(running);
  pthread_join(thread, NULL);
  while ((running = next())) leave(running);
  end();
}

/* ---- Retry-After ---------------------------------------------------------------------------------------------------- */

static void retry_after_follows_depth_and_rate(void **state) {
  (void)state;
  begin(1, 1000, 1024 * MIB);
  config.queue_timeout_ms = 2500;
  struct nx_job running, waiting[199];
  assert_int_equal(nx__admission_retry_after_s(&admission), 3); /* no rate yet: the queue's timeout */
  for (int i = 0; i < 40; i++) {
    SUBMIT(&running, light, ADMITTED);
    leave(&running);
  }
  nx__admission_measure_rate(&admission); /* half of 40 */
  assert_int_equal(nx__admission_retry_after_s(&admission), 1);
  SUBMIT(&running, light, ADMITTED);
  for (int i = 0; i < 199; i++) SUBMIT(&waiting[i], light, QUEUED);
  assert_int_equal(nx__admission_retry_after_s(&admission), 10); /* 200 of them at 20 per second */
  nx__admission_measure_rate(&admission);
  assert_int_equal(nx__admission_retry_after_s(&admission), 20);
  for (int i = 0; i < 2; i++) nx__admission_measure_rate(&admission);
  assert_int_equal(nx__admission_retry_after_s(&admission), 60); /* the most that is said */
  struct nx_job *job = &running;
  do leave(job);
  while ((job = next()));
  assert_int_equal(nx__admission_retry_after_s(&admission), 1);
  for (int i = 0; i < 10; i++) nx__admission_measure_rate(&admission);
  assert_int_equal(nx__admission_retry_after_s(&admission), 3);
  config.queue_timeout_ms = 600000;
  assert_int_equal(nx__admission_retry_after_s(&admission), 60);
  end();
}

/* ---- Many threads ----------------------------------------------------------------------------------------------- */

enum { THREADS = 8, JOBS = 3000 };
static struct nx_job many[THREADS][JOBS];
static _Atomic unsigned ended, refused_or_expired, most_running;

static void run_one(struct nx_job *job, unsigned random) {
  unsigned running = admission.running, most = most_running;
  while (running > most && !atomic_compare_exchange_weak(&most_running, &most, running)) continue;
  if (job->state != NX_JOB_ADMITTED) {
    assert_int_equal(job->reservation.bytes, 0);
    refused_or_expired++;
  } else {
    bool slow = random % 4 == 0, late_news = random % 8 == 0;
    if (slow) nx__admission_note_slow(&admission, late_news ? -1 : 1);
    if (random % 16 == 0) sched_yield();
    if (slow && !late_news) nx__admission_note_slow(&admission, -1);
    leave(job);
    if (slow && late_news) nx__admission_note_slow(&admission, 1);
  }
  ended++;
}

static void *submit_many(void *argument) {
  struct nx_job *jobs = argument, *ready;
  unsigned random = (unsigned)(jobs - many[0]) + 1;
  for (int i = 0; i < JOBS; i++) {
    random = random * 1103515245u + 12345u;
    struct nx_handler *handler = random >> 16 & 1 ? light : heavy;
    if (random % 64 == 0 && handler == heavy) {
      jobs[i] = job_of(handler);
      nx__admission_wait(&admission, &jobs[i]);
      run_one(&jobs[i], random >> 8);
    } else if (submit(&jobs[i], handler) != NX_JOB_QUEUED) {
      run_one(&jobs[i], random >> 8);
    }
    if ((ready = next())) run_one(ready, random >> 4);
  }
  while (ended < THREADS * JOBS) {
    if ((ready = next())) run_one(ready, random);
    else sched_yield();
  }
  return NULL;
}

static void many_threads(void **state) {
  (void)state;
  static const struct { unsigned max, queue; uint32_t heavy_mib; unsigned timeout_ms; } rows[] = {
    {1, 1000, 1, 600000}, {3, 4, 1, 600000}, {3, 100000, 20, 600000}, {4, 100000, 20, 1}, {16, 2, 12, 600000},
  };
  for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
    begin(rows[row].max, rows[row].queue, 64 * MIB);
    expect_bytes(heavy, rows[row].heavy_mib * MIB);
    config.queue_timeout_ms = rows[row].timeout_ms;
    ended = refused_or_expired = most_running = 0;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, submit_many, many[i]);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(ended, THREADS * JOBS);
    assert_true(refused_or_expired < THREADS * JOBS);
    assert_true(most_running <= rows[row].max + NX_EXEC_LOANS_MAX);
    if (rows[row].queue == 100000 && rows[row].timeout_ms == 600000) assert_int_equal(refused_or_expired, 0);
    end();
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(light_goes_first),
    cmocka_unit_test(after_a_streak_it_is_heavys_turn),
    cmocka_unit_test(lanes_follow_profiles),
    cmocka_unit_test(slow_ones_lend_to_light_ones),
    cmocka_unit_test(a_light_one_begins_on_a_loan_at_once),
    cmocka_unit_test(late_news_lend_nothing),
    cmocka_unit_test(loans_do_not_keep_heavy_ones_waiting),
    cmocka_unit_test(heavys_turn_does_not_stop_light_ones_beside_slow_ones),
    cmocka_unit_test(heavy_ones_wait_for_memory_and_light_ones_do_not),
    cmocka_unit_test(one_alone_may_take_all),
    cmocka_unit_test(reclaims_for_who_waits),
    cmocka_unit_test(a_wait_is_never_negative),
    cmocka_unit_test(who_runs_alone_begins_with_less_in_the_end),
    cmocka_unit_test(while_shedding_only_light_ones_begin),
    cmocka_unit_test(refused_for_the_queue),
    cmocka_unit_test(refused_for_memory),
    cmocka_unit_test(expired_for_a_permit),
    cmocka_unit_test(expired_for_memory),
    cmocka_unit_test(expired_for_what_is_missing_now),
    cmocka_unit_test(expired_behind_one_that_is_short_of_memory),
    cmocka_unit_test(who_waits_goes_before_the_heavy_lane),
    cmocka_unit_test(who_waits_for_memory_gets_it),
    cmocka_unit_test(light_ones_do_not_starve_who_waits),
    cmocka_unit_test(retry_after_follows_depth_and_rate),
    cmocka_unit_test(many_threads),
  };
  return cmocka_run_group_tests(tests, base_setup, base_teardown);
}
