/* SPDX-License-Identifier: Apache-2.0
 * What is remembered of a handler: whom to call light, and how much memory to expect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "handler/profile.h"

#define KIB 1024u
#define MIB (1024u * 1024u)
#define IMAGE (2 * MIB)
#define LIMIT (32 * MIB)
#define SLOW (10 * NX_NS_PER_MS + 1)
#define VERY_SLOW (100 * NX_NS_PER_MS + 1)

static struct nx_profile fresh(void) {
  struct nx_profile profile;
  nx_profile_init(&profile);
  return profile;
}

static struct nx_profile trusted(void) {
  struct nx_profile profile = fresh();
  nx_profile_trust(&profile);
  return profile;
}

static bool is_light(const struct nx_profile *profile) { return nx_profile_is_light(profile, 0); }
static void good(struct nx_profile *profile) { nx_profile_record(profile, IMAGE, 10, IMAGE, 0, 0); }
static void slow(struct nx_profile *profile, uint64_t ns) { nx_profile_record(profile, IMAGE, 10, IMAGE, ns, 0); }
static void grown(struct nx_profile *profile, uint32_t by) { nx_profile_record(profile, IMAGE, 10, IMAGE + by, 0, 0); }

/* Good executions that it takes to be light. */
static int good_until_light(struct nx_profile *profile) {
  int count = 0;
  for (; !is_light(profile); count++) good(profile);
  return count;
}

static uint32_t expected(const struct nx_profile *profile) {
  return nx_profile_expected_bytes(profile, IMAGE, 0, LIMIT);
}

/* ---- Light or not ----------------------------------------------------------------------------------------------------- */

static void code_that_came_with_a_request_proves_itself(void **state) {
  (void)state;
  struct nx_profile profile = fresh();
  assert_false(is_light(&profile));
  assert_int_equal(good_until_light(&profile), 4);
  slow(&profile, SLOW);
  assert_false(is_light(&profile));
  assert_int_equal(good_until_light(&profile), 8);
}

static void a_registered_handler_is_believed(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  assert_true(is_light(&profile));
  assert_int_equal(profile.score, NX_PROFILE_TRUSTED);
  slow(&profile, SLOW); /* once, on a busy machine */
  assert_true(is_light(&profile));
  slow(&profile, SLOW);
  assert_false(is_light(&profile));
  assert_int_equal(good_until_light(&profile), 8);
}

static void trust_neither_lowers_nor_forgives(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  for (int i = 0; i < 100; i++) good(&profile);
  assert_int_equal(profile.score, NX_PROFILE_BEST);
  nx_profile_trust(&profile);
  assert_int_equal(profile.score, NX_PROFILE_BEST);
  slow(&profile, VERY_SLOW);
  nx_profile_trust(&profile); /* registered anew */
  assert_int_equal(profile.score, NX_PROFILE_WORST);
  profile = fresh();
  good(&profile);
  nx_profile_trust(&profile);
  assert_int_equal(profile.score, NX_PROFILE_TRUSTED);
}

static void who_ran_for_long_or_grew_is_not_forgiven_soon(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  slow(&profile, VERY_SLOW);
  assert_int_equal(good_until_light(&profile), 32);
  grown(&profile, NX_PROFILE_SMALL_BYTES);
  assert_true(is_light(&profile));
  for (int i = 0; i < 100; i++) good(&profile);
  grown(&profile, NX_PROFILE_SMALL_BYTES + 1);
  assert_int_equal(good_until_light(&profile), 32);
  for (int i = 0; i < 10; i++) slow(&profile, VERY_SLOW);
  assert_int_equal(profile.score, NX_PROFILE_WORST); /* and no worse */
  slow(&profile, SLOW);
  assert_int_equal(profile.score, NX_PROFILE_WORST);
  profile = trusted();
  slow(&profile, VERY_SLOW - 1);
  assert_int_equal(profile.score, NX_PROFILE_TRUSTED - NX_PROFILE_SLOW_COSTS);
}

/* What took a little more than usual was neither short nor long. */
static void a_little_slow_says_nothing(void **state) {
  (void)state;
  struct nx_profile profile = fresh();
  for (int i = 0; i < 100; i++) slow(&profile, 10 * NX_NS_PER_MS);
  assert_int_equal(profile.score, NX_PROFILE_TRIAL);
  nx_profile_record(&profile, IMAGE, 10, IMAGE + NX_PROFILE_SMALL_BYTES + 1, 2 * NX_NS_PER_MS, 0);
  assert_int_equal(profile.score, NX_PROFILE_WORST);
}

