/* SPDX-License-Identifier: Apache-2.0
 * The Redis store against what a server may hold or say: foreign data, rubbish, no room, no Redis at all. */
#include "redis_support.h"

#include <pthread.h>

/* ---- What is kept there ------------------------------------------------------------------------------------------ */

#define ITEM_1 "nexus:{store}:item:a5170000000000000100000000000000"

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
  tell("ZADD nexus:{store}:wake 1 a5170000000000000100000000000000 2 short");
  assert_int_equal(store->ops->due(store, now_ms(), ids, COUNT(ids)), 0);
  assert_int_equal(tell("ZCARD nexus:{store}:wake"), 0);
  tell("SET nexus:{store}:wake rubbish");
  tell("SET nexus:{store}:waiting rubbish");
  tell("SET nexus:{store}:handlers rubbish");
  assert_int_equal(store->ops->due(store, now_ms(), ids, COUNT(ids)), 0);
  sweep(store);
  assert_int_equal(create(store, id_of(2), waiting("waits")), -NX_ERR_INVALID);
  assert_int_equal(store->ops->get_handler(store, "cart", &handler, &err), -NX_ERR_INVALID);
  assert_int_equal(store->ops->remove_handler(store, "cart", NX_HANDLER_ANY, &err), -NX_ERR_INVALID);
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
  assert_int_equal(store->ops->remove_handler(store, "cart", NX_HANDLER_ANY, &err), 0);
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

/* Says one thing to everybody, and another when the script is called; then no more. */
struct impostor {
  const char *says, *answers; /* `answers` may be NULL */
  int fd;                     /* it listens there, or is connected */
  pthread_t thread;
};

static void *talk(void *argument) {
  struct impostor *impostor = argument;
  char heard[1 << 16];
  size_t len = 0;
  send(impostor->fd, impostor->says, strlen(impostor->says), MSG_NOSIGNAL);
  if (!impostor->answers) shutdown(impostor->fd, SHUT_WR);
  for (ssize_t got; len < sizeof heard && (got = read(impostor->fd, heard + len, sizeof heard - len)) > 0;) {
    len += (size_t)got;
    if (!impostor->answers || !memmem(heard, len, "EVALSHA", 7)) continue;
    send(impostor->fd, impostor->answers, strlen(impostor->answers), MSG_NOSIGNAL);
    shutdown(impostor->fd, SHUT_WR);
    impostor->answers = NULL;
  }
  close(impostor->fd);
  return NULL;
}

/* Each connection gets a thread. */
static void *receive(void *argument) {
  const struct impostor *listening = argument;
  struct impostor talking[8];
  size_t count = 0;
  for (int fd; count < COUNT(talking) && (fd = accept(listening->fd, NULL, NULL)) >= 0; count++) {
    talking[count] = *listening;
    talking[count].fd = fd;
    if (pthread_create(&talking[count].thread, NULL, talk, &talking[count])) abort();
  }
  for (size_t i = 0; i < count; i++) pthread_join(talking[i].thread, NULL);
  return NULL;
}

static int read_from_impostor(const char *says, const char *answers) {
  struct impostor impostor = {.says = says, .answers = answers};
  struct nx_suspend_store at = {.kind = NX_SUSPEND_REDIS, .redis_host = "127.0.0.1"};
  struct nx_store *opened;
  struct nx_error err = {0};
  impostor.fd = bind_any(&at.redis_port);
  assert_int_equal(listen(impostor.fd, 16), 0);
  assert_int_equal(pthread_create(&impostor.thread, NULL, receive, &impostor), 0);
  assert_int_equal(nx_store_open_redis(&opened, &at, &err), 0);
  int status = read_into(opened, id_of(1), NULL);
  opened->ops->close(opened);
  shutdown(impostor.fd, SHUT_RDWR);
  pthread_join(impostor.thread, NULL);
  close(impostor.fd);
  return status;
}

static void servers_that_are_no_redis(void **state) {
#define LOADED "$40\r\n0123456789012345678901234567890123456789\r\n" /* SCRIPT LOAD */
  static const struct { const char *says, *answers; enum nx_error_code code; } impostors[] = {
    {"", NULL, NX_ERR_UNAVAILABLE},
    {"HTTP/1.1 400 Bad Request\r\n\r\n", NULL, NX_ERR_UNAVAILABLE},
    {"-ERR go away\r\n", NULL, NX_ERR_UNAVAILABLE},
    {":1\r\n", NULL, NX_ERR_UNAVAILABLE},
    {"*-5\r\n", NULL, NX_ERR_UNAVAILABLE},
    {"$99999999999999999999\r\n", NULL, NX_ERR_UNAVAILABLE},
    {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", NULL, NX_ERR_UNAVAILABLE},
    {"$3\r\nsha\r\n", NULL, NX_ERR_UNAVAILABLE},
    {LOADED, NULL, NX_ERR_UNAVAILABLE},
    {LOADED LOADED, "*1\r\n$4\r\nnone\r\n", NX_ERR_UNAVAILABLE}, /* it talks too much */
    {LOADED, "*1\r\n$4\r\nnone\r\n", NX_ERR_NOT_FOUND},
    {LOADED, "$-1\r\n", NX_ERR_INVALID},
    {LOADED, "*0\r\n", NX_ERR_INVALID},
    {LOADED, "*-1\r\n", NX_ERR_INVALID},
    {LOADED, "*1\r\n$2\r\nok\r\n", NX_ERR_INVALID},
    {LOADED, "*1\r\n$5\r\nmaybe\r\n", NX_ERR_INVALID},
    {LOADED, "*5\r\n$2\r\nok\r\n:1\r\n:1\r\n:1\r\n:1\r\n", NX_ERR_INVALID},
    {LOADED, "*5\r\n$2\r\nok\r\n$7\r\nwaiting\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n", NX_ERR_INVALID},
    {LOADED, "*5\r\n$2\r\nok\r\n$7\r\nwaiting\r\n$1\r\n1\r\n$1\r\n1\r\n$9999999\r\nx", NX_ERR_UNAVAILABLE},
  };
#undef LOADED
  for (size_t i = 0; i < COUNT(impostors); i++) {
    int status = read_from_impostor(impostors[i].says, impostors[i].answers);
    if (status != -(int)impostors[i].code) fail_msg("%d from impostor %zu", status, i);
  }
}

/* ---- Logins ------------------------------------------------------------------------------------------------------ */

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

static int run_all(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
  const struct CMUnitTest tests[] = {
    T(other_types_under_our_names),
    T(rubbish_in_our_types),
    T(rubbish_on_the_channel),
    T(a_full_server_refuses_what_is_new),
    T(servers_that_are_no_redis),
    T(logins),
  };
#undef T
  factory = &redis_factory;
  return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) { return with_redis(run_all); }
