/* SPDX-License-Identifier: Apache-2.0
 * The suite of stores: threads that want the same item at the same moment, half of them through each handle. */
#include "store_suite_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 8, ROUNDS = 50 };

struct racer {
  pthread_t thread;
  pthread_barrier_t *start;
  struct nx_store *handle;
  unsigned number;
  struct nx_store_lease lease;
  int status;
};

/* Lets all run at the same moment; their results are looked at when all are through. */
static void race(struct racer *racers, unsigned count, void *(*run)(void *)) {
  pthread_barrier_t start;
  pthread_barrier_init(&start, NULL, count);
  for (unsigned i = 0; i < count; i++) {
    racers[i].start = &start;
    racers[i].handle = i % 2 ? other : store;
    racers[i].number = i;
    if (pthread_create(&racers[i].thread, NULL, run, &racers[i])) abort();
  }
  for (unsigned i = 0; i < count; i++) pthread_join(racers[i].thread, NULL);
  pthread_barrier_destroy(&start);
}

static void *take_lease(void *arg) {
  struct racer *racer = arg;
  pthread_barrier_wait(racer->start);
  racer->status = lease(racer->handle, id_of(1), &racer->lease);
  return NULL;
}

static void exactly_one_gets_the_lease(void **state) {
  assert_int_equal(create(store, id_of(1), waiting("0")), 0);
  for (int round = 0; round < ROUNDS; round++) {
    struct racer racers[THREADS], *winner = NULL;
    char text[16];
    sprintf(text, "%d", round);
    race(racers, THREADS, take_lease);
    for (int i = 0; i < THREADS; i++) {
      if (racers[i].status) {
        assert_int_equal(racers[i].status, -NX_ERR_BUSY);
      } else {
        assert_null(winner);
        winner = &racers[i];
      }
    }
    assert_non_null(winner);
    if (round % 2)
      release(winner->handle, &winner->lease);
    else
      assert_int_equal(commit(winner->handle, &winner->lease, waiting(text)), 0);
  }
}

/* Racer 0 has the lease and commits; the others cancel. */
static enum nx_stored_state committed_state;

static void *commit_or_cancel(void *arg) {
  struct racer *racer = arg;
  pthread_barrier_wait(racer->start);
  if (racer->number == 0)
    racer->status = commit(racer->handle, &racer->lease, item_of(committed_state, "committed", 9));
  else
    racer->status = cancel(racer->handle, id_of(1));
  return NULL;
}

static enum nx_stored_state state_now(struct nx_suspension_id id) {
  struct nx_stored out = {0};
  assert_int_equal(read_into(other, id, &out), 0);
  nx_buf_deinit(&out.bytes);
  return out.state;
}

/* Returns how many cancelled. */
static unsigned race_commit_and_cancel(struct racer racers[3]) {
  assert_int_equal(lease(store, id_of(1), &racers[0].lease), 0);
  race(racers, 3, commit_or_cancel);
  unsigned cancelled = 0;
  for (int i = 1; i < 3; i++) {
    if (racers[i].status) assert_int_equal(racers[i].status, -NX_ERR_GONE);
    cancelled += racers[i].status == 0;
  }
  return cancelled;
}

static void reopen_empty(void) {
  suite_teardown(NULL);
  suite_setup(NULL);
}

static void an_item_is_finished_or_cancelled(void **state) {
  committed_state = NX_STORED_FINISHED;
  for (int round = 0; round < ROUNDS / 2; round++) {
    struct racer racers[3];
    assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
    unsigned cancelled = race_commit_and_cancel(racers);
    bool committed = racers[0].status == 0;
    if (!committed) assert_int_equal(racers[0].status, -NX_ERR_GONE);
    assert_int_equal(committed + cancelled, 1); /* exactly one of the three */
    assert_int_equal(state_now(id_of(1)), committed ? NX_STORED_FINISHED : NX_STORED_CANCELLED);
    reopen_empty();
  }
}

static void a_commit_does_not_undo_a_cancel(void **state) {
  committed_state = NX_STORED_WAITING;
  for (int round = 0; round < ROUNDS / 2; round++) {
    struct racer racers[3];
    assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
    assert_int_equal(race_commit_and_cancel(racers), 1);
    assert_true(racers[0].status == 0 || racers[0].status == -NX_ERR_GONE);
    assert_int_equal(state_now(id_of(1)), NX_STORED_CANCELLED);
    reopen_empty();
  }
}

