/* SPDX-License-Identifier: Apache-2.0
 * The store in memory: the suite of all stores, then its bounds, what makes way, and what an item costs. */
#include "store_suite_internal.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "counting_account.h"
#include "memory/governor.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

static struct counting_account account = COUNTING_ACCOUNT;
static struct nx_store_options options = {.max_bytes = GIB, .account = &account.as_account};

static struct nx_store *open_with(struct nx_store_options with) {
  struct nx_store *opened;
  struct nx_error err;
  if (nx_store_open_memory(&opened, &with, &err)) fail_msg("%s", err.text);
  return opened;
}

/* Also checks that the one before gave everything back. */
static struct nx_store *open_memory(void) {
  assert_int_equal(account.charged, 0);
  return open_with(options);
}

static struct nx_store_stats stats_of(struct nx_store *handle) {
  struct nx_store_stats stats;
  handle->ops->read_stats(handle, &stats);
  return stats;
}

static void reopen(uint64_t max_bytes) {
  store->ops->close(store);
  assert_int_equal(account.charged, 0);
  store = other = open_with((struct nx_store_options){.max_bytes = max_bytes, .account = &account.as_account});
}

static int account_teardown(void **state) {
  suite_teardown(state);
  account.limit = (size_t)-1;
  assert_int_equal(account.charged, 0);
  return 0;
}

/* For the figures of a refusal. */
static struct nx_ledger ledger;

static struct nx_governor *make_governor(void) {
  struct nx_governor *governor;
  memset(&ledger, 0, sizeof ledger);
  const struct nx_governor_options with = {.ledger = &ledger, .limit_bytes = 64 * MIB};
  assert_int_equal(nx_governor_create(&governor, &with, NULL), 0);
  return governor;
}

/* ---- What an item costs ----------------------------------------------------------------------------------------- */

static void an_item_costs_little_more_than_its_bytes(void **state) {
  enum { ITEMS = IS_SANITIZED ? 20000 : 250000, OVERHEAD_MAX_BYTES = 120 };
  static const char bytes[116];
  uint64_t charged_before = stats_of(store).bytes, item_bytes = 0;
  size_t heap_before = mallinfo2().uordblks;
  for (uint64_t i = 0; i < ITEMS; i++) {
    size_t size = 100 + i % 16; /* malloc's steps */
    assert_int_equal(create(store, id_of(i), item_of(NX_STORED_WAITING, bytes, size)), 0);
    item_bytes += size;
  }
  uint64_t charged = stats_of(store).bytes - charged_before;
  assert_int_equal(stats_of(store).waiting, ITEMS);
  assert_int_equal(stats_of(store).bytes, account.charged);
  assert_true(charged <= item_bytes + ITEMS * OVERHEAD_MAX_BYTES);
  print_message("overhead of an item: %.1f bytes\n", (double)(charged - item_bytes) / ITEMS);
  if (!IS_SANITIZED) { /* what is charged is what malloc took */
    size_t taken = mallinfo2().uordblks - heap_before;
    assert_true(taken <= charged + charged / 100 && taken >= charged - charged / 100);
  }
  store->ops->sweep(store, now_ms() + 2 * HOUR_MS);
  assert_int_equal(stats_of(store).waiting, 0);
  assert_int_equal(account.charged, 0); /* tables and heaps, too */
}

static void an_empty_store_costs_nothing(void **state) {
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(commit(store, &held, finished("done")), 0);
  store->ops->sweep(store, now_ms() + 2 * HOUR_MS);
  assert_int_equal(account.charged, 0);
}

/* ---- Bounds ----------------------------------------------------------------------------------------------------- */

enum { LARGE = 100 << 10 };
static uint8_t large[LARGE];

static struct nx_store_item large_item(enum nx_stored_state state) { return item_of(state, large, LARGE); }

