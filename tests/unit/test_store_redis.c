/* SPDX-License-Identifier: Apache-2.0
 * The Redis store: the suite, and what a network and a server of its own bring with it. Starts a redis-server on a free
 * port with a directory of its own, and ends it. */
#include "store_suite_internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <hiredis/hiredis.h>

/* ---- The server -------------------------------------------------------------------------------------------------- */

static struct nx_suspend_store address = {.kind = NX_SUSPEND_REDIS, .redis_host = "127.0.0.1", .redis_db = 3};
static char directory[] = "/tmp/nexus-test-redis-XXXXXX";
static pid_t server;

static uint16_t find_free_port(void) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof any;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&any, size) || getsockname(fd, (struct sockaddr *)&any, &size)) abort();
  close(fd);
  return ntohs(any.sin_port);
}

static void run_server(void) {
  char port[8];
  snprintf(port, sizeof port, "%u", address.redis_port);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int null = open("/dev/null", O_RDWR);
  dup2(null, STDOUT_FILENO);
  /* What was answered is on the disk: the tests kill it. */
  execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", "",
         "--appendonly", "yes", "--appendfsync", "always", (char *)NULL);
  _exit(127);
}

static redisContext *try_connect(void) {
  redisContext *context = redisConnect(address.redis_host, address.redis_port);
  redisReply *reply = context && !context->err ? redisCommand(context, "SELECT %u", address.redis_db) : NULL;
  bool ready = reply && reply->type == REDIS_REPLY_STATUS;
  freeReplyObject(reply);
  if (ready) return context;
  if (context) redisFree(context);
  return NULL;
}

/* Not while it still loads its data. */
static bool answers(void) {
  redisContext *context = try_connect();
  if (!context) return false;
  redisReply *reply = redisCommand(context, "DBSIZE");
  bool ready = reply && reply->type == REDIS_REPLY_INTEGER;
  freeReplyObject(reply);
  redisFree(context);
  return ready;
}

static void start_server(void) {
  server = fork();
  assert_true(server >= 0);
  if (!server) run_server();
  eventually(answers());
}

static void kill_server(void) {
  assert_int_equal(kill(server, SIGKILL), 0);
  assert_int_equal(waitpid(server, NULL, 0), server);
}

/* A command of the test's own. Returns the reply's integer, or the length of its string, or 0. */
static long long tell(const char *format, ...) {
  va_list arguments;
  redisContext *context = try_connect();
  assert_non_null(context);
  va_start(arguments, format);
  redisReply *reply = redisvCommand(context, format, arguments);
  va_end(arguments);
  assert_non_null(reply);
  if (reply->type == REDIS_REPLY_ERROR) fail_msg("%s: %s", format, reply->str);
  long long result = reply->type == REDIS_REPLY_INTEGER ? reply->integer : (long long)reply->len;
  freeReplyObject(reply);
  redisFree(context);
  return result;
}

/* Returns when its subscriber listens. */
static struct nx_store *open_again(void) {
  struct nx_store *opened;
  struct nx_error err = {0};
  assert_int_equal(nx_store_open_redis(&opened, &address, &err), 0);
  eventually(opened->ops->handlers_version(opened) > 0);
  return opened;
}

static struct nx_store *open_empty(void) {
  tell("FLUSHALL");
  return open_again();
}

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

/* ---- Hostile and full servers ------------------------------------------------------------------------------------ */

#define ITEM_1 "nexus:{store}:item:a5170000000000000000000000000001"

