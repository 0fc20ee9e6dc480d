/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP server over time: slow and vanishing peers, parked exchanges, threads that come and go, the
 * end, and no memory. No order of events may make it hang. */
#include "http_support.h"

/* --- failing allocations (not under sanitizers, which have an allocator of their own) ------------------------ */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAN_FAIL_ALLOCATIONS 0
static _Atomic long allocations_left = -1;
#else
#define CAN_FAIL_ALLOCATIONS 1
static _Atomic long allocations_left = -1; /* negative: none fails; at 0 that one fails */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
static bool fails(void) {
  return atomic_load(&allocations_left) >= 0 && atomic_fetch_sub(&allocations_left, 1) == 0;
}
void *malloc(size_t bytes) { return fails() ? NULL : __libc_malloc(bytes); }
void *calloc(size_t count, size_t bytes) { return fails() ? NULL : __libc_calloc(count, bytes); }
void *realloc(void *old, size_t bytes) { return fails() ? NULL : __libc_realloc(old, bytes); }
#endif

/* --- slow peers ---------------------------------------------------------------------------------------------- */

static void test_slow_reader(void **state) {
  (void)state;
  start(defaults());
  int fd = try_dial(4 * KIB), other = dial();
  say(fd, GET("/big?4194304") GET("/after"));
  struct reply reply = {.body = malloc(4 * MIB)};
  size_t head = 0;
  for (; head < 4 || memcmp(reply.head + head - 4, "\r\n\r\n", 4); head++)
    assert_true(read_exactly(fd, reply.head + head, 1));
  for (size_t at = 0; at < 4 * MIB; at += 64 * KIB) {
    assert_true(read_exactly(fd, reply.body + at, 64 * KIB));
    say(other, GET("/meanwhile"));
    expect(other, 200, "/meanwhile");
  }
  for (size_t i = 0; i < 4 * MIB; i++)
    if (reply.body[i] != (char)(i * 7 + i / 4096)) fail_msg("byte %zu", i);
  free(reply.body);
  expect(fd, 200, "/after");
  close(fd);
  close(other);
  EVENTUALLY(stats().connections == 0);
  assert_true(http_buffers.charged < 128 * KIB); /* of 4 MiB, nothing is kept */
  stop();
}

static void test_write_timeout(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.write_timeout_ms = 100;
  start(options);
  int fd = try_dial(4 * KIB);
  say(fd, GET("/big?4194304"));
  EVENTUALLY(atomic_load(&app->finished) == 1);
  EVENTUALLY(stats().connections == 0);
  close(fd);
  stop();
}