static size_t size_of(uint64_t number) {
  struct nx_stored out = {0};
  assert_int_equal(read_into(store, id_of(number), &out), 0);
  size_t size = out.bytes.len;
  nx_buf_deinit(&out.bytes);
  return size;
}

static void a_full_store_refuses(void **state) {
  struct nx_error err = {0};
  struct nx_refusal refused = {0};
  struct nx_suspension_id id = id_of(9);
  struct nx_store_item item = large_item(NX_STORED_WAITING);
  reopen(4 * LARGE);
  for (uint64_t i = 0; i < 3; i++) assert_int_equal(create(store, id_of(i), item), 0);
  uint64_t used = stats_of(store).bytes;
  assert_int_equal(store->ops->create(store, &id, &item, &refused, &err), -NX_ERR_OVERLOADED);
  assert_string_equal(refused.layer, "suspended");
  assert_int_equal(refused.limit_bytes, 4 * LARGE);
  assert_int_equal(refused.used_bytes, used);
  assert_true(refused.requested_bytes >= LARGE && refused.requested_bytes < LARGE + 8192);
  assert_non_null(strstr(err.text, "the store of suspended executions is full (layer: suspended)"));
  assert_non_null(strstr(err.text, "SUSPEND_MAX_MB"));
  assert_int_equal(stats_of(store).bytes, used);
  assert_int_equal(read_into(store, id, NULL), -NX_ERR_NOT_FOUND);
  item.size = 5 * LARGE; /* more than it could ever hold; nobody reads the bytes */
  assert_int_equal(store->ops->create(store, &id, &item, &refused, &err), -NX_ERR_OVERLOADED);
}

