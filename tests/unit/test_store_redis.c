/* SPDX-License-Identifier: Apache-2.0
 * The Redis store: the suite, servers that come and go, what is sent twice, large items, handlers over replicas. */
#include "redis_support.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- A server that comes and goes -------------------------------------------------------------------------------- */

static void a_restart_loses_nothing(void **state) {
  struct nx_store_lease held, refused;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(create(store, id_of(2), waiting("waits")), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  kill_server();
  start_server();
  /* All connections are dead, and nobody notices. */
  assert_int_equal(lease(other, id_of(1), &refused), -NX_ERR_BUSY);
  assert_int_equal(commit(store, &held, finished("done")), 0);
  assert_item(other, id_of(1), NX_STORED_FINISHED, "done");
  assert_item(store, id_of(2), NX_STORED_WAITING, "waits");
}

static void what_does_not_answer_is_named(void **state) {
  char expected[64];
  struct nx_error err = {0};
  struct nx_suspension_id id = id_of(1);
  struct nx_stored out = {0};
  kill_server();
  for (int i = 0; i < 20; i++) assert_int_equal(read_into(store, id, NULL), -NX_ERR_UNAVAILABLE);
  store->ops->read(store, &id, &out, &err);
  snprintf(expected, sizeof expected, "the Redis at 127.0.0.1:%u does not answer: ", address.redis_port);
  assert_non_null(strstr(err.text, expected));
  assert_non_null(strstr(err.text, "; suspended executions are unavailable until it is back"));
  start_server();
  eventually(read_into(store, id, NULL) == -NX_ERR_NOT_FOUND);
  eventually(read_into(other, id, NULL) == -NX_ERR_NOT_FOUND);
}

static void a_store_opens_without_a_server(void **state) {
  struct nx_store *early;
  struct nx_error err = {0};
  struct nx_suspension_id due_ids[2];
  kill_server();
  assert_int_equal(nx_store_open_redis(&early, &address, &err), 0);
  assert_int_equal(early->ops->due(early, now_ms(), due_ids, 2), 0);
  sweep(early);
  assert_int_equal(create(early, id_of(1), waiting("waits")), -NX_ERR_UNAVAILABLE);
  start_server();
  eventually(create(early, id_of(1), waiting("waits")) == 0);
  eventually(early->ops->handlers_version(early) > 0);
  early->ops->close(early);
}

enum { CALLERS = 8 };

struct caller {
  pthread_t thread;
  struct nx_store *handle;
  uint64_t number;
  _Atomic unsigned calls; /* that succeeded */
  _Atomic int failure;
};

static int call_once(struct caller *caller, unsigned turn) {
  struct nx_store_lease held;
  struct nx_suspension_id id = id_of(caller->number * 1000000 + turn);
  int status = create(caller->handle, id, waiting("waits"));
  if (!status) status = lease(caller->handle, id, &held);
  if (!status) status = commit(caller->handle, &held, finished("done"));
  return status;
}

static void *call_until_failure(void *argument) {
  struct caller *caller = argument;
  int status = 0;
  for (unsigned turn = 0; !status; turn++) {
    status = call_once(caller, turn);
    if (!status) atomic_fetch_add(&caller->calls, 1);
  }
  atomic_store(&caller->failure, status);
  return NULL;
}

static bool all_have_called(struct caller *callers) {
  for (int i = 0; i < CALLERS; i++)
    if (!atomic_load(&callers[i].calls)) return false;
  return true;
}

static void lose_server(void (*lose)(void)) {
  struct caller callers[CALLERS] = {0};
  for (int i = 0; i < CALLERS; i++) {
    callers[i].handle = i % 2 ? other : store;
    callers[i].number = (uint64_t)i;
    assert_int_equal(pthread_create(&callers[i].thread, NULL, call_until_failure, &callers[i]), 0);
  }
  eventually(all_have_called(callers));
  lose();
  for (int i = 0; i < CALLERS; i++) {
    pthread_join(callers[i].thread, NULL);
    assert_int_equal(callers[i].failure, -NX_ERR_UNAVAILABLE);
  }
}

static void a_server_killed_in_the_middle_of_calls(void **state) {
  lose_server(kill_server);
  start_server();
  eventually(read_into(store, id_of(99), NULL) == -NX_ERR_NOT_FOUND);
  /* What was answered is there: each caller's first item. */
  for (uint64_t i = 0; i < CALLERS; i++) {
    eventually(read_into(other, id_of(i * 1000000), NULL) == 0);
    assert_item(other, id_of(i * 1000000), NX_STORED_FINISHED, "done");
  }
}

static void stop_server(void) { kill(server, SIGSTOP); }

static void a_server_that_hangs(void **state) {
  lose_server(stop_server);
  kill(server, SIGCONT);
  eventually(read_into(store, id_of(99), NULL) == -NX_ERR_NOT_FOUND);
  eventually(read_into(other, id_of(99), NULL) == -NX_ERR_NOT_FOUND);
}

static void scripts_may_be_forgotten(void **state) {
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  tell("SCRIPT FLUSH");
  assert_int_equal(lease(store, id_of(1), &held), 0);
  tell("SCRIPT FLUSH");
  assert_int_equal(commit(store, &held, waiting("again")), 0);
  assert_item(other, id_of(1), NX_STORED_WAITING, "again");
}

/* ---- What is sent twice ------------------------------------------------------------------------------------------ */

static void a_commit_may_be_repeated(void **state) {
  struct nx_store_lease held, next;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(commit(store, &held, waiting("second")), 0);
  assert_int_equal(commit(store, &held, waiting("second")), 0);
  assert_int_equal(lease(other, id_of(1), &next), 0);
  assert_int_equal(commit(store, &held, waiting("second")), 0); /* and takes nothing from who came after */
  assert_int_equal(commit(other, &next, finished("third")), 0);
  assert_int_equal(commit(store, &held, waiting("second")), -NX_ERR_GONE);
  assert_item(store, id_of(1), NX_STORED_FINISHED, "third");
}

static enum nx_stored_state state_of(struct nx_store *handle, struct nx_suspension_id id) {
  struct nx_stored out = {0};
  int status = read_into(handle, id, &out);
  nx_buf_deinit(&out.bytes);
  return status ? NX_STORED_WAITING : out.state;
}

/* The server is stopped with the commit on its way: it is executed, but nobody hears of it. */
static void a_commit_whose_answer_was_lost(void **state) {
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  stop_server();
  assert_int_equal(commit(store, &held, finished("done")), -NX_ERR_UNAVAILABLE);
  kill(server, SIGCONT);
  eventually(state_of(other, id_of(1)) == NX_STORED_FINISHED);
  eventually(read_into(store, id_of(1), NULL) == 0);
  assert_int_equal(commit(store, &held, finished("done")), 0);
}

enum { RACERS = 32 };

struct racer {
  pthread_t thread;
  pthread_barrier_t *start;
  struct nx_store *handle;
  bool won;
  int status;
};

static void *lease_and_commit(void *argument) {
  struct racer *racer = argument;
  struct nx_store_lease held;
  pthread_barrier_wait(racer->start);
  racer->status = lease(racer->handle, id_of(1), &held);
  racer->won = !racer->status && !commit(racer->handle, &held, finished("once"));
  return NULL;
}

static void one_of_32_wins(void **state) {
  struct racer racers[RACERS] = {0};
  pthread_barrier_t start;
  unsigned winners = 0;
  pthread_barrier_init(&start, NULL, RACERS);
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  for (int i = 0; i < RACERS; i++) {
    racers[i].start = &start;
    racers[i].handle = i % 2 ? other : store;
    assert_int_equal(pthread_create(&racers[i].thread, NULL, lease_and_commit, &racers[i]), 0);
  }
  for (int i = 0; i < RACERS; i++) {
    pthread_join(racers[i].thread, NULL);
    winners += racers[i].won;
    if (!racers[i].won) assert_true(racers[i].status == -NX_ERR_BUSY || racers[i].status == -NX_ERR_GONE);
  }
  pthread_barrier_destroy(&start);
  assert_int_equal(winners, 1);
  assert_item(store, id_of(1), NX_STORED_FINISHED, "once");
}

/* ---- Large items, handlers --------------------------------------------------------------------------------------- */

static size_t allocated_bytes(void) {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

static void large_items(void **state) {
  enum { BYTES = 27 << 20 };
  struct nx_store_lease held;
  struct nx_stored out = {0};
  uint8_t *bytes = malloc(BYTES);
  assert_non_null(bytes);
  for (size_t i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 13);
  assert_int_equal(create(store, id_of(1), item_of(NX_STORED_WAITING, bytes, BYTES)), 0);
  assert_int_equal(lease_into(other, id_of(1), HOUR_MS, &held, &out), 0);
  assert_bytes(&out.bytes, bytes, BYTES);
  nx_buf_deinit(&out.bytes);
  assert_true(allocated_bytes() < BYTES + (4 << 20)); /* the idle connection keeps nothing of it */
  assert_int_equal(commit(other, &held, item_of(NX_STORED_FINISHED, bytes, BYTES)), 0);
  free(bytes);
  assert_int_equal(create(store, id_of(2), item_of(NX_STORED_WAITING, "", ((size_t)512 << 20) + 1)), -NX_ERR_TOO_LARGE);
}

static int put_handler(struct nx_store *handle, const char *name, const uint8_t *hash) {
  struct nx_error err = {0};
  struct nx_stored_handler handler = {0};
  memcpy(handler.source_name, hash, NX_HASH_BYTES);
  return handle->ops->put_handler(handle, name, &handler, NX_HANDLER_ANY, &err);
}

static void a_change_has_been_heard_when_the_call_returns(void **state) {
  struct nx_error err = {0};
  for (int i = 0; i < 20; i++) {
    uint64_t before = other->ops->handlers_version(other);
    if (i % 2)
      assert_int_equal(store->ops->remove_handler(store, "cart", NX_HANDLER_ANY, &err), 0);
    else
      assert_int_equal(put_handler(store, "cart", suite_source_hash), 0);
    assert_true(other->ops->handlers_version(other) != before);
  }
}

static void who_does_not_acknowledge_is_not_waited_for(void **state) {
  redisContext *silent = try_connect();
  assert_non_null(silent);
  redisReply *reply = redisCommand(silent, "SUBSCRIBE nexus:{store}:changed:%u", address.redis_db);
  assert_non_null(reply);
  freeReplyObject(reply);
  assert_int_equal(put_handler(store, "cart", suite_source_hash), 0);
  redisFree(silent);
}

static void a_lost_connection_counts_as_a_change(void **state) {
  uint64_t before = store->ops->handlers_version(store);
  tell("CLIENT KILL TYPE pubsub");
  eventually(store->ops->handlers_version(store) != before);
  assert_int_equal(put_handler(other, "cart", suite_source_hash), 0);
}

/* The suite's source: 5e010203, then zeros. */
#define SUITE_SOURCE "nexus:{store}:source:5e01020300000000000000000000000000000000000000000000000000000000"

static void sources_of_handlers_do_not_expire(void **state) {
  static const uint8_t unknown[NX_HASH_BYTES] = {1};
  struct nx_error err = {0};
  assert_true(tell("PTTL " SUITE_SOURCE) > 0);
  assert_int_equal(put_handler(store, "cart", unknown), -NX_ERR_NOT_FOUND);
  assert_int_equal(put_handler(store, "cart", suite_source_hash), 0);
  assert_int_equal(put_handler(store, "basket", suite_source_hash), 0);
  assert_int_equal(put_handler(other, "cart", suite_source_hash), 0); /* again */
  assert_int_equal(tell("PTTL " SUITE_SOURCE), -1);
  assert_int_equal(keep_source(store, suite_source_hash, suite_source, now_ms() + 2 * HOUR_MS), 0);
  assert_int_equal(store->ops->remove_handler(store, "cart", NX_HANDLER_ANY, &err), 0);
  assert_int_equal(tell("PTTL " SUITE_SOURCE), -1);
  assert_int_equal(store->ops->remove_handler(other, "basket", NX_HANDLER_ANY, &err), 0);
  assert_true(tell("PTTL " SUITE_SOURCE) > (long long)HOUR_MS);
}

static int run_all(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
  const struct CMUnitTest tests[] = {
    T(a_restart_loses_nothing),
    T(what_does_not_answer_is_named),
    T(a_store_opens_without_a_server),
    T(a_server_killed_in_the_middle_of_calls),
    T(a_server_that_hangs),
    T(scripts_may_be_forgotten),
    T(a_commit_may_be_repeated),
    T(a_commit_whose_answer_was_lost),
    T(one_of_32_wins),
    T(large_items),
    T(a_change_has_been_heard_when_the_call_returns),
    T(who_does_not_acknowledge_is_not_waited_for),
    T(a_lost_connection_counts_as_a_change),
    T(sources_of_handlers_do_not_expire),
  };
#undef T
  return store_suite_run(&redis_factory) + cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) { return with_redis(run_all); }