static void other_types_under_our_names(void **state) {
  struct nx_store_lease held;
  struct nx_suspension_id ids[4];
  struct nx_stored_handler handler = {0};
  struct nx_error err = {0};
  tell("SET " ITEM_1 " rubbish");
  assert_int_equal(read_into(store, id_of(1), NULL), -NX_ERR_INVALID);
  assert_int_equal(lease(store, id_of(1), &held), -NX_ERR_INVALID);
  assert_int_equal(cancel(store, id_of(1)), -NX_ERR_INVALID);
  assert_int_equal(create(store, id_of(1), waiting("waits")), -NX_ERR_INVALID);
  tell("ZADD nexus:{store}:wake 1 a5170000000000000000000000000001 2 short");
  assert_int_equal(store->ops->due(store, now_ms(), ids, COUNT(ids)), 0);
  assert_int_equal(tell("ZCARD nexus:{store}:wake"), 0);
  tell("SET nexus:{store}:wake rubbish");
  tell("SET nexus:{store}:waiting rubbish");
  tell("SET nexus:{store}:handlers rubbish");
  assert_int_equal(store->ops->due(store, now_ms(), ids, COUNT(ids)), 0);
  sweep(store);
  assert_int_equal(create(store, id_of(2), waiting("waits")), -NX_ERR_INVALID);
  assert_int_equal(store->ops->get_handler(store, "cart", &handler, &err), -NX_ERR_INVALID);
  assert_int_equal(store->ops->remove_handler(store, "cart", &err), -NX_ERR_INVALID);
}

static void rubbish_in_our_types(void **state) {
  static const char *const items[] = {
    "state waiting", "state dreaming expires 1 wake 0 bytes x", "state waiting expires soon wake 0 bytes x",
    "state waiting expires -1 wake 0 bytes x", "state waiting expires 99999999999999999999 wake 0 bytes x",
    "state waiting expires 1 wake 0", "bytes x", "state waiting token x lease_until y wake z expires 1 bytes x"};
  static const char *const handlers[] = {"", "x", "0 0 {}"};
  struct nx_error err = {0};
  for (size_t i = 0; i < COUNT(items); i++) {
    char command[200];
    struct nx_store_lease held;
    snprintf(command, sizeof command, "HSET " ITEM_1 " %s", items[i]);
    tell("DEL " ITEM_1);
    tell(command);
    assert_int_equal(read_into(store, id_of(1), NULL), -NX_ERR_INVALID);
    int status = lease(store, id_of(1), &held);
    assert_true(status == -NX_ERR_INVALID || status == -NX_ERR_NOT_FOUND);
  }
  for (size_t i = 0; i < COUNT(handlers); i++) {
    struct nx_stored_handler handler = {0};
    tell("HSET nexus:{store}:handlers cart %s", handlers[i]);
    assert_int_equal(store->ops->get_handler(store, "cart", &handler, &err), -NX_ERR_INVALID);
  }
  assert_int_equal(store->ops->remove_handler(store, "cart", &err), 0);
}

/* Whoever publishes on our channel gets no more than a new version. */
static void rubbish_on_the_channel(void **state) {
  uint64_t before = store->ops->handlers_version(store);
  tell("PUBLISH nexus:{store}:changed:3 ../../etc/passwd");
  assert_int_equal(tell("PUBLISH nexus:{store}:changed:3 0123456789abcdef"), 2);
  eventually(store->ops->handlers_version(store) != before);
  eventually(tell("LLEN nexus:{store}:heard:0123456789abcdef") == 2);
  assert_int_equal(tell("DBSIZE"), 2); /* the list, and the source of the suite */
}

static void a_full_server_refuses_what_is_new(void **state) {
  struct nx_refusal refused = {0};
  struct nx_error err = {0};
  struct nx_store_lease held;
  struct nx_suspension_id id = id_of(3);
  struct nx_store_item item = waiting("waits");
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(create(store, id_of(2), waiting("waits")), 0);
  tell("CONFIG SET maxmemory 1");
  int status = store->ops->create(store, &id, &item, &refused, &err);
  int leased = lease(store, id_of(1), &held), cancelled = cancel(store, id_of(2));
  release(store, &held);
  tell("CONFIG SET maxmemory 0");
  assert_int_equal(status, -NX_ERR_OVERLOADED);
  assert_string_equal(refused.layer, "store");
  assert_int_equal(refused.requested_bytes, item.size);
  assert_int_equal(leased, 0);
  assert_int_equal(cancelled, 0);
}

