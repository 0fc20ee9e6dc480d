/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting without a thread: what is fired, once each, whoever comes first; alarms; and many threads at once, which is for
 * ThreadSanitizer to look at. Requests go to a port that nobody listens at, and so fail at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "counting_account.h"
#include "exec/waits.h"
#include "net/net.h"

#define FAR_NS (3600 * NX_NS_PER_S)

static struct counting_account account;

/* What was fired: jobs as a list, alarms as a number. */
static struct {
  pthread_mutex_t mutex;
  struct nx_job *jobs;
  unsigned job_count, alarm_count;
  _Atomic unsigned answers;
  struct nx__waits *waits;
} fired = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void take_fired(void *self, struct nx__wake *wake) {
  struct nx__waits *waits = fired.waits;
  (void)self;
  pthread_mutex_lock(&fired.mutex);
  if (wake->kind == NX__WAKE_ALARM) {
    fired.alarm_count++;
    nx__alarm_free(waits, nx__alarm_of(wake));
  } else {
    struct nx_job *job = ((struct nx__continuation *)wake)->job;
    job->_next = fired.jobs;
    fired.jobs = job;
    fired.job_count++;
  }
  pthread_mutex_unlock(&fired.mutex);
}

static struct nx_job *next_fired(void) {
  pthread_mutex_lock(&fired.mutex);
  struct nx_job *job = fired.jobs;
  if (job) fired.jobs = job->_next;
  pthread_mutex_unlock(&fired.mutex);
  return job;
}

static void take_answer(void *self, const struct nx_buf *name, const struct nx__incoming *answer) {
  (void)self, (void)answer;
  assert_int_equal(name->len, NX__ALARM_NAME_CHARS);
  atomic_fetch_add(&fired.answers, 1);
}

static void note_sooner(void *self) { (void)self; }

static void open_waits(struct nx__waits *waits, struct nx_net *net) {
  account = (struct counting_account)COUNTING_ACCOUNT;
  *waits = (struct nx__waits){
    .net = net, .account = &account.as_account, .fire = take_fired, .answer = take_answer, .sooner = note_sooner};
  nx__waits_init(waits);
  fired.jobs = NULL;
  fired.job_count = fired.alarm_count = 0;
  fired.answers = 0;
  fired.waits = waits;
}

/* Everything was given back. */
static void close_waits(struct nx__waits *waits) {
  assert_int_equal(waits->parked + waits->retried, 0);
  nx__waits_deinit(waits);
  assert_int_equal(account.charged, 0);
}

static struct nx_buf name_of(unsigned number) {
  struct nx_buf name = {0};
  nx_buf_printf(&name, "%032x", number);
  return name;
}

/* ---- Alarms --------------------------------------------------------------------------------------------------------- */

static void set_alarm(struct nx__waits *waits, unsigned number, uint64_t at_ns) {
  NX_BUF_AUTO name = name_of(number);
  assert_true(nx__waits_set_alarm(waits, &name, at_ns));
}

static void drop_alarm(struct nx__waits *waits, unsigned number) {
  NX_BUF_AUTO name = name_of(number);
  nx__waits_drop_alarm(waits, name.data, name.len);
}

static void an_execution_has_one_alarm(void **state) {
  struct nx__waits waits;
  open_waits(&waits, NULL);
  set_alarm(&waits, 1, 100);
  size_t one_bytes = account.charged;
  assert_true(one_bytes > 0);
  for (uint64_t at_ns = 200; at_ns > 50; at_ns--) set_alarm(&waits, 1, at_ns);
  assert_int_equal(account.charged, one_bytes);
  assert_int_equal(nx__waits_run_due(&waits, 50), 51);
  assert_int_equal(nx__waits_run_due(&waits, 1000), UINT64_MAX);
  assert_int_equal(fired.alarm_count, 1);
  close_waits(&waits);
}

