/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps with the store of suspended executions, over one in memory whose answers are looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "exec/keeping.h"
#include "memory/ledger.h"

#define GUEST "1111111111111111111111111111111111111111111111111111111111111111"

static struct nx_config config = {
  .suspend_max_bytes = 1 << 20, .suspend_ttl_ms = 60000, .queue_timeout_ms = 1000, .timeout_ms = 5000, .max_connections = 100};
static struct nx_ledger *ledger;
static struct nx__admission admission;
static struct nx__waits waits;
static struct nx__keeper keeper;
static unsigned ready_count;

static struct nx_store_ops ops; /* of the store, with changes */
static uint64_t extended_ms;
static unsigned leases;

static int note_extend(struct nx_store *store, struct nx_store_lease *lease, uint64_t lease_ms, struct nx_error *err) {
  (void)store, (void)lease, (void)err;
  extended_ms = lease_ms;
  return 0;
}

static int note_lease(struct nx_store *store, const struct nx_suspension_id *id, uint64_t lease_ms, struct nx_stored *out,
                      struct nx_store_lease *lease, struct nx_error *err) {
  (void)store, (void)id, (void)lease_ms, (void)out, (void)lease;
  leases++;
  return nx_error_set(err, NX_ERR_NOT_FOUND, "there is none");
}

static void note_ready(void *self, struct nx_job *job) {
  (void)self;
  ready_count++;
  nx_job_deinit(job);
  free(job);
}

static void ignore_fired(void *self, struct nx__wake *wake) { (void)self, (void)wake; }
static void ignore_sooner(void *self) { (void)self; }

static int set_up(void **state) {
  const struct nx_suspensions_options options = {.config = &config, .guest_id = GUEST};
  ledger = aligned_alloc(64, sizeof *ledger);
  memset(ledger, 0, sizeof *ledger);
  admission.ledger = ledger;
  keeper = (struct nx__keeper){.config = &config, .admission = &admission, .waits = &waits, .ready = note_ready};
  if (nx_suspensions_create(&keeper.suspensions, &options, NULL)) return -1;
  struct nx_store *store = *(struct nx_store **)keeper.suspensions; /* its first member */
  ops = *store->ops;
  ops.extend = note_extend;
  ops.lease = note_lease;
  store->ops = &ops;
  waits = (struct nx__waits){.fire = ignore_fired, .sooner = ignore_sooner};
  nx__waits_init(&waits);
  ready_count = leases = 0;
  return nx__keeper_init(&keeper, NULL);
}

static int tear_down(void **state) {
  nx__keeper_deinit(&keeper);
  nx__waits_deinit(&waits);
  nx_suspensions_destroy(keeper.suspensions);
  free(ledger);
  return 0;
}

/* A timer may be due before its job has begun to wait: a lease for ever would keep other processes out after a crash. */
static void a_wait_that_is_over_needs_no_long_lease(void **state) {
  struct nx_job job = {.kind = NX_JOB_RESUME};
  const struct nx_call over = {.id = 1, .kind = NX_CALL_TIME, .due_ms = 1, .extension = "", .method = "", .args = ""};
  assert_true(nx_calls_add(&job.execution.calls, &over));
  assert_non_null(nx__continuation_of(&job, NULL));
  job._continuation->taken.is_leased = true;
  assert_int_equal(nx__keeper_wait(&keeper, &job), NX_JOB_WAITING);
  nx__waits_run_due(&waits, UINT64_MAX - 1);
  nx_job_deinit(&job);
  assert_in_range(extended_ms, 1, 10 * config.suspend_ttl_ms);
}

static void a_retired_one_wakes_nobody(void **state) {
  static const char name[] = "0123456789abcdef0123456789abcdef";
  nx__keeper_wake(&keeper, name, sizeof name - 1, NULL);
  assert_int_equal(leases, 1);
  assert_int_equal(ready_count, 1);
  nx__keeper_retire(&keeper);
  nx__keeper_wake(&keeper, name, sizeof name - 1, NULL);
  assert_int_equal(leases, 1);
  assert_int_equal(ready_count, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(a_wait_that_is_over_needs_no_long_lease, set_up, tear_down),
    cmocka_unit_test_setup_teardown(a_retired_one_wakes_nobody, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
