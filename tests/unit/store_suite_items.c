/* SPDX-License-Identifier: Apache-2.0
 * The suite of stores: items of all sizes and states, their expiry, and when they wake. */
#include "store_suite_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "counting_account.h"

static void an_unknown_item_is_not_found(void **state) {
  struct nx_store_lease held;
  assert_int_equal(read_into(store, id_of(1), NULL), -NX_ERR_NOT_FOUND);
  assert_int_equal(lease(store, id_of(1), &held), -NX_ERR_NOT_FOUND);
  assert_int_equal(cancel(store, id_of(1)), -NX_ERR_NOT_FOUND);
}

static void what_was_created_is_read(void **state) {
  char text[] = "waits";
  struct nx_store_item item = waiting(text);
  item.wake_ms = item.expires_ms - 1;
  assert_int_equal(create(store, id_of(1), item), 0);
  memset(text, 0, sizeof text); /* the bytes were copied */
  struct nx_stored out = {0};
  nx_buf_lit(&out.bytes, "before ");
  assert_int_equal(read_into(other, id_of(1), &out), 0);
  assert_int_equal(out.state, NX_STORED_WAITING);
  assert_int_equal(out.expires_ms, item.expires_ms);
  assert_int_equal(out.wake_ms, item.wake_ms);
  assert_bytes(&out.bytes, "before waits", 12);
  nx_buf_deinit(&out.bytes);
}

/* What repeats nowhere, so that a piece in the wrong place shows. */
static uint8_t *pattern(size_t size, uint32_t seed) {
  uint8_t *bytes = malloc(size);
  assert_non_null(bytes);
  for (size_t i = 0; i < size; i++) {
    seed = seed * 1664525u + 1013904223u;
    bytes[i] = (uint8_t)(seed >> 24);
  }
  return bytes;
}

static void items_of_all_sizes(void **state) {
  static const size_t sizes[] = {1, 2, 100, 4095, 4096, 4097, 65535, 65536, 1 << 20, (8 << 20) - 1, 8 << 20};
  for (size_t i = 0; i < COUNT(sizes); i++) {
    uint8_t *before = pattern(sizes[i], (uint32_t)i), *after = pattern(sizes[i], (uint32_t)i + 100);
    struct nx_stored out = {0};
    struct nx_store_lease held;
    assert_int_equal(create(store, id_of(i), item_of(NX_STORED_WAITING, before, sizes[i])), 0);
    assert_int_equal(lease_into(other, id_of(i), HOUR_MS, &held, &out), 0);
    assert_bytes(&out.bytes, before, sizes[i]);
    assert_int_equal(commit(other, &held, item_of(NX_STORED_FINISHED, after, sizes[i])), 0);
    nx_buf_reset(&out.bytes, 0);
    assert_int_equal(read_into(store, id_of(i), &out), 0);
    assert_bytes(&out.bytes, after, sizes[i]);
    nx_buf_deinit(&out.bytes);
    free(before);
    free(after);
  }
}

static void an_item_too_large_is_refused(void **state) {
  struct nx_store_item item = item_of(NX_STORED_WAITING, "", (size_t)NX_STORE_ITEM_MAX_BYTES + 1);
  assert_int_equal(create(store, id_of(1), item), -NX_ERR_TOO_LARGE); /* nobody reads past the one byte that is there */
  assert_int_equal(read_into(store, id_of(1), NULL), -NX_ERR_NOT_FOUND);
}

static void ids_that_differ_in_one_bit(void **state) {
  enum { BITS = NX_SUSPENSION_ID_BYTES * 8 };
  struct nx_suspension_id ids[BITS + 1];
  char texts[BITS + 1][8];
  for (int i = 0; i <= BITS; i++) {
    ids[i] = id_of(7);
    if (i < BITS) ids[i].bytes[i / 8] ^= (uint8_t)(1 << i % 8);
    sprintf(texts[i], "bit %d", i);
    assert_int_equal(create(store, ids[i], waiting(texts[i])), 0);
  }
  for (int i = 0; i <= BITS; i += 2) assert_int_equal(cancel(other, ids[i]), 0);
  for (int i = 0; i <= BITS; i++) {
    struct nx_stored out = {0};
    assert_int_equal(read_into(other, ids[i], &out), 0);
    assert_int_equal(out.state, i % 2 ? NX_STORED_WAITING : NX_STORED_CANCELLED);
    if (i % 2) assert_bytes(&out.bytes, texts[i], strlen(texts[i]));
    nx_buf_deinit(&out.bytes);
  }
}