/* ---- Size, login, handlers --------------------------------------------------------------------------------------- */

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
  assert_int_equal(commit(other, &held, item_of(NX_STORED_FINISHED, bytes, BYTES)), 0);
  nx_buf_deinit(&out.bytes);
  free(bytes);
  assert_int_equal(create(store, id_of(2), item_of(NX_STORED_WAITING, "", ((size_t)512 << 20) + 1)), -NX_ERR_TOO_LARGE);
}

static struct nx_store *open_as(const char *user, const char *password) {
  struct nx_store *opened;
  struct nx_error err = {0};
  struct nx_suspend_store as = address;
  snprintf(as.redis_user, sizeof as.redis_user, "%s", user);
  snprintf(as.redis_password, sizeof as.redis_password, "%s", password);
  assert_int_equal(nx_store_open_redis(&opened, &as, &err), 0);
  return opened;
}

static void assert_login(const char *user, const char *password, int expected) {
  struct nx_store *opened = open_as(user, password);
  struct nx_stored out = {0};
  struct nx_error err = {0};
  struct nx_suspension_id id = id_of(1);
  assert_int_equal(opened->ops->read(opened, &id, &out, &err), expected);
  assert_null(strstr(err.text, "hunter"));
  opened->ops->close(opened);
}

static void logins(void **state) {
  tell("ACL SETUSER joe on >hunter2 ~nexus:* &nexus:* +@all");
  tell("ACL SETUSER jim on >hunter2 ~other:* +@all");
  assert_login("joe", "hunter2", -NX_ERR_NOT_FOUND);
  assert_login("joe", "hunter3", -NX_ERR_UNAVAILABLE);
  assert_login("", "hunter2", -NX_ERR_UNAVAILABLE);
  assert_login("jim", "hunter2", -NX_ERR_UNAVAILABLE); /* his keys are others */
  tell("ACL DELUSER joe jim");
}

static int put_handler(struct nx_store *handle, const char *name, const uint8_t *hash) {
  struct nx_error err = {0};
  struct nx_stored_handler handler = {0};
  memcpy(handler.source_hash, hash, NX_HASH_BYTES);
  return handle->ops->put_handler(handle, name, &handler, &err);
}

static void a_change_has_been_heard_when_the_call_returns(void **state) {
  struct nx_error err = {0};
  for (int i = 0; i < 20; i++) {
    uint64_t before = other->ops->handlers_version(other);
    if (i % 2)
      assert_int_equal(store->ops->remove_handler(store, "cart", &err), 0);
    else
      assert_int_equal(put_handler(store, "cart", suite_source_hash), 0);
    assert_true(other->ops->handlers_version(other) != before);
  }
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
  assert_int_equal(store->ops->remove_handler(store, "cart", &err), 0);
  assert_int_equal(tell("PTTL " SUITE_SOURCE), -1);
  assert_int_equal(store->ops->remove_handler(other, "basket", &err), 0);
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
    T(one_of_32_wins),
    T(other_types_under_our_names),
    T(rubbish_in_our_types),
    T(rubbish_on_the_channel),
    T(a_full_server_refuses_what_is_new),
    T(large_items),
    T(logins),
    T(a_change_has_been_heard_when_the_call_returns),
    T(a_lost_connection_counts_as_a_change),
    T(sources_of_handlers_do_not_expire),
  };
#undef T
  return store_suite_run(&(struct store_factory){open_empty, open_again}) + cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
  enum { SKIPPED = 77 }; /* as meson has it */
  if (system("command -v redis-server >/dev/null 2>&1")) {
    print_message("redis-server is not installed: the Redis store was not tested\n");
    return SKIPPED;
  }
  signal(SIGPIPE, SIG_IGN); /* as nexus does */
  if (!mkdtemp(directory)) return 1;
  address.redis_port = find_free_port();
  start_server();
  int failed = run_all();
  kill_server();
  char command[sizeof directory + 8];
  snprintf(command, sizeof command, "rm -r %s", directory);
  if (system(command)) return 1;
  return failed;
}