static void one_that_was_long_is_expected_to_be_so_again(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  assert_false(nx_profile_is_long(&profile, 0));
  nx_profile_record(&profile, IMAGE, 10, IMAGE, VERY_SLOW, NX_PROFILE_LONG_NS - 1); /* others computed meanwhile */
  assert_false(nx_profile_is_long(&profile, 0));
  nx_profile_record(&profile, IMAGE, 10, IMAGE, VERY_SLOW, NX_PROFILE_LONG_NS);
  assert_true(nx_profile_is_long(&profile, NX_PROFILE_MUCH_INPUT_BYTES));
  assert_false(nx_profile_is_long(&profile, NX_PROFILE_MUCH_INPUT_BYTES + 1));
  nx_profile_record(&profile, IMAGE, NX_PROFILE_MUCH_INPUT_BYTES + 1, IMAGE, 0, 0); /* says nothing */
  assert_true(nx_profile_is_long(&profile, 0));
  nx_profile_record(&profile, IMAGE, 10, IMAGE, SLOW, NX_PROFILE_LONG_NS - 1);
  assert_false(nx_profile_is_long(&profile, 0));
}

static void much_input_is_judged_by_itself(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  assert_true(nx_profile_is_light(&profile, NX_PROFILE_MUCH_INPUT_BYTES));
  assert_false(nx_profile_is_light(&profile, NX_PROFILE_MUCH_INPUT_BYTES + 1));
  nx_profile_record(&profile, IMAGE, NX_PROFILE_MUCH_INPUT_BYTES + 1, 30 * MIB, VERY_SLOW, VERY_SLOW);
  assert_int_equal(profile.score, NX_PROFILE_TRUSTED);
  assert_int_equal(profile.peak_bytes, 0);
  nx_profile_record(&profile, IMAGE, NX_PROFILE_MUCH_INPUT_BYTES, 30 * MIB, 0, 0);
  assert_int_equal(profile.score, NX_PROFILE_WORST);
  assert_int_equal(profile.peak_bytes, 30 * MIB);
}

/* ---- How much --------------------------------------------------------------------------------------------------------- */

static void the_unknown_get_a_part_of_what_is_left(void **state) {
  (void)state;
  struct nx_profile profile = fresh();
  assert_int_equal(expected(&profile), IMAGE + 30 * MIB / 4);
  profile = trusted();
  assert_int_equal(expected(&profile), IMAGE + MIB);
  assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 0, IMAGE + 2 * MIB), IMAGE + MIB / 2);
}

static void the_known_get_their_peak_which_fades(void **state) {
  (void)state;
  struct nx_profile profile = fresh();
  grown(&profile, 16 * MIB);
  assert_int_equal(expected(&profile), IMAGE + 16 * MIB);
  grown(&profile, 8 * MIB);
  assert_int_equal(expected(&profile), IMAGE + 15 * MIB); /* an eighth of the difference less */
  grown(&profile, 20 * MIB);
  assert_int_equal(expected(&profile), IMAGE + 20 * MIB); /* up at once */
  for (int i = 0; i < 200; i++) good(&profile);
  assert_in_range(expected(&profile), IMAGE, IMAGE + 7);
  grown(&profile, 40 * MIB);
  assert_int_equal(expected(&profile), LIMIT); /* a caller's limit may be lower than what others used */
}

static void a_peak_below_the_image_is_of_another(void **state) {
  (void)state;
  struct nx_profile profile = fresh();
  nx_profile_record(&profile, MIB, 0, MIB, 0, 0);
  assert_int_equal(expected(&profile), IMAGE + 30 * MIB / 4);
}

/* 12 bytes of memory for each of JSON: see profile.c. */
static void much_input_comes_on_top(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 32 * KIB, LIMIT), IMAGE + MIB);
  assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 100 * KIB, LIMIT), IMAGE + MIB + 1200 * KIB);
  assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 10 * MIB, LIMIT), LIMIT);
  assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, UINT64_C(1) << 50, LIMIT), LIMIT);
  grown(&profile, 4 * MIB);
  assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 100 * KIB, LIMIT), IMAGE + 4 * MIB + 1200 * KIB);
}

static void limits_below_the_image_expect_the_image(void **state) {
  (void)state;
  struct nx_profile profile = fresh();
  for (int i = 0; i < 2; i++) {
    assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 0, 0), IMAGE);
    assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 10 * MIB, IMAGE), IMAGE);
    assert_int_equal(nx_profile_expected_bytes(&profile, IMAGE, 10 * MIB, IMAGE + 1), IMAGE + 1);
    grown(&profile, 9 * MIB);
  }
}

/* ---- What outlives the handler --------------------------------------------------------------------------------------- */

static const uint8_t one[32] = {1, 2, 3, 4, 5, 6, 7, 8}, other[32] = {9, 9}, same_slot[32] = {1, 2, 3, 4, 5, 6, 8};

static struct nx_profile recalled(const uint8_t *hash) {
  struct nx_profile profile;
  nx_profile_recall(&profile, hash);
  return profile;
}

