/* SPDX-License-Identifier: Apache-2.0
 * Plans: budgets, the autoscaler's thresholds, QoS, verdicts, and that the advice holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/plan.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define FITS NX_PLAN_FINDING_COUNT

/* MiB, with tenths, as people say it. */
static uint64_t tenths(uint64_t bytes) { return (bytes * 10 + MIB / 2) / MIB; }

/* A container of this size with the defaults of serve. A limit of 0: none, on a machine of 16 GiB. */
static struct nx_plan_input container(uint64_t limit_mib, uint64_t request_mib) {
  uint64_t limit = limit_mib ? limit_mib * MIB : 16 * GIB, budget = limit - limit / 10, cache = budget / 4 / MIB * MIB;
  return (struct nx_plan_input){
    .fit = {.limit_bytes = limit, .reserve_percent = 10, .process_bytes = 8 * MIB,
            .cache_bytes = cache < 64 * MIB ? cache : 64 * MIB, .cache_is_auto = true, .memory_bytes = 32 * MIB,
            .native_stack_bytes = 2 * MIB + 65536, .page_tables_bytes = 16384 + 65536},
    .container_limit_bytes = limit_mib ? nx_reading_of(limit) : nx_reading_unlimited(),
    .request_is_known = true,
    .request_bytes = request_mib * MIB,
    .max_instances = 8,
    .max_connections = 1000,
    .connection_bytes = 128 << 10,
    .suspended_max_bytes = 500 * MIB,
    .autoscaler_percent = 80,
    .pods_min = 1,
    .pods_max = 10,
    .alert_percent = 70,
  };
}

static struct nx_plan make(const struct nx_plan_input *input) {
  struct nx_plan plan;
  memset(&plan, 0x5a, sizeof plan); /* nothing may depend on what was there */
  nx_plan_make(input, &plan);
  return plan;
}

static const struct nx_plan_finding *find(const struct nx_plan *plan, enum nx_plan_finding_kind kind) {
  for (unsigned i = 0; i < plan->finding_count; i++)
    if (plan->findings[i].kind == kind) return &plan->findings[i];
  return NULL;
}

static uint64_t change(const struct nx_plan *plan, enum nx_plan_finding_kind kind, enum nx_plan_variable variable) {
  const struct nx_plan_finding *finding = find(plan, kind);
  assert_non_null(finding);
  for (unsigned i = 0; i < finding->change_count; i++)
    if (finding->changes[i].variable == variable) return finding->changes[i].value;
  return 0;
}

static void the_reference_container(void **state) {
  struct nx_plan_input input = container(1024, 256);
  struct nx_plan plan = make(&input);
  assert_true(plan.fits);
  assert_int_equal(plan.verdict, FITS);
  assert_int_equal(plan.finding_count, 0);
  assert_int_equal(plan.budget_bytes + plan.reserve_bytes, GIB);
  assert_int_equal(tenths(plan.reserve_bytes), 1024);
  assert_int_equal(plan.left_bytes, plan.budget_bytes - 72 * MIB);
  assert_int_equal(plan.instance_bytes, 32 * MIB + 2 * MIB + 65536 + 16384 + 65536);
  assert_int_equal(plan.instances_fit, 24);
  assert_int_equal(plan.instances_beside_connections, 21);
  assert_int_equal(plan.connections_bytes, 125 * MIB);
  assert_int_equal(plan.idle_bytes, 72 * MIB);
  assert_int_equal(plan.loaded_bytes, 72 * MIB + 8 * plan.instance_bytes);
  assert_int_equal(plan.needed_bytes, 72 * MIB + plan.reserve_bytes + plan.instance_bytes);
  assert_int_equal(plan.qos, NX_PLAN_BURSTABLE);
  assert_int_equal(tenths(plan.alert_bytes), 7168);
  assert_int_equal(plan.alert_bytes, GIB * 70 / 100);
  assert_int_equal(tenths(plan.target_bytes), 2048);
  assert_int_equal(plan.target_bytes, 256 * MIB * 80 / 100);
  assert_int_equal(tenths(plan.add_above_bytes), 2253);
  assert_int_equal(tenths(nx_plan_scale_in_bytes(256 * MIB, 80, 2)), 1024);
  assert_int_equal(nx_plan_scale_in_bytes(256 * MIB, 80, 2), 256 * MIB * 40 / 100);
  assert_int_equal(plan.idle_pods, 1);
}

/* What the controller does, step by step, with its floating point. */
static unsigned desired(uint64_t average, uint64_t request, unsigned percent, unsigned pods) {
  long double ratio = (long double)average * 100 / ((long double)request * percent);
  if (ratio >= 0.9L - 1e-15L && ratio <= 1.1L + 1e-15L) return pods;
  unsigned wanted = (unsigned)(ratio * pods);
  return wanted + (wanted < ratio * pods);
}