/* Finished and cancelled items are at their end, and can be read. */
static void assert_is_over(enum nx_stored_state over, struct nx_suspension_id id) {
  struct nx_store_lease held;
  struct nx_stored out = {0};
  assert_int_equal(lease_into(store, id, HOUR_MS, &held, &out), -NX_ERR_GONE);
  assert_int_equal(out.state, over);
  assert_true(out.expires_ms > now_ms());
  nx_buf_deinit(&out.bytes);
  assert_int_equal(cancel(other, id), -NX_ERR_GONE);
  assert_int_equal(read_into(other, id, NULL), 0);
}

static void a_finished_item_keeps_its_result(void **state) {
  struct nx_store_lease held;
  struct nx_stored out = {0};
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(commit(store, &held, finished("result")), 0);
  assert_is_over(NX_STORED_FINISHED, id_of(1));
  assert_item(other, id_of(1), NX_STORED_FINISHED, "result");
  assert_int_equal(lease_into(other, id_of(1), HOUR_MS, &held, &out), -NX_ERR_GONE);
  assert_bytes(&out.bytes, "result", 6);
  nx_buf_deinit(&out.bytes);
}

static void a_cancelled_item_stays_cancelled(void **state) {
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(cancel(other, id_of(1)), 0);
  assert_is_over(NX_STORED_CANCELLED, id_of(1));
}