static void a_refused_commit_changes_nothing(void **state) {
  struct nx_store_lease held;
  reopen(3 * LARGE);
  assert_int_equal(create(store, id_of(1), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(create(store, id_of(2), waiting("small")), 0);
  assert_int_equal(lease(store, id_of(2), &held), 0);
  assert_int_equal(create(store, id_of(3), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(commit(store, &held, large_item(NX_STORED_WAITING)), -NX_ERR_OVERLOADED);
  assert_item(store, id_of(2), NX_STORED_WAITING, "small");
  assert_int_equal(extend(store, &held, HOUR_MS), 0); /* still ours */
  release(store, &held);
  assert_int_equal(lease(store, id_of(2), &held), 0);
}

static void the_container_refuses(void **state) {
  struct nx_error err = {0};
  struct nx_refusal refused = {0};
  struct nx_suspension_id id = id_of(1);
  struct nx_governor *governor = make_governor();
  struct nx_store *mine = open_with((struct nx_store_options){
    .max_bytes = GIB,
    .account = nx_governor_account(governor, NX_LAYER_SUSPENDED, NX_DEMAND_GROWTH),
    .governor = governor,
  });
  struct nx_store_item item = item_of(NX_STORED_WAITING, NULL, 100 * MIB); /* refused before anybody reads */
  assert_int_equal(mine->ops->create(mine, &id, &item, &refused, &err), -NX_ERR_OVERLOADED);
  assert_string_equal(refused.layer, "container");
  assert_int_equal(refused.limit_bytes, nx_ledger_budget(&ledger));
  assert_true(refused.requested_bytes >= 100 * MIB);
  assert_non_null(strstr(err.text, "(layer: container)"));
  assert_int_equal(stats_of(mine).bytes, 0);
  mine->ops->close(mine);
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_SUSPENDED), 0);
  nx_governor_destroy(governor);
}

/* ---- What makes way --------------------------------------------------------------------------------------------- */

static void the_oldest_results_make_way(void **state) {
  reopen(5 * LARGE);
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(create(store, id_of(2), large_item(NX_STORED_FINISHED)), 0);
  assert_int_equal(create(store, id_of(3), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(cancel(store, id_of(3)), 0);
  assert_int_equal(create(store, id_of(4), large_item(NX_STORED_FINISHED)), 0);
  assert_int_equal(create(store, id_of(5), large_item(NX_STORED_WAITING)), 0); /* the first that makes others go */
  assert_int_equal(size_of(2), 0);
  assert_int_equal(size_of(3), LARGE);
  assert_int_equal(lease(store, id_of(5), &held), 0);
  assert_int_equal(commit(store, &held, large_item(NX_STORED_WAITING)), 0); /* needs room for old and new */
  assert_int_equal(size_of(3), 0);
  assert_int_equal(size_of(4), LARGE);
  assert_int_equal(create(store, id_of(6), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(create(store, id_of(7), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(size_of(4), 0);
  assert_int_equal(create(store, id_of(8), large_item(NX_STORED_WAITING)), -NX_ERR_OVERLOADED);
  static const uint64_t wait[] = {1, 5, 6, 7};
  for (size_t i = 0; i < COUNT(wait); i++) assert_int_equal(size_of(wait[i]), LARGE);
  assert_item(store, id_of(2), NX_STORED_FINISHED, "");
  assert_item(store, id_of(3), NX_STORED_CANCELLED, "");
  assert_item(store, id_of(4), NX_STORED_FINISHED, "");
  store->ops->sweep(store, now_ms() + 2 * HOUR_MS);
  assert_int_equal(read_into(store, id_of(2), NULL), -NX_ERR_NOT_FOUND);
}

static void results_make_way_for_the_container_too(void **state) {
  for (uint64_t i = 0; i < 3; i++) assert_int_equal(create(store, id_of(i), large_item(NX_STORED_FINISHED)), 0);
  account.limit = account.charged + LARGE / 2;
  assert_int_equal(create(store, id_of(3), large_item(NX_STORED_WAITING)), 0);
  assert_int_equal(size_of(0), 0);
  assert_int_equal(size_of(2), LARGE);
  assert_int_equal(size_of(3), LARGE);
  account.limit = account.charged + LARGE / 2;
  assert_int_equal(create(store, id_of(4), large_item(NX_STORED_WAITING)), 0); /* what is left of the results */
  assert_int_equal(size_of(2), 0);
}

/* Every charge is refused once: nothing is lost, nothing stays. */
static void whatever_charge_is_refused(void **state) {
  struct nx_store_lease held;
  size_t limit = 0;
  struct nx_governor *governor = make_governor();
  store->ops->close(store);
  store = other = open_with((struct nx_store_options){GIB, &account.as_account, governor});
  for (int status = -1; status; limit += 16) {
    account.limit = limit;
    status = keep_source(store, suite_source_hash, suite_source, now_ms() + HOUR_MS);
    if (!status) status = create(store, id_of(1), waiting("waits"));
    if (!status) assert_int_equal(lease(store, id_of(1), &held), 0);
    if (!status) status = commit(store, &held, waiting("waits for something else"));
    if (status) assert_int_equal(status, -NX_ERR_OVERLOADED);
    assert_true(account.charged <= limit);
    if (!status) assert_item(store, id_of(1), NX_STORED_WAITING, "waits for something else");
    store->ops->sweep(store, now_ms() + 2 * HOUR_MS);
    assert_int_equal(account.charged, 0);
  }
  assert_true(limit > 500);
  account.limit = (size_t)-1;
  store->ops->close(store);
  nx_governor_destroy(governor);
  store = other = open_memory();
}

static void many_are_due(void **state) {
  enum { ITEMS = 5000, MAX = 1000 };
  static struct nx_suspension_id ids[MAX];
  struct nx_store_item item = waiting("timer");
  for (uint64_t i = 0; i < ITEMS; i++) {
    item.wake_ms = 1000 + i * 7919 % ITEMS;
    assert_int_equal(create(store, id_of(item.wake_ms), item), 0);
  }
  size_t count = store->ops->due(store, now_ms(), ids, MAX);
  assert_true(count > 0 && count <= MAX);
  for (size_t i = 0; i < count; i++) {
    struct nx_suspension_id expected = id_of(1000 + i);
    assert_memory_equal(&ids[i], &expected, sizeof expected);
  }
}

/* ---- Races ------------------------------------------------------------------------------------------------------ */

/* Readers see one commit or another, never a mixture, while commits and sweeps go on and results make way. */
enum { READERS = 4, COMMITS = 200, RACE_ITEMS = 4, RACE_BYTES = 20000 };
static atomic_bool race_is_over;

static bool is_uniform(const struct nx_buf *bytes) {
  if (!bytes->len) return true; /* it made way */
  return bytes->len == RACE_BYTES && !memcmp(bytes->data, bytes->data + 1, RACE_BYTES - 1);
}

static void *read_while_others_write(void *arg) {
  uintptr_t faults = 0;
  for (uint64_t i = 0; !atomic_load(&race_is_over); i++) {
    struct nx_stored out = {0};
    int status = read_into(store, id_of(i % RACE_ITEMS), &out);
    faults += status != 0 || !is_uniform(&out.bytes);
    nx_buf_deinit(&out.bytes);
  }
  return (void *)faults;
}

/* Asserts nothing while threads run. */
static bool commit_bytes(uint64_t number, int value, enum nx_stored_state to) {
  static uint8_t bytes[RACE_BYTES];
  struct nx_store_lease held;
  memset(bytes, value, sizeof bytes);
  return lease(store, id_of(number), &held) == 0 && commit(store, &held, item_of(to, bytes, sizeof bytes)) == 0;
}

static int write_all(void) {
  static const uint8_t zeroes[RACE_BYTES];
  int faults = 0;
  for (int i = 0; i < COMMITS; i++) {
    faults += !commit_bytes((uint64_t)i % RACE_ITEMS, i, NX_STORED_WAITING);
    if (i % 16 == 0) sweep(store);
  }
  for (uint64_t i = 0; i < RACE_ITEMS; i++) faults += !commit_bytes(i, 255, NX_STORED_FINISHED);
  for (uint64_t i = 0; i < 30; i++)
    faults += create(store, id_of(100 + i), item_of(NX_STORED_FINISHED, zeroes, sizeof zeroes)) != 0;
  return faults;
}

static void readers_never_see_a_mixture(void **state) {
  /* So tight that results must make way; who reads keeps a block that has been replaced. */
  enum { MAX_BYTES = (RACE_ITEMS + READERS + 2) * (RACE_BYTES + 1000) };
  pthread_t readers[READERS];
  static const uint8_t zeroes[RACE_BYTES];
  reopen(MAX_BYTES);
  atomic_store(&race_is_over, false);
  for (uint64_t i = 0; i < RACE_ITEMS; i++)
    assert_int_equal(create(store, id_of(i), item_of(NX_STORED_WAITING, zeroes, sizeof zeroes)), 0);
  for (int i = 0; i < READERS; i++)
    if (pthread_create(&readers[i], NULL, read_while_others_write, NULL)) abort();
  int faults = write_all();
  atomic_store(&race_is_over, true);
  for (int i = 0; i < READERS; i++) {
    void *seen;
    pthread_join(readers[i], &seen);
    assert_null(seen);
  }
  assert_int_equal(faults, 0);
  assert_true(stats_of(store).bytes <= MAX_BYTES);
}

int main(void) {
  static const struct store_factory memory = {.open = open_memory};
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, account_teardown)
  const struct CMUnitTest tests[] = {
    T(an_item_costs_little_more_than_its_bytes),
    T(an_empty_store_costs_nothing),
    T(a_full_store_refuses),
    T(a_refused_commit_changes_nothing),
    T(the_container_refuses),
    T(the_oldest_results_make_way),
    T(results_make_way_for_the_container_too),
    T(whatever_charge_is_refused),
    T(many_are_due),
    T(readers_never_see_a_mixture),
  };
  int failed = store_suite_run(&memory);
  return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