static void thresholds_are_those_of_the_controller(void **state) {
  static const struct { uint64_t request; unsigned percent; } cases[] = {
    {256 * MIB, 80}, {256 * MIB, 75}, {100 * MIB, 60}, {1000000007, 83}, {GIB, 100}, {64 * MIB, 250}, {10000, 50}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (unsigned pods = 2; pods <= 30; pods++) {
      uint64_t request = cases[i].request, most = nx_plan_scale_in_bytes(request, cases[i].percent, pods);
      assert_true(desired(most, request, cases[i].percent, pods) < pods);
      assert_int_equal(desired(most + 1, request, cases[i].percent, pods), pods);
      struct nx_plan_input input = container(0, 1);
      input.request_bytes = request;
      input.autoscaler_percent = cases[i].percent;
      struct nx_plan plan = make(&input);
      assert_int_equal(desired(plan.add_above_bytes, request, cases[i].percent, pods), pods);
      assert_true(desired(plan.add_above_bytes + 1, request, cases[i].percent, pods) > pods);
    }
  assert_int_equal(tenths(nx_plan_scale_in_bytes(256 * MIB, 80, 3)), 1365);
  /* The tolerance excludes exactly nine tenths of the target. */
  assert_int_equal(nx_plan_scale_in_bytes(10000, 50, 10), 4499);
  assert_int_equal(nx_plan_scale_in_bytes(10000, 50, 9), 4444);
}

/* Where it comes to rest, against the controller's own steps. */
static void idle_pods_are_where_the_controller_stops(void **state) {
  for (unsigned cache = 0; cache < 300; cache += 3)
    for (unsigned least = 1; least <= 12; least += 3) {
      struct nx_plan_input input = container(1024, 256);
      input.fit.cache_bytes = cache * MIB;
      input.pods_min = least;
      input.pods_max = 14;
      struct nx_plan plan = make(&input);
      unsigned pods = 14;
      for (unsigned next; (next = desired(plan.idle_bytes, 256 * MIB, 80, pods)) < pods && pods > least;)
        pods = next > least ? next : least;
      assert_int_equal(plan.idle_pods, pods);
    }
}

static void verdicts(void **state) {
  static const struct {
    uint64_t limit, request, memory, cache; /* MiB; 0 for memory and cache: the default */
    unsigned instances, percent;            /* 0: the default */
    enum nx_plan_finding_kind verdict;
    unsigned fit;
    enum nx_plan_qos qos;
  } cases[] = {
    {1024, 256, 0, 0, 0, 0, FITS, 24, NX_PLAN_BURSTABLE},
    {1024, 256, 0, 0, 24, 0, FITS, 24, NX_PLAN_BURSTABLE},
    {1024, 256, 0, 0, 25, 0, NX_PLAN_OVER_COMMITTED, 24, NX_PLAN_BURSTABLE},
    {1024, 256, 0, 128, 0, 0, NX_PLAN_NEVER_SCALES_IN, 23, NX_PLAN_BURSTABLE},
    {1024, 256, 0, 128, 40, 0, NX_PLAN_NEVER_SCALES_IN, 23, NX_PLAN_BURSTABLE},
    {1024, 64, 0, 0, 0, 0, NX_PLAN_NEVER_SCALES_IN, 24, NX_PLAN_BURSTABLE}, /* target 51.2, idle 72 */
    {1024, 1024, 0, 0, 0, 0, FITS, 24, NX_PLAN_GUARANTEED},
    {1024, 0, 0, 0, 0, 0, FITS, 24, NX_PLAN_GUARANTEED}, /* Kubernetes takes the limit */
    {1024, 1024, 0, 0, 0, 90, NX_PLAN_NEVER_SCALES_OUT, 24, NX_PLAN_GUARANTEED},
    {1024, 2048, 0, 0, 0, 50, NX_PLAN_REQUEST_ABOVE_LIMIT, 24, NX_PLAN_BURSTABLE},
    {64, 64, 0, 0, 1, 0, FITS, 1, NX_PLAN_GUARANTEED},
    {64, 64, 0, 0, 2, 0, NX_PLAN_OVER_COMMITTED, 1, NX_PLAN_GUARANTEED},
    {48, 48, 0, 0, 1, 0, NX_PLAN_CANNOT_FIT, 0, NX_PLAN_GUARANTEED},
    {48, 48, 23, 0, 1, 0, FITS, 1, NX_PLAN_GUARANTEED},
    {8, 4, 4, 1, 1, 0, NX_PLAN_CANNOT_FIT, 0, NX_PLAN_BURSTABLE},
    {0, 256, 0, 0, 0, 0, FITS, 429, NX_PLAN_BURSTABLE},
    {0, 0, 0, 0, 0, 0, FITS, 429, NX_PLAN_BEST_EFFORT},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_plan_input input = container(cases[i].limit, cases[i].request);
    if (cases[i].memory) input.fit.memory_bytes = cases[i].memory * MIB;
    if (cases[i].cache) input.fit.cache_bytes = cases[i].cache * MIB;
    if (cases[i].instances) input.max_instances = cases[i].instances;
    if (cases[i].percent) input.autoscaler_percent = cases[i].percent;
    struct nx_plan plan = make(&input);
    if (plan.verdict != cases[i].verdict)
      fail_msg("case %zu: %s", i, nx_plan_finding_name(plan.verdict));
    assert_int_equal(plan.instances_fit, cases[i].fit);
    assert_int_equal(plan.fits, cases[i].fit > 0);
    assert_int_equal(plan.qos, cases[i].qos);
    for (unsigned f = 1; f < plan.finding_count; f++)
      assert_true(plan.findings[f].kind > plan.findings[f - 1].kind); /* worst first, each once */
  }
}

static void without_a_limit(void **state) {
  struct nx_plan_input input = container(0, 256);
  struct nx_plan plan = make(&input);
  assert_non_null(find(&plan, NX_PLAN_NO_LIMIT));
  assert_int_equal(plan.alert_bytes, 0);
  assert_int_equal(plan.budget_bytes, 16 * GIB - 16 * GIB / 10);
  uint64_t limit = change(&plan, NX_PLAN_NO_LIMIT, NX_PLAN_SET_MEMORY_LIMIT);
  assert_int_equal(limit, 384 * MIB); /* (8 + 64 + 8 × 34.1) / 0.9 */
  input.container_limit_bytes = nx_reading_unknown();
  plan = make(&input);
  assert_non_null(find(&plan, NX_PLAN_NO_LIMIT));
  /* Nothing is known of a request: nothing is said that follows from it. */
  input.request_is_known = false;
  plan = make(&input);
  assert_int_equal(plan.qos, NX_PLAN_QOS_UNKNOWN);
  assert_null(nx_plan_qos_name(plan.qos));
  assert_false(plan.autoscales);
}

static void told_to_keep_to_less(void **state) {
  struct nx_plan_input input = container(48, 48);
  input.container_limit_bytes = nx_reading_of(GIB);
  struct nx_plan plan = make(&input);
  assert_int_equal(change(&plan, NX_PLAN_CANNOT_FIT, NX_PLAN_SET_CONTAINER_MEMORY_LIMIT), 63 * MIB);
  assert_int_equal(tenths(plan.alert_bytes), 7168); /* of what Kubernetes knows */
  assert_int_equal(plan.qos, NX_PLAN_BURSTABLE);
  input.container_limit_bytes = nx_reading_of(50 * MIB);
  plan = make(&input);
  assert_int_equal(change(&plan, NX_PLAN_CANNOT_FIT, NX_PLAN_SET_MEMORY_LIMIT), 63 * MIB);
}

static void advice_for_what_cannot_fit(void **state) {
  struct nx_plan_input input = container(48, 48);
  struct nx_plan plan = make(&input);
  assert_int_equal(change(&plan, NX_PLAN_CANNOT_FIT, NX_PLAN_SET_MEMORY_LIMIT_MB), 23);
  assert_int_equal(change(&plan, NX_PLAN_CANNOT_FIT, NX_PLAN_SET_CACHE_MAX_MB), 1);
  assert_int_equal(change(&plan, NX_PLAN_CANNOT_FIT, NX_PLAN_SET_MEMORY_LIMIT), 63 * MIB);
  input = container(10, 10); /* no setting is small enough */
  plan = make(&input);
  assert_int_equal(find(&plan, NX_PLAN_CANNOT_FIT)->change_count, 1);
}

static void advice_for_over_commit(void **state) {
  struct nx_plan_input input = container(1024, 256);
  input.max_instances = 40;
  struct nx_plan plan = make(&input);
  assert_int_equal(plan.loaded_bytes, plan.budget_bytes);
  assert_int_equal(change(&plan, NX_PLAN_OVER_COMMITTED, NX_PLAN_SET_MAX_INSTANCES), 24);
  uint64_t memory_mb = change(&plan, NX_PLAN_OVER_COMMITTED, NX_PLAN_SET_MEMORY_LIMIT_MB);
  assert_int_equal(memory_mb, 19);
  uint64_t limit = change(&plan, NX_PLAN_OVER_COMMITTED, NX_PLAN_SET_MEMORY_LIMIT);
  input.fit.memory_bytes = memory_mb * MIB;
  assert_true(make(&input).instances_fit >= 40);
  input = container(limit / MIB, 256);
  assert_int_equal(make(&input).instances_fit, 40);
}

static void advice_for_scaling(void **state) {
  for (unsigned cache = 64; cache <= 600; cache += 67)
    for (unsigned least = 1; least < 13; least++) {
      struct nx_plan_input input = container(1024, 128);
      input.fit.cache_bytes = cache * MIB;
      input.pods_min = least;
      input.pods_max = 20;
      struct nx_plan plan = make(&input);
      if (plan.verdict != NX_PLAN_NEVER_SCALES_IN) continue;
      uint64_t cache_mb = change(&plan, plan.verdict, NX_PLAN_SET_CACHE_MAX_MB);
      uint64_t request = change(&plan, plan.verdict, NX_PLAN_SET_MEMORY_REQUEST);
      struct nx_plan_input other = input;
      other.fit.cache_bytes = cache_mb * MIB;
      assert_true(cache_mb && cache_mb < cache);
      assert_int_equal(make(&other).idle_pods, least);
      other = input;
      other.request_bytes = request;
      if (request) assert_int_equal(make(&other).idle_pods, least);
      other.request_bytes -= request ? MIB : 0;
      if (request) assert_true(make(&other).idle_pods > least);
    }
  struct nx_plan_input input = container(1024, 1024);
  input.autoscaler_percent = 90;
  struct nx_plan plan = make(&input);
  input.autoscaler_percent = (unsigned)change(&plan, NX_PLAN_NEVER_SCALES_OUT, NX_PLAN_SET_AUTOSCALER_PERCENT);
  assert_int_equal(input.autoscaler_percent, 81);
  plan = make(&input);
  assert_int_equal(plan.verdict, FITS);
  /* It alerts before it scales, though. */
  input.autoscaler_percent = (unsigned)change(&plan, NX_PLAN_ALERT_BEFORE_SCALING, NX_PLAN_SET_AUTOSCALER_PERCENT);
  assert_int_equal(input.autoscaler_percent, 63);
  assert_int_equal(make(&input).finding_count, 0);
}

static void without_autoscaler_and_alert(void **state) {
  struct nx_plan_input input = container(1024, 64);
  input.autoscaler_percent = input.alert_percent = 0;
  struct nx_plan plan = make(&input);
  assert_int_equal(plan.verdict, FITS);
  assert_int_equal(plan.finding_count, 0);
  assert_false(plan.autoscales);
  input.autoscaler_percent = 80;
  input.pods_min = input.pods_max = 3; /* nothing to scale */
  plan = make(&input);
  assert_int_equal(plan.verdict, FITS);
  assert_int_equal(plan.idle_pods, 3);
}

static void large_numbers_do_not_overflow(void **state) {
  struct nx_plan_input input = container(UINT64_C(1) << 30, UINT64_C(1) << 30); /* 1024 TiB */
  input.autoscaler_percent = NX_PLAN_PERCENT_MAX;
  input.pods_max = NX_PLAN_PODS_MAX;
  input.max_instances = 4096;
  input.fit.memory_bytes = GIB;
  struct nx_plan plan = make(&input);
  assert_int_equal(plan.target_bytes, UINT64_C(10) << 50);
  assert_int_equal(plan.add_above_bytes, UINT64_C(11) << 50);
  assert_int_equal(plan.alert_bytes, (UINT64_C(1) << 50) / 100 * 70 + (UINT64_C(1) << 50) % 100 * 70 / 100);
  assert_int_equal(plan.verdict, NX_PLAN_NEVER_SCALES_OUT);
  assert_int_equal(plan.idle_pods, 1);
}

static void everything_has_a_name(void **state) {
  for (int i = 0; i <= NX_PLAN_FINDING_COUNT; i++) assert_non_null(nx_plan_finding_name((enum nx_plan_finding_kind)i));
  assert_string_equal(nx_plan_finding_name(FITS), "fits");
  assert_int_equal(nx_plan_finding_severity(NX_PLAN_CANNOT_FIT), NX_SEVERITY_ERROR);
  assert_string_equal(nx_plan_variable_name(NX_PLAN_SET_CACHE_MAX_MB), "CACHE_MAX_MB");
  assert_string_equal(nx_plan_variable_unit(NX_PLAN_SET_MEMORY_REQUEST), "bytes");
  assert_string_equal(nx_plan_qos_name(NX_PLAN_BEST_EFFORT), "BestEffort");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_reference_container),
    cmocka_unit_test(thresholds_are_those_of_the_controller),
    cmocka_unit_test(idle_pods_are_where_the_controller_stops),
    cmocka_unit_test(verdicts),
    cmocka_unit_test(without_a_limit),
    cmocka_unit_test(told_to_keep_to_less),
    cmocka_unit_test(advice_for_what_cannot_fit),
    cmocka_unit_test(advice_for_over_commit),
    cmocka_unit_test(advice_for_scaling),
    cmocka_unit_test(without_autoscaler_and_alert),
    cmocka_unit_test(large_numbers_do_not_overflow),
    cmocka_unit_test(everything_has_a_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