static void test_request_timeouts(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.header_timeout_ms = options.body_timeout_ms = options.idle_timeout_ms = 100;
  start(options);
  static const struct { const char *said; int status; } rows[] = {
    {"", 0}, {"G", 408}, {"\r\n", 408}, {"GET / HTTP/1.1\r\nHost: a\r\n", 408},
    {POST "Content-Length: 5\r\n\r\n", 408}, {POST "Content-Length: 5\r\n\r\nab", 408}, {CHUNKED "3\r\na", 408},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int fresh = dial(), used = dial();
    say(fresh, rows[i].said);
    say(used, GET("/x"));
    expect(used, 200, "/x");
    say(used, rows[i].said);
    assert_int_equal(status_of(fresh), rows[i].status);
    assert_int_equal(status_of(used), rows[i].status);
    assert_true(ended_in_order(fresh));
    assert_true(ended_in_order(used));
    close(fresh);
    close(used);
  }
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* A trickle of bytes does not extend the time for a request. */
static void test_slowloris(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.header_timeout_ms = 300;
  start(options);
  int fd = dial();
  say(fd, "GET / HTTP/1.1\r\nX: ");
  uint64_t until = nx_clock_ns() + LONG_MS * NX_NS_PER_MS;
  while (!readable(fd, 5)) {
    assert_true(nx_clock_ns() < until);
    try_say(fd, "x", 1);
  }
  assert_int_equal(status_of(fd), 408);
  close(fd);
  stop();
}

/* The refused client goes on sending, and must find the answer all the same. */
static void test_answer_before_reset(void **state) {
  (void)state;
  start(defaults());
  char *junk = filled("", 400 * KIB, "");
  for (int i = 0; i < 20; i++) {
    int fd = dial();
    say(fd, POST "Content-Length: 100000000\r\n\r\n");
    try_say(fd, junk, 400 * KIB);
    usleep(1000);
    assert_int_equal(status_of(fd), 413);
    assert_true(ended_in_order(fd));
    close(fd);
  }
  free(junk);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* --- parked exchanges ---------------------------------------------------------------------------------------- */

static void test_parked(void **state) {
  (void)state;
  start(defaults());
  int fds[64];
  for (int i = 0; i < 64; i++) {
    char request[128];
    fds[i] = dial();
    sprintf(request, "POST /park HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" GET("/behind"), i);
    say(fds[i], request);
  }
  EVENTUALLY(parked() == 64);
  for (int i = 0; i < 64; i += 2) say(fds[i], GET("/later")); /* events while nobody serves the connection */
  int other = dial();
  say(other, GET("/x")); /* and no thread is held */
  expect(other, 200, "/x");
  assert_int_equal(unpark(app), 64);
  for (int i = 0; i < 64; i++) {
    char body[16];
    sprintf(body, "%02d", i);
    expect(fds[i], 200, body);
    expect(fds[i], 200, "/behind");
    if (i % 2 == 0) expect(fds[i], 200, "/later");
    close(fds[i]);
  }
  close(other);
  EVENTUALLY(stats().connections == 0);
  stop();
}

static void test_parked_peer_leaves(void **state) {
  (void)state;
  start(defaults());
  for (int i = 0; i < 200; i++) {
    int fd = dial();
    say(fd, GET("/park"));
    EVENTUALLY(parked() == 1);
    struct linger reset = {.l_onoff = 1};
    if (i % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (i % 3 == 0) {
      shutdown(fd, SHUT_WR);
      assert_int_equal(unpark(app), 1);
      expect(fd, 200, "parked");
      close(fd);
    } else {
      close(fd);
      assert_int_equal(unpark(app), 1);
    }
  }
  EVENTUALLY(stats().connections == 0);
  assert_int_equal(atomic_load(&app->finished), 200);
  stop();
}

/* One that is ready before `handle` has even returned PARKED may be taken up by another worker at once. */
static _Atomic bool unparker_stops;
static void *unparker(void *argument) {
  (void)argument;
  while (!atomic_load(&unparker_stops)) unpark(app);
  return NULL;
}

static void test_parked_race(void **state) {
  (void)state;
  start(defaults());
  pthread_t thread;
  atomic_store(&unparker_stops, false);
  pthread_create(&thread, NULL, unparker, NULL);
  int fds[16];
  for (int i = 0; i < 16; i++) fds[i] = dial();
  for (int round = 0; round < 200; round++) {
    for (int i = 0; i < 16; i++) say(fds[i], GET("/park") GET("/park"));
    for (int i = 0; i < 16; i++) {
      expect(fds[i], 200, "parked");
      expect(fds[i], 200, "parked");
    }
  }
  atomic_store(&unparker_stops, true);
  pthread_join(thread, NULL);
  for (int i = 0; i < 16; i++) close(fds[i]);
  stop();
}

static void test_destroyed_while_parked(void **state) {
  (void)state;
  start(defaults());
  int fd = dial();
  say(fd, GET("/park"));
  EVENTUALLY(parked() == 1);
  stop();
  assert_true(ended(fd));
  close(fd);
}

/* --- threads ------------------------------------------------------------------------------------------------- */

static void test_elastic(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.live_threads = 2;
  options.max_threads = 7;
  options.thread_idle_timeout_ms = 50;
  start(options);
  assert_int_equal(stats().threads, 1); /* lazily */
  int fds[6], other = dial();
  for (int i = 0; i < 6; i++) {
    fds[i] = dial();
    say(fds[i], GET("/slow"));
    EVENTUALLY(atomic_load(&app->slow_inside) == (unsigned)i + 1);
    say(other, GET("/x"));
    expect(other, 200, "/x");
  }
  assert_int_equal(stats().threads, 7);
  atomic_store(&app->slow_may_end, true);
  for (int i = 0; i < 6; i++) expect(fds[i], 200, "/slow");
  for (int i = 0; i < 6; i++) say(fds[i], GET("/y")); /* surplus workers notice when they come back */
  for (int i = 0; i < 6; i++) expect(fds[i], 200, "/y");
  EVENTUALLY(stats().threads == 2);
  atomic_store(&app->slow_may_end, false);
  say(fds[0], GET("/slow"));
  EVENTUALLY(atomic_load(&app->slow_inside) == 1);
  say(other, GET("/x"));
  expect(other, 200, "/x");
  atomic_store(&app->slow_may_end, true);
  expect(fds[0], 200, "/slow");
  for (int i = 0; i < 6; i++) close(fds[i]);
  close(other);
  stop();
}

static void test_thread_init_fails(void **state) {
  (void)state;
  struct nx_error err = {0};
  struct nx_http_options options = defaults();
  struct nx_http_app with_self = callbacks;
  app = calloc(1, sizeof *app);
  with_self.self = app;
  atomic_store(&app->fail_init, true);
  assert_int_equal(nx_http_server_create(&app->server, &options, &with_self, &err), 0);
  assert_int_equal(nx_http_server_start(app->server, &err), -NX_ERR_NO_MEMORY);
  assert_non_null(strstr(err.text, "no stack for the thread"));
  nx_http_server_destroy(app->server);
  free(app);
}

static void test_later_thread_init_fails(void **state) {
  (void)state;
  start(defaults());
  atomic_store(&app->fail_init, true);
  int fd = dial();
  for (int i = 0; i < 20; i++) {
    say(fd, GET("/x"));
    expect(fd, 200, "/x");
  }
  EVENTUALLY(stats().threads == 1);
  atomic_store(&app->fail_init, false);
  EVENTUALLY(stats().threads == 2); /* tried again */
  close(fd);
  stop();
}

static void test_spent_threads_are_replaced(void **state) {
  (void)state;
  start(defaults());
  int fd = dial();
  say(fd, GET("/x"));
  expect(fd, 200, "/x");
  EVENTUALLY(stats().threads >= 2); /* the one that served, and one that waits */
  for (unsigned ended = 1; ended <= 5; ended++) {
    atomic_store(&app->spend_thread, true);
    say(fd, GET("/spend"));
    expect(fd, 200, "/spend");
    EVENTUALLY(atomic_load(&app->thread_exits) == ended);
    say(fd, GET("/x"));
    expect(fd, 200, "/x");
    EVENTUALLY(stats().threads >= 2);
  }
  close(fd);
  stop();
}

static void test_bad_address(void **state) {
  (void)state;
  struct nx_error err = {0};
  struct nx_http_options options = defaults();
  struct nx_http_server *server = NULL;
  options.host = "localhost";
  assert_int_equal(nx_http_server_create(&server, &options, &callbacks, &err), -NX_ERR_CONFIG);
  options.host = "203.0.113.1"; /* not ours */
  assert_int_equal(nx_http_server_create(&server, &options, &callbacks, &err), -NX_ERR_SYSTEM);
  assert_non_null(strstr(err.text, "203.0.113.1"));
  start(defaults());
  options.host = "127.0.0.1";
  options.port = nx_http_server_port(app->server); /* taken */
  assert_int_equal(nx_http_server_create(&server, &options, &callbacks, &err), -NX_ERR_SYSTEM);
  assert_null(server);
  stop();
}

/* --- the end ------------------------------------------------------------------------------------------------- */

static void test_drain(void **state) {
  (void)state;
  start(defaults());
  int idle = dial(), partial = dial(), waiting = dial(), fresh = dial();
  say(idle, GET("/x"));
  expect(idle, 200, "/x");
  say(partial, "GET /x HTTP/1.1\r\n");
  say(waiting, GET("/park"));
  EVENTUALLY(parked() == 1 && stats().connections == 4);
  nx_http_server_drain(app->server);
  nx_http_server_drain(app->server);
  assert_true(ended_in_order(idle));
  assert_true(ended_in_order(fresh));
  EVENTUALLY(try_dial(0) < 0);
  assert_false(nx_http_server_drained(app->server));
  say(partial, "Host: a\r\n\r\n");
  unpark(app);
  int in_flight[] = {partial, waiting};
  for (int i = 0; i < 2; i++) {
    struct reply reply = hear(in_flight[i]);
    assert_int_equal(reply.status, 200);
    assert_true(reply.closes);
    free(reply.body);
    assert_true(ended_in_order(in_flight[i]));
  }
  close(idle);
  close(fresh);
  close(partial);
  close(waiting);
  EVENTUALLY(nx_http_server_drained(app->server));
  stop();
}

/* Under load every request is answered or its connection ended; nobody hangs. */
static _Atomic bool drain_started;
static void *drained_client(void *argument) {
  (void)argument;
  for (;;) {
    int fd = try_dial(0);
    if (fd < 0) return NULL;
    for (bool open = true; open;) {
      open = try_say(fd, GET("/x"), strlen(GET("/x")));
      struct reply reply = open ? hear(fd) : (struct reply){0};
      open = reply.status == 200 && !reply.closes;
      free(reply.body);
    }
    close(fd);
    assert_true(atomic_load(&drain_started));
  }
}

static void test_drain_under_load(void **state) {
  (void)state;
  for (int round = 0; round < 20; round++) {
    start(defaults());
    atomic_store(&drain_started, false);
    pthread_t clients[6];
    for (int i = 0; i < 6; i++) pthread_create(&clients[i], NULL, drained_client, NULL);
    EVENTUALLY(atomic_load(&app->handled) > 100);
    atomic_store(&drain_started, true);
    nx_http_server_drain(app->server);
    for (int i = 0; i < 6; i++) pthread_join(clients[i], NULL);
    EVENTUALLY(nx_http_server_drained(app->server));
    stop();
  }
}

static void test_create_destroy(void **state) {
  (void)state;
  for (int i = 0; i < 50; i++) {
    start(defaults());
    int fd = dial();
    if (i % 2) say(fd, GET("/x"));
    stop();
    assert_true(i % 2 || ended(fd));
    close(fd);
  }
}

/* --- memory runs out ----------------------------------------------------------------------------------------- */

/* One request with the n-th allocation failing, for n = 0, 1, … until none is left to fail: an answer or an end,
 * never a crash, and the next request is served. */
static void test_failing_allocations(void **state) {
  (void)state;
  if (!CAN_FAIL_ALLOCATIONS) skip();
  static const char *const requests[] = {
    GET("/x"), GET("/big?100000"), CHUNKED "3\r\nabc\r\n0\r\n\r\n", GET("/headers"), "nonsense\r\n\r\n",
    GET("/park")};
  for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
    for (long n = 0, used = 0; used >= 0; n++) {
      struct nx_http_options options = defaults();
      options.live_threads = 1;
      start(options); /* anew, so that the caches are cold */
      int fd = dial(), again = dial();
      EVENTUALLY(stats().connections == 2);
      char ignored[64];
      atomic_store(&allocations_left, n);
      assert_true(send(fd, requests[i], strlen(requests[i]), MSG_NOSIGNAL) > 0);
      if (i == 5) {
        EVENTUALLY(atomic_load(&app->handled) || stats().connections == 1);
        unpark(app);
      }
      (void)!recv(fd, ignored, sizeof ignored, 0);
      used = atomic_exchange(&allocations_left, -1);
      say(again, GET("/next"));
      expect(again, 200, "/next");
      close(fd);
      close(again);
      stop();
    }
  }
}

int main(void) {
  prepare_process();
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_slow_reader),
    cmocka_unit_test(test_write_timeout),
    cmocka_unit_test(test_request_timeouts),
    cmocka_unit_test(test_slowloris),
    cmocka_unit_test(test_answer_before_reset),
    cmocka_unit_test(test_parked),
    cmocka_unit_test(test_parked_peer_leaves),
    cmocka_unit_test(test_parked_race),
    cmocka_unit_test(test_destroyed_while_parked),
    cmocka_unit_test(test_elastic),
    cmocka_unit_test(test_thread_init_fails),
    cmocka_unit_test(test_later_thread_init_fails),
    cmocka_unit_test(test_spent_threads_are_replaced),
    cmocka_unit_test(test_bad_address),
    cmocka_unit_test(test_drain),
    cmocka_unit_test(test_drain_under_load),
    cmocka_unit_test(test_create_destroy),
    cmocka_unit_test(test_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