static void a_dropped_alarm_is_not_fired(void **state) {
  enum { ALARMS = 1000 };
  struct nx__waits waits;
  open_waits(&waits, NULL);
  for (unsigned i = 0; i < ALARMS; i++) set_alarm(&waits, i, i + 1);
  for (unsigned i = 0; i < ALARMS; i += 2) drop_alarm(&waits, i);
  drop_alarm(&waits, 0);
  while (nx__waits_run_due(&waits, UINT64_MAX - 1) != UINT64_MAX) continue;
  assert_int_equal(fired.alarm_count, ALARMS / 2);
  close_waits(&waits);
}

static void alarms_that_are_left_at_the_end_are_freed(void **state) {
  struct nx__waits waits;
  open_waits(&waits, NULL);
  for (unsigned i = 0; i < 100; i++) set_alarm(&waits, i, FAR_NS);
  close_waits(&waits);
}

static void an_alarm_that_is_not_paid_for_is_not_set(void **state) {
  struct nx__waits waits;
  open_waits(&waits, NULL);
  NX_BUF_AUTO name = name_of(1);
  account.limit = 1;
  assert_false(nx__waits_set_alarm(&waits, &name, 1));
  assert_int_equal(nx__waits_run_due(&waits, 1), UINT64_MAX);
  close_waits(&waits);
}

/* The watchdog has deadlines of others to keep. */
static void a_flood_is_fired_in_parts(void **state) {
  enum { ALARMS = 10000 };
  struct nx__waits waits;
  open_waits(&waits, NULL);
  for (unsigned i = 0; i < ALARMS; i++) set_alarm(&waits, i, 1);
  assert_int_equal(nx__waits_run_due(&waits, 1), 1);
  assert_in_range(fired.alarm_count, 1, 1000);
  while (nx__waits_run_due(&waits, 1) != UINT64_MAX) continue;
  assert_int_equal(fired.alarm_count, ALARMS);
  close_waits(&waits);
}

/* ---- Jobs ----------------------------------------------------------------------------------------------------------- */

static void open_request(struct nx_job *job) {
  static const char args[] = "[\"http://127.0.0.1:1/\"]";
  const struct nx_call call = {.id = ++job->execution.last_call_id, .kind = NX_CALL_NET, .extension = "net", .method = "fetch",
                               .args = args, .extension_bytes = 3, .method_bytes = 5, .args_bytes = sizeof args - 1};
  assert_true(nx_calls_add(&job->execution.calls, &call));
}

static struct nx_job *make_job(void) {
  struct nx_job *job = calloc(1, sizeof *job);
  assert_non_null(nx__continuation_of(job, &account.as_account));
  return job;
}

static void free_job(struct nx_job *job) {
  nx_job_deinit(job);
  free(job);
}

static void a_flush_takes_those_that_wait_for_long(void **state) {
  struct nx__waits waits;
  struct nx_job *soon = make_job(), *late = make_job(), *retried = make_job();
  open_waits(&waits, NULL);
  assert_true(nx__waits_park(&waits, soon, 10) && nx__waits_park(&waits, late, FAR_NS));
  assert_true(nx__waits_retry(&waits, retried, FAR_NS));
  assert_int_equal(waits.parked, 2); /* who is tried again may have no connection */
  assert_int_equal(waits.retried, 1);
  nx__waits_flush(&waits, 1000);
  assert_ptr_equal(next_fired(), late);
  assert_true(late->_continuation->must_leave && !soon->_continuation->must_leave);
  assert_null(next_fired());
  assert_true(nx__waits_park(&waits, late, FAR_NS)); /* not again */
  nx__waits_run_due(&waits, 10);
  assert_int_equal(fired.job_count, 3);
  nx__waits_run_due(&waits, FAR_NS);
  assert_int_equal(fired.job_count, 4);
  close_waits(&waits);
  free_job(soon);
  free_job(late);
  free_job(retried);
}

/* What came for the last try must not come twice, nor pile up with each. */
static void another_try_begins_without_answers(void **state) {
  struct nx_job *job = make_job();
  const struct nx__incoming in = {1, true, "1", 1};
  assert_true(nx__incoming_add(&job->_continuation->incoming, &in));
  nx__continuation_unload(job);
  assert_int_equal(job->_continuation->incoming.len, 0);
  free_job(job);
}

