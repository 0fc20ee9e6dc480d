/* SPDX-License-Identifier: Apache-2.0
 * The heap of timers and the table of keys, against the plainest thing that does the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"
#include "base/timers.h"

enum { THINGS = 300, STEPS = 20000 };

/* ---- Timers ----------------------------------------------------------------------------------------------------- */

static const struct nx_timer *earliest(const struct nx_timer *timers) {
  const struct nx_timer *first = NULL;
  for (int i = 0; i < THINGS; i++)
    if (timers[i].slot && (!first || timers[i].at < first->at)) first = &timers[i];
  return first;
}

static void the_earliest_is_always_first(void **state) {
  struct nx_timer *heap[THINGS], timers[THINGS] = {0};
  struct nx_timers all = {.heap = heap, .capacity = THINGS};
  unsigned seed = 1;
  for (int step = 0; step < STEPS; step++) {
    struct nx_timer *timer = &timers[rand_r(&seed) % THINGS];
    uint64_t at = (uint64_t)rand_r(&seed) % 1000;
    if (!timer->slot) {
      timer->at = at;
      nx_timers_add(&all, timer);
    } else if (rand_r(&seed) % 2) {
      nx_timers_set(&all, timer, at);
    } else {
      nx_timers_remove(&all, timer);
      nx_timers_remove(&all, timer); /* nothing happens */
    }
    const struct nx_timer *expected = earliest(timers), *first = nx_timers_first(&all, UINT64_MAX);
    assert_int_equal(first != NULL, expected != NULL);
    if (first) assert_int_equal(first->at, expected->at);
    if (first && first->at) assert_null(nx_timers_first(&all, first->at - 1));
  }
}

static void timers_come_in_order(void **state) {
  struct nx_timer *heap[THINGS], timers[THINGS] = {0};
  struct nx_timers all = {.heap = heap, .capacity = THINGS};
  for (uint64_t i = 0; i < THINGS; i++) {
    timers[i].at = i * 7 % THINGS;
    nx_timers_add(&all, &timers[i]);
  }
  for (uint64_t i = 0; i < THINGS; i++) {
    struct nx_timer *first = nx_timers_first(&all, i);
    assert_non_null(first);
    assert_int_equal(first->at, i);
    nx_timers_remove(&all, first);
  }
  assert_int_equal(all.count, 0);
}

/* ---- Table ------------------------------------------------------------------------------------------------------ */

struct thing {
  struct nx_node node;
  uint32_t key;
  bool is_in;
};

/* As its owner does, after each change. */
static void fit(struct nx_table *table) {
  size_t count = nx_table_suitable(table);
  if (count == table->bucket_count) return;
  struct nx_node **buckets = count ? calloc(count, sizeof *buckets) : NULL;
  assert_true(buckets || !count);
  free(nx_table_rehash(table, buckets, count));
}

static void change(struct nx_table *table, struct thing *thing) {
  if (thing->is_in)
    nx_table_remove(table, &thing->node);
  else
    nx_table_insert(table, &thing->node);
  thing->is_in = !thing->is_in;
}

static void what_is_in_is_found(void **state) {
  static const uint8_t secret[NX_TABLE_SECRET_BYTES] = "not that secret";
  static struct thing things[THINGS];
  struct nx_table table = {.key_bytes = sizeof things->key, .secret = secret};
  unsigned seed = 2;
  for (uint32_t i = 0; i < THINGS; i++) things[i].key = i;
  for (int step = 0; step < STEPS; step++) {
    change(&table, &things[rand_r(&seed) % THINGS]);
    if (step > 1000 && rand_r(&seed) % 2) fit(&table); /* it works with any number of buckets, with none as well */
    const struct thing *asked = &things[rand_r(&seed) % THINGS];
    assert_ptr_equal(nx_table_find(&table, &asked->key), asked->is_in ? &asked->node : NULL);
  }
  for (int i = 0; i < THINGS; i++) {
    if (things[i].is_in) change(&table, &things[i]);
    fit(&table);
    assert_true(table.bucket_count <= 8 || table.count >= table.bucket_count / 2 - 1);
  }
  assert_int_equal(table.bucket_count, 0);
  assert_null(table.buckets);
}

static void another_node_takes_the_place(void **state) {
  static const uint8_t secret[NX_TABLE_SECRET_BYTES];
  struct thing one = {.key = 1}, other = {.key = 2}, new = {.key = 1};
  struct nx_table table = {.key_bytes = sizeof one.key, .secret = secret};
  nx_table_insert(&table, &one.node);
  nx_table_insert(&table, &other.node);
  nx_table_exchange(&table, &one.node, &new.node);
  assert_ptr_equal(nx_table_find(&table, &one.key), &new.node);
  assert_ptr_equal(nx_table_find(&table, &other.key), &other.node);
  assert_int_equal(table.count, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_earliest_is_always_first),
    cmocka_unit_test(timers_come_in_order),
    cmocka_unit_test(what_is_in_is_found),
    cmocka_unit_test(another_node_takes_the_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