static void a_good_score_is_remembered(void **state) {
  (void)state;
  struct nx_profile profile = recalled(one);
  assert_int_equal(profile.score, NX_PROFILE_TRIAL);
  assert_int_equal(profile.peak_bytes, 0);
  for (int i = 0; i < 100; i++) good(&profile);
  nx_profile_remember(&profile, one);
  profile = recalled(one);
  assert_int_equal(profile.score, NX_PROFILE_BEST);
  assert_int_equal(profile.peak_bytes, IMAGE);
  assert_int_equal(recalled(other).score, NX_PROFILE_TRIAL);
  assert_int_equal(recalled(same_slot).score, NX_PROFILE_TRIAL);
}

static void a_bad_score_takes_only_its_own_good_one_away(void **state) {
  (void)state;
  struct nx_profile profile = fresh(), bad = fresh();
  good(&bad);
  for (int i = 0; i < 4; i++) good(&profile);
  assert_int_equal(profile.score, 0); /* light, just so */
  nx_profile_remember(&profile, one);
  nx_profile_remember(&bad, same_slot);
  assert_int_equal(recalled(one).score, 0);
  struct nx_profile never = fresh();
  nx_profile_remember(&never, one); /* it was not executed since */
  assert_int_equal(recalled(one).score, 0);
  slow(&profile, VERY_SLOW);
  nx_profile_remember(&profile, one); /* what it proved is disproved */
  assert_false(nx_profile_is_light(&(struct nx_profile){.score = recalled(one).score}, 0));
}

static void peaks_are_remembered_in_whole_pages(void **state) {
  (void)state;
  struct nx_profile profile = trusted();
  grown(&profile, 1);
  nx_profile_remember(&profile, other);
  assert_int_equal(recalled(other).peak_bytes, IMAGE + 65536);
}

/* ---- Properties ------------------------------------------------------------------------------------------------------- */

static bool is_within_bounds(const struct nx_profile *profile, unsigned *seed) {
  int score = profile->score;
  uint32_t image = (uint32_t)rand_r(seed) % (8 * MIB), limit = (uint32_t)rand_r(seed) % (64 * MIB);
  uint64_t input = (uint64_t)rand_r(seed) % (4 * MIB);
  uint32_t bytes = nx_profile_expected_bytes(profile, image, input, limit);
  return score >= NX_PROFILE_WORST && score <= NX_PROFILE_BEST && bytes >= image && bytes <= (limit > image ? limit : image);
}

static void random_record(struct nx_profile *profile, unsigned *seed) {
  uint32_t image = (uint32_t)rand_r(seed) % (8 * MIB);
  uint64_t slow_ns = rand_r(seed) % 3 ? 0 : (uint64_t)rand_r(seed) % (200 * NX_NS_PER_MS);
  nx_profile_record(profile, image, (uint64_t)rand_r(seed) % (64 * KIB), image + (uint32_t)rand_r(seed) % (8 * MIB), slow_ns, slow_ns / 2);
}

static void any_history_stays_within_bounds(void **state) {
  (void)state;
  unsigned seed = 7;
  struct nx_profile profile = fresh();
  for (int i = 0; i < 200000; i++) {
    random_record(&profile, &seed);
    if (i % 1000 == 0) nx_profile_trust(&profile);
    assert_true(is_within_bounds(&profile, &seed));
  }
}

static struct nx_profile shared;
static _Atomic int broken;

static void *record_much(void *seed) {
  for (int i = 0; i < 50000; i++) {
    random_record(&shared, seed);
    if (i % 1000 == 0) nx_profile_trust(&shared);
    if (!is_within_bounds(&shared, seed)) atomic_fetch_add(&broken, 1);
  }
  return NULL;
}

static void threads_may_record_at_once(void **state) {
  (void)state;
  pthread_t threads[4];
  unsigned seeds[4] = {1, 2, 3, 4};
  nx_profile_init(&shared);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, record_much, &seeds[i]), 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  assert_int_equal(broken, 0);
  for (int i = 0; i < 100; i++) good(&shared);
  assert_true(is_light(&shared));
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(code_that_came_with_a_request_proves_itself),
    cmocka_unit_test(a_registered_handler_is_believed),
    cmocka_unit_test(trust_neither_lowers_nor_forgives),
    cmocka_unit_test(who_ran_for_long_or_grew_is_not_forgiven_soon),
    cmocka_unit_test(a_little_slow_says_nothing),
    cmocka_unit_test(one_that_was_long_is_expected_to_be_so_again),
    cmocka_unit_test(much_input_is_judged_by_itself),
    cmocka_unit_test(the_unknown_get_a_part_of_what_is_left),
    cmocka_unit_test(the_known_get_their_peak_which_fades),
    cmocka_unit_test(a_peak_below_the_image_is_of_another),
    cmocka_unit_test(much_input_comes_on_top),
    cmocka_unit_test(limits_below_the_image_expect_the_image),
    cmocka_unit_test(a_good_score_is_remembered),
    cmocka_unit_test(a_bad_score_takes_only_its_own_good_one_away),
    cmocka_unit_test(peaks_are_remembered_in_whole_pages),
    cmocka_unit_test(any_history_stays_within_bounds),
    cmocka_unit_test(threads_may_record_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
