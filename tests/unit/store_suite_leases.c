/* SPDX-License-Identifier: Apache-2.0
 * The suite of stores: who holds a lease, and how it ends. */
#include "store_suite_internal.h"

#include <stdio.h>

#include <sys/wait.h>

static int create_waiting(void **state) {
  suite_setup(state);
  assert_int_equal(create(store, id_of(1), waiting("first")), 0);
  return 0;
}

static void a_lease_is_exclusive(void **state) {
  struct nx_store_lease held, refused;
  struct nx_stored out = {0};
  assert_int_equal(lease_into(store, id_of(1), HOUR_MS, &held, &out), 0);
  assert_int_equal(out.state, NX_STORED_WAITING);
  assert_bytes(&out.bytes, "first", 5);
  nx_buf_deinit(&out.bytes);
  assert_int_equal(lease(store, id_of(1), &refused), -NX_ERR_BUSY);
  assert_int_equal(lease(other, id_of(1), &refused), -NX_ERR_BUSY);
  assert_item(store, id_of(1), NX_STORED_WAITING, "first"); /* who only reads needs none */
  assert_item(other, id_of(1), NX_STORED_WAITING, "first");
  release(store, &held);
}

static void release_changes_nothing(void **state) {
  struct nx_store_lease held;
  struct nx_stored before = {0}, after = {0};
  assert_int_equal(read_into(store, id_of(1), &before), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  release(store, &held);
  assert_int_equal(lease_into(other, id_of(1), HOUR_MS, &held, &after), 0);
  assert_int_equal(after.state, before.state);
  assert_int_equal(after.expires_ms, before.expires_ms);
  assert_int_equal(after.wake_ms, before.wake_ms);
  assert_bytes(&after.bytes, "first", 5);
  release(other, &held);
  nx_buf_deinit(&before.bytes);
  nx_buf_deinit(&after.bytes);
}

static void a_commit_replaces_the_item_and_ends_the_lease(void **state) {
  struct nx_store_lease first, second;
  struct nx_stored out = {0};
  assert_int_equal(lease(store, id_of(1), &first), 0);
  assert_int_equal(commit(store, &first, waiting("second, and longer")), 0);
  assert_int_equal(lease_into(other, id_of(1), HOUR_MS, &second, &out), 0);
  assert_bytes(&out.bytes, "second, and longer", 18);
  nx_buf_deinit(&out.bytes);
  assert_int_equal(commit(other, &second, waiting("3")), 0);
  assert_item(store, id_of(1), NX_STORED_WAITING, "3");
}

static void many_commits(void **state) {
  for (int i = 0; i < 100; i++) {
    struct nx_store *handle = i % 2 ? store : other;
    struct nx_store_lease held;
    char text[16];
    sprintf(text, "commit %d", i);
    assert_int_equal(lease(handle, id_of(1), &held), 0);
    assert_int_equal(commit(handle, &held, waiting(text)), 0);
    assert_item(i % 3 ? store : other, id_of(1), NX_STORED_WAITING, text);
  }
}

/* Who was too slow finds it out, and does not disturb whoever came after. */
static void a_lease_passes_to_another_when_its_time_is_over(void **state) {
  struct nx_store_lease slow, next, refused;
  assert_int_equal(lease_into(store, id_of(1), 50, &slow, NULL), 0);
  eventually(lease(other, id_of(1), &next) == 0);
  assert_int_equal(extend(store, &slow, HOUR_MS), -NX_ERR_GONE);
  release(store, &slow);
  assert_int_equal(lease(store, id_of(1), &refused), -NX_ERR_BUSY);
  assert_int_equal(commit(other, &next, waiting("second")), 0);
  assert_item(store, id_of(1), NX_STORED_WAITING, "second");
}

static void a_commit_after_another_took_over_is_refused(void **state) {
  struct nx_store_lease slow, next;
  assert_int_equal(lease_into(store, id_of(1), 50, &slow, NULL), 0);
  eventually(lease(other, id_of(1), &next) == 0);
  assert_int_equal(commit(store, &slow, waiting("late")), -NX_ERR_GONE);
  assert_item(other, id_of(1), NX_STORED_WAITING, "first");
  assert_int_equal(commit(other, &next, finished("in time")), 0);
  assert_item(store, id_of(1), NX_STORED_FINISHED, "in time");
}

/* False when the machine stood still for so long that the lease was lost before it could be extended. */
static bool lease_and_extend(struct nx_store_lease *held) {
  return lease_into(store, id_of(1), 300, held, NULL) == 0 && extend(store, held, HOUR_MS) == 0;
}

static void a_lease_is_extended(void **state) {
  struct nx_store_lease held, refused;
  eventually(lease_and_extend(&held));
  uint64_t first_end_ms = now_ms() + 300;
  eventually(now_ms() > first_end_ms);
  assert_int_equal(lease(other, id_of(1), &refused), -NX_ERR_BUSY);
  assert_int_equal(extend(store, &held, 1), 0); /* and made shorter: from now on */
  eventually(lease(other, id_of(1), &refused) == 0);
}

static void a_cancelled_item_cannot_be_committed(void **state) {
  struct nx_store_lease held;
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(cancel(other, id_of(1)), 0);
  assert_int_equal(extend(store, &held, HOUR_MS), -NX_ERR_GONE);
  assert_int_equal(commit(store, &held, finished("too late")), -NX_ERR_GONE);
  struct nx_stored out = {0};
  assert_int_equal(read_into(store, id_of(1), &out), 0);
  assert_int_equal(out.state, NX_STORED_CANCELLED);
  nx_buf_deinit(&out.bytes);
}

static void a_lease_of_a_cancelled_item_may_be_released(void **state) {
  struct nx_store_lease held;
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(cancel(store, id_of(1)), 0);
  release(store, &held);
  assert_int_equal(lease(other, id_of(1), &held), -NX_ERR_GONE);
}

/* Whether it then stays or is lost is the store's affair, but there is nothing in between. */
static void an_item_that_expires_while_it_is_leased_is_put_back(void **state) {
  struct nx_store_lease held;
  struct nx_store_item item = waiting("short");
  item.expires_ms = now_ms() + 1000; /* time enough for the lease */
  assert_int_equal(create(store, id_of(2), item), 0);
  assert_int_equal(lease(store, id_of(2), &held), 0);
  eventually(now_ms() > item.expires_ms);
  sweep(store);
  sweep(other);
  assert_int_equal(commit(store, &held, finished("result")), 0);
  assert_item(other, id_of(2), NX_STORED_FINISHED, "result");
}

/* A process that leases the item and ends without a word. */
static void lease_and_die(void) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) {
    struct nx_store_lease held;
    struct nx_store *mine = factory->open_again();
    _exit(lease_into(mine, id_of(1), 500, &held, NULL) ? 1 : 0);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

static void a_lease_ends_with_its_process(void **state) {
  struct nx_store_lease held;
  if (!factory->open_again) skip();
  lease_and_die();
  eventually(lease(store, id_of(1), &held) == 0);
  assert_int_equal(commit(store, &held, finished("by the next one")), 0);
  assert_item(other, id_of(1), NX_STORED_FINISHED, "by the next one");
}

int suite_run_leases(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, create_waiting, suite_teardown)
  const struct CMUnitTest leases[] = {
    T(a_lease_is_exclusive),
    T(release_changes_nothing),
    T(a_commit_replaces_the_item_and_ends_the_lease),
    T(many_commits),
    T(a_lease_passes_to_another_when_its_time_is_over),
    T(a_commit_after_another_took_over_is_refused),
    T(a_lease_is_extended),
    T(a_cancelled_item_cannot_be_committed),
    T(a_lease_of_a_cancelled_item_may_be_released),
    T(an_item_that_expires_while_it_is_leased_is_put_back),
    T(a_lease_ends_with_its_process),
  };
#undef T
  return cmocka_run_group_tests(leases, NULL, NULL);
}