static void an_item_may_be_created_finished(void **state) {
  assert_int_equal(create(store, id_of(1), finished("at once")), 0);
  assert_is_over(NX_STORED_FINISHED, id_of(1));
  assert_item(other, id_of(1), NX_STORED_FINISHED, "at once");
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static bool is_gone_or_unknown(int status) { return status == -NX_ERR_GONE || status == -NX_ERR_NOT_FOUND; }

static void create_for_a_moment(uint64_t number, enum nx_stored_state state) {
  struct nx_store_item item = item_of(state == NX_STORED_FINISHED ? NX_STORED_FINISHED : NX_STORED_WAITING, "x", 1);
  item.expires_ms = now_ms() + 200;
  assert_int_equal(create(store, id_of(number), item), 0);
  if (state != NX_STORED_CANCELLED) return;
  int status = cancel(store, id_of(number));
  assert_true(status == 0 || now_ms() >= item.expires_ms); /* on a machine that stood still it has expired by now */
}

static void items_expire(void **state) {
  static const enum nx_stored_state states[] = {NX_STORED_WAITING, NX_STORED_FINISHED, NX_STORED_CANCELLED};
  for (size_t i = 0; i < COUNT(states); i++) create_for_a_moment(i, states[i]);
  assert_int_equal(create(store, id_of(9), waiting("stays")), 0);
  for (size_t i = 0; i < COUNT(states); i++) {
    struct nx_store_lease held;
    eventually(read_into(other, id_of(i), NULL) == -NX_ERR_NOT_FOUND); /* also when nobody sweeps */
    assert_true(is_gone_or_unknown(lease(store, id_of(i), &held)));
    assert_true(is_gone_or_unknown(cancel(store, id_of(i))));
  }
  sweep(store);
  sweep(other);
  for (size_t i = 0; i < COUNT(states); i++) {
    struct nx_store_lease held;
    assert_int_equal(lease(store, id_of(i), &held), -NX_ERR_NOT_FOUND);
    assert_int_equal(cancel(other, id_of(i)), -NX_ERR_NOT_FOUND);
  }
  assert_item(other, id_of(9), NX_STORED_WAITING, "stays");
}

static void a_commit_sets_an_earlier_expiry(void **state) {
  struct nx_store_lease held;
  struct nx_store_item item = waiting("first");
  assert_int_equal(create(store, id_of(1), item), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  item.expires_ms = now_ms() + 100;
  assert_int_equal(commit(store, &held, item), 0);
  eventually(read_into(other, id_of(1), NULL) == -NX_ERR_NOT_FOUND);
}

static void a_commit_sets_a_later_expiry(void **state) {
  struct nx_store_lease held;
  struct nx_store_item item = waiting("first");
  item.expires_ms = now_ms() + 3000; /* time enough for the commit */
  assert_int_equal(create(store, id_of(1), item), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(commit(store, &held, waiting("second")), 0);
  eventually(now_ms() > item.expires_ms);
  sweep(store);
  assert_item(other, id_of(1), NX_STORED_WAITING, "second");
}

static void create_to_wake(uint64_t number, uint64_t wake_ms) {
  struct nx_store_item item = waiting("timer");
  item.wake_ms = wake_ms;
  assert_int_equal(create(store, id_of(number), item), 0);
}

static size_t due(struct nx_store *handle, uint64_t at_ms, struct nx_suspension_id *ids, size_t max) {
  return handle->ops->due(handle, at_ms, ids, max);
}

static bool is_id(const struct nx_suspension_id *id, uint64_t number) {
  struct nx_suspension_id expected = id_of(number);
  return !memcmp(id, &expected, sizeof expected);
}

/* In the order of their time, whatever the order in which they were made. Another handle may need a moment to see
 * them. */
static void items_wake_in_order(void **state) {
  enum { ITEMS = 50 };
  struct nx_suspension_id ids[ITEMS + 2];
  uint64_t start_ms = now_ms() + 1000;
  for (uint64_t i = 0; i < ITEMS; i++) create_to_wake(i * 17 % ITEMS, start_ms + 10 * (i * 17 % ITEMS));
  create_to_wake(1000, 0); /* never */
  assert_int_equal(due(store, start_ms - 1, ids, COUNT(ids)), 0);
  assert_int_equal(due(store, start_ms + 10, ids, 0), 0);
  assert_int_equal(due(store, start_ms + 25, ids, COUNT(ids)), 3); /* those of +0, +10 and +20 */
  eventually(due(other, start_ms + 10 * ITEMS, ids, COUNT(ids)) == ITEMS);
  for (uint64_t i = 0; i < ITEMS; i++) assert_true(is_id(&ids[i], i));
  assert_int_equal(due(store, start_ms + 10 * ITEMS, ids, 7), 7); /* reported again, and the oldest ones */
  for (uint64_t i = 0; i < 7; i++) assert_true(is_id(&ids[i], i));
}

/* A process may be unable to resume some of them: another one made them, with another guest. */
static void items_that_nobody_takes_do_not_hide_others(void **state) {
  enum { ITEMS = 10, BATCH = 4 };
  struct nx_suspension_id ids[BATCH];
  bool seen[ITEMS] = {0};
  if (!store->ops->blocks) skip(); /* one process: it made all of them */
  uint64_t wake_ms = now_ms();
  for (uint64_t i = 0; i < ITEMS; i++) create_to_wake(i, wake_ms + i / 3);
  for (size_t report = 0; report < 3; report++) {
    size_t count = due(store, wake_ms + ITEMS, ids, BATCH);
    assert_int_equal(count, report < 2 ? BATCH : ITEMS % BATCH);
    for (size_t i = 0; i < count; i++)
      for (uint64_t number = 0; number < ITEMS; number++) seen[number] |= is_id(&ids[i], number);
  }
  for (uint64_t i = 0; i < ITEMS; i++) assert_true(seen[i]);
  assert_int_equal(due(store, wake_ms + ITEMS, ids, BATCH), BATCH); /* and from the beginning */
}

static void only_items_that_wait_and_are_free_wake(void **state) {
  struct nx_suspension_id ids[8];
  struct nx_store_lease held;
  uint64_t wake_ms = now_ms();
  for (uint64_t i = 0; i < 4; i++) create_to_wake(i, wake_ms + i);
  assert_int_equal(cancel(store, id_of(0)), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  eventually(due(other, wake_ms + 9, ids, COUNT(ids)) == 2);
  assert_true(is_id(&ids[0], 2) && is_id(&ids[1], 3));
  release(store, &held);
  eventually(due(other, wake_ms + 9, ids, COUNT(ids)) == 3);
  assert_true(is_id(&ids[0], 1));

  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(commit(store, &held, finished("done")), 0);
  assert_int_equal(lease(store, id_of(2), &held), 0);
  struct nx_store_item later = waiting("again");
  later.wake_ms = wake_ms + 5;
  assert_int_equal(commit(store, &held, later), 0);
  assert_int_equal(lease(store, id_of(3), &held), 0);
  assert_int_equal(commit(store, &held, waiting("by hand now")), 0);
  eventually(due(other, wake_ms + 9, ids, COUNT(ids)) == 1);
  assert_true(is_id(&ids[0], 2));
  assert_int_equal(due(store, wake_ms + 4, ids, COUNT(ids)), 0);
}

static void an_item_wakes_again_when_its_lease_has_passed(void **state) {
  struct nx_suspension_id ids[1];
  struct nx_store_lease held;
  create_to_wake(1, now_ms() - 1);
  assert_int_equal(lease_into(store, id_of(1), 50, &held, NULL), 0);
  eventually(due(other, now_ms(), ids, 1) == 1);
  assert_true(is_id(&ids[0], 1));
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static void the_reader_pays_for_the_bytes(void **state) {
  struct counting_account account = COUNTING_ACCOUNT;
  struct nx_stored out = {.bytes.account = &account.as_account};
  struct nx_store_lease held;
  uint8_t *bytes = pattern(1 << 20, 1);
  assert_int_equal(create(store, id_of(1), item_of(NX_STORED_WAITING, bytes, 1 << 20)), 0);
  assert_int_equal(read_into(store, id_of(1), &out), 0);
  assert_true(account.charged >= 1 << 20);
  nx_buf_reset(&out.bytes, 0);
  account.limit = 1000;
  assert_int_equal(read_into(store, id_of(1), &out), -NX_ERR_NO_MEMORY);
  nx_buf_reset(&out.bytes, 0);
  assert_int_equal(lease_into(store, id_of(1), HOUR_MS, &held, &out), -NX_ERR_NO_MEMORY);
  nx_buf_deinit(&out.bytes);
  assert_int_equal(account.charged, 0);
  assert_int_equal(lease(other, id_of(1), &held), 0); /* nothing was leased */
  free(bytes);
}

static uint64_t waiting_items(struct nx_store *handle) {
  struct nx_store_stats stats;
  handle->ops->sweep(handle, now_ms()); /* where figures come from afar, they are brought here */
  handle->ops->read_stats(handle, &stats);
  return stats.waiting;
}

static void waiting_items_are_counted(void **state) {
  struct nx_store_lease held;
  assert_int_equal(waiting_items(store), 0);
  for (uint64_t i = 0; i < 5; i++) assert_int_equal(create(store, id_of(i), waiting("waits")), 0);
  assert_int_equal(create(store, id_of(5), finished("done")), 0);
  eventually(waiting_items(store) == 5);
  assert_int_equal(lease(store, id_of(0), &held), 0);
  eventually(waiting_items(store) == 5); /* also while it is leased */
  assert_int_equal(commit(store, &held, finished("done")), 0);
  assert_int_equal(cancel(store, id_of(1)), 0);
  eventually(waiting_items(store) == 3);
}

int suite_run_items(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
  const struct CMUnitTest items[] = {
    T(an_unknown_item_is_not_found),
    T(what_was_created_is_read),
    T(items_of_all_sizes),
    T(an_item_too_large_is_refused),
    T(ids_that_differ_in_one_bit),
    T(a_finished_item_keeps_its_result),
    T(a_cancelled_item_stays_cancelled),
    T(an_item_may_be_created_finished),
    T(items_expire),
    T(a_commit_sets_an_earlier_expiry),
    T(a_commit_sets_a_later_expiry),
    T(items_wake_in_order),
    T(items_that_nobody_takes_do_not_hide_others),
    T(only_items_that_wait_and_are_free_wake),
    T(an_item_wakes_again_when_its_lease_has_passed),
    T(the_reader_pays_for_the_bytes),
    T(waiting_items_are_counted),
  };
#undef T
  return cmocka_run_group_tests(items, NULL, NULL);
}