/* Every thread adds one to the number that a few items hold, under the lease: none may be lost. */
enum { INCREMENTS = 30 };

static void *increment_many(void *arg) {
  struct racer *racer = arg;
  pthread_barrier_wait(racer->start);
  racer->status = 0;
  for (unsigned i = 0; i < INCREMENTS; i++)
    if (!increment_counter(racer->handle, racer->number + i)) racer->status = -1;
  return NULL;
}

static void no_commit_is_lost(void **state) {
  struct racer racers[THREADS];
  create_counters();
  race(racers, THREADS, increment_many);
  for (int i = 0; i < THREADS; i++) assert_int_equal(racers[i].status, 0);
  assert_int_equal(sum_of_counters(), THREADS * INCREMENTS);
}

/* ---- All calls at once, on few items: no call may fail in a way that is not in the header ------------------------ */

enum { STORM_IDS = 12, STORM_STEPS = 150 };

static bool is_in_header(int status) {
  return status == 0 || status == -NX_ERR_NOT_FOUND || status == -NX_ERR_GONE || status == -NX_ERR_BUSY;
}

static int lease_and_end(struct nx_store *handle, struct nx_suspension_id id, unsigned how) {
  struct nx_store_lease held;
  int status = lease_into(handle, id, how % 3 ? HOUR_MS : 1, &held, NULL);
  if (status) return status;
  if (how % 4 == 0) status = extend(handle, &held, HOUR_MS);
  struct nx_store_item item = how % 5 ? waiting("again") : finished("done");
  item.wake_ms = how % 2 ? now_ms() : 0;
  if (!status && how % 7) return commit(handle, &held, item);
  release(handle, &held);
  return status;
}

static int storm_step(struct racer *racer, unsigned step, unsigned *seed) {
  struct nx_suspension_id id = id_of((unsigned)rand_r(seed) % STORM_IDS), ids[4];
  struct nx_store_stats stats;
  struct nx_store_item item = waiting("storm");
  switch (rand_r(seed) % 9) {
  case 0:
    item.expires_ms = now_ms() + step % 8;
    return create(racer->handle, id_of((racer->number + 1) * 1000 + step), item);
  case 1: return read_into(racer->handle, id, NULL);
  case 2: return rand_r(seed) % 4 ? 0 : cancel(racer->handle, id);
  case 3: sweep(racer->handle); return 0;
  case 4: racer->handle->ops->due(racer->handle, now_ms(), ids, COUNT(ids)); return 0;
  case 5: racer->handle->ops->read_stats(racer->handle, &stats); return 0;
  case 6: return keep_source(racer->handle, suite_source_hash, suite_source, now_ms());
  default: return lease_and_end(racer->handle, id, (unsigned)rand_r(seed));
  }
}

static void *storm(void *arg) {
  struct racer *racer = arg;
  unsigned seed = racer->number;
  racer->status = 0;
  pthread_barrier_wait(racer->start);
  for (unsigned step = 0; step < STORM_STEPS && is_in_header(racer->status); step++)
    racer->status = storm_step(racer, step, &seed);
  return NULL;
}

static void a_storm_of_all_calls(void **state) {
  struct racer racers[THREADS];
  for (uint64_t i = 0; i < STORM_IDS; i++) assert_int_equal(create(store, id_of(i), waiting("storm")), 0);
  race(racers, THREADS, storm);
  for (int i = 0; i < THREADS; i++) assert_true(is_in_header(racers[i].status));
  for (uint64_t i = 0; i < STORM_IDS; i++) assert_int_equal(read_into(store, id_of(i), NULL), 0);
}

int suite_run_races(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
  const struct CMUnitTest races[] = {
    T(exactly_one_gets_the_lease),
    T(an_item_is_finished_or_cancelled),
    T(a_commit_does_not_undo_a_cancel),
    T(no_commit_is_lost),
    T(a_storm_of_all_calls),
  };
#undef T
  return cmocka_run_group_tests(races, NULL, NULL);
}