/* ---- Many threads ----------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, JOBS = 64, STAYS = 40 };

struct crowd {
  struct nx__waits waits;
  _Atomic unsigned left; /* jobs that have not ended */
};

/* One stay in the guest and what follows it; all ways that a job can take. */
static void go_on(struct crowd *crowd, struct nx_job *job, unsigned *seed) {
  struct nx__waits *waits = &crowd->waits;
  struct nx_buf incoming = {.account = &account.as_account};
  nx__waits_take_incoming(waits, job, &incoming);
  nx_buf_deinit(&incoming);
  nx_buf_reset(&job->execution.calls.block, 0);
  job->execution.calls.count = 0;
  job->_continuation->must_leave = false;
  bool ends = ++job->_continuation->suspensions > STAYS;
  for (unsigned i = rand_r(seed) % 3; i; i--) open_request(job);
  assert_true(nx__waits_start_fetches(waits, job));
  if (!ends) {
    uint64_t at_ns = nx_clock_ns() + rand_r(seed) % NX_NS_PER_MS;
    assert_true((rand_r(seed) % 4 ? nx__waits_park : nx__waits_retry)(waits, job, at_ns));
    return;
  }
  NX_BUF_AUTO name = name_of((unsigned)rand_r(seed) % JOBS);
  if (rand_r(seed) % 2) nx__waits_hand_over(waits, job, &name);
  free_job(job);
  atomic_fetch_sub(&crowd->left, 1);
}

static void *work(void *opaque) {
  struct crowd *crowd = opaque;
  unsigned seed = (unsigned)(uintptr_t)&seed;
  while (atomic_load(&crowd->left)) {
    struct nx_job *job = next_fired();
    if (job)
      go_on(crowd, job, &seed);
    else
      sched_yield();
    if (rand_r(&seed) % 2)
      set_alarm(&crowd->waits, (unsigned)rand_r(&seed) % JOBS, nx_clock_ns() + (uint64_t)rand_r(&seed) % NX_NS_PER_MS);
    else
      drop_alarm(&crowd->waits, (unsigned)rand_r(&seed) % JOBS);
  }
  return NULL;
}

static void a_crowd(void **state) {
  static struct crowd crowd;
  struct nx_net *net;
  struct nx_error err;
  pthread_t threads[THREADS];
  const struct nx_net_options options = {
    .allow = "127.0.0.1:1", .max_body_bytes = 1 << 20, .max_timeout_ms = 10000, .max_concurrent = 8};
  assert_int_equal(nx_net_create(&net, &options, &err), 0);
  open_waits(&crowd.waits, net);
  crowd.left = JOBS;
  for (unsigned i = 0; i < JOBS; i++) assert_true(nx__waits_park(&crowd.waits, make_job(), 0));
  for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, work, &crowd), 0);
  for (unsigned seed = 1; atomic_load(&crowd.left);) {
    nx__waits_run_due(&crowd.waits, nx_clock_ns());
    if (!(rand_r(&seed) % 64)) nx__waits_flush(&crowd.waits, nx_clock_ns());
    sched_yield();
  }
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  nx_net_destroy(net); /* ends requests of jobs that have ended */
  assert_null(next_fired());
  assert_int_equal(fired.job_count, JOBS * (STAYS + 1));
  close_waits(&crowd.waits);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(an_execution_has_one_alarm),
    cmocka_unit_test(a_dropped_alarm_is_not_fired),
    cmocka_unit_test(alarms_that_are_left_at_the_end_are_freed),
    cmocka_unit_test(an_alarm_that_is_not_paid_for_is_not_set),
    cmocka_unit_test(a_flood_is_fired_in_parts),
    cmocka_unit_test(a_flush_takes_those_that_wait_for_long),
    cmocka_unit_test(another_try_begins_without_answers),
    cmocka_unit_test(a_crowd),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
