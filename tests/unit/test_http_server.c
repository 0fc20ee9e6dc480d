/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP server over time: slow and vanishing peers, parked exchanges, threads that come and go, too many
 * connections, the end, and no memory. No order of events may make it hang. */
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

static unsigned parked(void) {
  pthread_mutex_lock(&app->lock);
  unsigned count = app->parked_count;
  pthread_mutex_unlock(&app->lock);
  return count;
}

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

/* --- many connections ---------------------------------------------------------------------------------------- */

static void test_eviction(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.max_connections = 8;
  start(options);
  int fds[8];
  for (int i = 0; i < 8; i++) {
    fds[i] = dial();
    say(fds[i], GET("/x"));
    expect(fds[i], 200, "/x");
  usleep(10000); /* the coarse clock shall tell them apart */
  }
  say(fds[0], GET("/x")); /* so that the longest idle one is number 1 */
  expect(fds[0], 200, "/x");
  say(fds[2], "GET /part"); /* in the middle of a request: stays */
  usleep(10000);
  for (int i = 1; i < 8; i++) {
    if (i == 2) continue;
    int fd = dial();
    say(fd, GET("/x"));
    expect(fd, 200, "/x");
    assert_true(ended_in_order(fds[i]));
    close(fds[i]);
    fds[i] = fd;
  }
  assert_int_equal(stats().evicted, 6);
  say(fds[2], " HTTP/1.1\r\nHost: a\r\n\r\n");
  expect(fds[2], 200, "/part");
  /* When none is idle, a new one is turned away. */
  for (int i = 0; i < 8; i++) say(fds[i], "GET /part");
  usleep(50000);
  int fd = dial();
  assert_true(ended(fd));
  close(fd);
  for (int i = 0; i < 8; i++) say(fds[i], " HTTP/1.1\r\nHost: a\r\n\r\n");
  for (int i = 0; i < 8; i++) expect(fds[i], 200, "/part");
  EVENTUALLY(stats().connections == 8);
  for (int i = 0; i < 8; i++) close(fds[i]);
  stop();
}

/* Thousands against a small limit: the newest stay, nothing hangs. */
static void test_flood(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.max_connections = 100;
  start(options);
  int fds[1000];
  for (int i = 0; i < 1000; i++) fds[i] = dial();
  EVENTUALLY(stats().accepted == 1000);
  assert_true(stats().connections <= 100);
  say(fds[999], GET("/x"));
  expect(fds[999], 200, "/x");
  for (int i = 0; i < 1000; i++) close(fds[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

static void test_idle_connections(void **state) {
  (void)state;
  enum { COUNT = 2000 };
  static int fds[COUNT];
  start(defaults());
  for (int i = 0; i < COUNT; i++) {
    fds[i] = dial();
    say(fds[i], GET("/x"));
    expect(fds[i], 200, "/x");
  }
  assert_int_equal(stats().connections, COUNT);
  EVENTUALLY(http_buffers.charged < 128 * KIB); /* of the workers, not of the connections */
  for (int i = 0; i < COUNT; i++) say(fds[i], "GET /y HTTP/1.1\r\n");
  usleep(100000);
  size_t slow_bytes = http_buffers.charged;
  assert_true(slow_bytes < COUNT * 1300);
  for (int i = 0; i < COUNT; i++) say(fds[i], "Host: a\r\n\r\n");
  for (int i = 0; i < COUNT; i++) expect(fds[i], 200, "/y");
  for (int i = 0; i < COUNT; i++) close(fds[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* Out of descriptors: turned away rather than left hanging, and all is well afterwards. */
static void test_no_descriptors(void **state) {
  (void)state;
  start(defaults());
  int kept = dial();
  say(kept, "GET /x HTTP/1.1\r\n"); /* not idle, so it is not evicted */
  int clients[20];
  for (int i = 0; i < 20; i++) {
    clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = LONG_MS / 1000};
    setsockopt(clients[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  EVENTUALLY(stats().connections == 1);
  struct rlimit old, tight;
  getrlimit(RLIMIT_NOFILE, &old);
  tight = old;
  tight.rlim_cur = (rlim_t)clients[19] + 1;
  setrlimit(RLIMIT_NOFILE, &tight);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(nx_http_server_port(app->server))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < 20; i++) {
    assert_int_equal(connect(clients[i], (struct sockaddr *)&address, sizeof address), 0);
    assert_true(ended(clients[i]));
  }
  setrlimit(RLIMIT_NOFILE, &old);
  say(kept, "Host: a\r\n\r\n");
  expect(kept, 200, "/x");
  int fd = dial();
  say(fd, GET("/x"));
  expect(fd, 200, "/x");
  close(fd);
  close(kept);
  for (int i = 0; i < 20; i++) close(clients[i]);
  stop();
}

/* --- who makes way ------------------------------------------------------------------------------------------- */

#define STALL_MS 500 /* NX__HTTP_STALL_MS */
#define IDLE_MS 1000 /* LONG_IDLE_MS, STRANGER_MS */

/* So that what is there now counts as old: ages are what these tests are about. */
static void let_age(unsigned ms) { usleep((ms + 60) * 1000); }

/* Dials and asks until it is served: those who must make way may do so a moment later. Returns the connection. */
static int get_through(void) {
  for (uint64_t until = nx_clock_ns() + LONG_MS * NX_NS_PER_MS; nx_clock_ns() < until; usleep(20000)) {
    int fd = dial();
    if (try_say(fd, GET("/probe"), strlen(GET("/probe"))) && status_of(fd) == 200) return fd;
    close(fd);
  }
  fail_msg("a new connection is never served");
  return -1;
}

static int dial_served(void) {
  int fd = dial();
  say(fd, GET("/x"));
  expect(fd, 200, "/x");
  return fd;
}

/* Strangers, who has been idle for long, who has a message half way for long, who is idle. */
static void test_who_makes_way(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.max_connections = 4;
  start(options);
  int long_idle = dial_served(), stranger = dial();
  EVENTUALLY(stats().connections == 2);
  let_age(IDLE_MS);
  int stalled = dial(), young = dial_served(), fresh[4];
  say(stalled, POST "Content-Length: 5\r\n\r\nab");
  let_age(STALL_MS);
  const int goes[] = {stranger, long_idle, stalled};
  for (int i = 0; i < 3; i++) {
    say(young, GET("/x"));
    expect(young, 200, "/x");
    assert_false(readable(goes[i], 0));
    fresh[i] = dial_served();
    assert_true(ended(goes[i]));
    close(goes[i]);
  }
  let_age(300); /* more than the coarse clock needs to tell them apart: a worker may not have let go of fresh[0] yet */
  say(young, GET("/x"));
  expect(young, 200, "/x");
  for (int i = 1; i < 3; i++) {
    say(fresh[i], GET("/x"));
    expect(fresh[i], 200, "/x");
  }
  fresh[3] = dial_served();
  assert_true(ended(fresh[0])); /* the longest idle of those that are young */
  assert_int_equal(stats().evicted, 4);
  for (int i = 0; i < 4; i++) close(fresh[i]);
  close(young);
  stop();
}

/* All connections hold a message half way: a head, a body, an answer that is not read. */
static void test_probes_beside_stalled_ones(void **state) {
  (void)state;
  static const char *const half[] = {"GET /part", POST "Content-Length: 5\r\n\r\nab", CHUNKED "3\r\na",
                                     GET("/big?4194304")};
  struct nx_http_options options = defaults();
  options.max_connections = 16;
  for (int kind = 0; kind < 4; kind++) {
    start(options);
    int fds[16];
    for (int i = 0; i < 16; i++) {
      fds[i] = try_dial(4 * KIB);
      say(fds[i], half[kind]);
    }
    EVENTUALLY(stats().connections == 16);
    for (int i = 0; i < 4; i++) close(get_through());
    assert_true(stats().evicted >= 1);
    for (int i = 0; i < 16; i++) close(fds[i]);
    EVENTUALLY(stats().connections == 0);
    stop();
  }
}

/* Those that were refused and are read on only for their sake. */
static void test_probes_beside_lingering_ones(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.max_connections = 16;
  start(options);
  int fds[16];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 16; i++) {
      while (fds[i] = dial(), !try_say(fds[i], "nonsense\r\n\r\n", 12) || status_of(fds[i]) != 400) close(fds[i]);
    }
    uint64_t began = nx_clock_ns();
    close(get_through());
    assert_true(nx_clock_ns() - began < 2000 * NX_NS_PER_MS || stats().evicted); /* LINGER_MS */
    for (int i = 0; i < 16; i++) close(fds[i]);
    EVENTUALLY(stats().connections == 0);
  }
  assert_true(stats().evicted >= 1);
  stop();
}

static bool sockets_at_most(size_t bytes) { return atomic_load(&http_sockets.charged) <= bytes; }

/* No more memory for sockets: those that have a message half way for long are cut, and the new one is served. */
static void test_no_memory_for_sockets(void **state) {
  (void)state;
  enum { COUNT = 8 };
  for (unsigned threads = 1; threads <= 4; threads += 3) {
    struct nx_http_options options = defaults();
    options.live_threads = threads;
    start(options);
    int fds[COUNT], served = dial_served();
    for (int i = 0; i < COUNT; i++) {
      fds[i] = dial();
      say(fds[i], POST "Content-Length: 5\r\n\r\nab");
    }
    EVENTUALLY(http_sockets.charged == (COUNT + 1) * 8 * KIB + COUNT * 128 * KIB); /* of those that have a message */
    atomic_store(&http_sockets.limit, http_sockets.charged);
    let_age(STALL_MS);
    for (int i = 0; i < 3; i++) {
      int fd = dial();
      say(fd, POST "Content-Length: 5\r\n\r\nab");
      say(fd, "cde");
      expect(fd, 200, "abcde");
      assert_true(sockets_at_most(http_sockets.limit));
      say(served, GET("/x")); /* who was there keeps being served */
      expect(served, 200, "/x");
      close(fd);
    }
    assert_in_range(stats().evicted, 1, 7);
    atomic_store(&http_sockets.limit, SIZE_MAX);
    for (int i = 0; i < COUNT; i++) close(fds[i]);
    close(served);
    EVENTUALLY(stats().connections == 0);
    stop();
  }
}

/* Without anybody to cut: the new ones are turned away, and all is well when there is memory again. */
static void test_no_memory_and_nobody_to_cut(void **state) {
  (void)state;
  start(defaults());
  int parked_fd = dial(), idle = dial_served();
  say(parked_fd, GET("/park"));
  EVENTUALLY(parked() == 1);
  atomic_store(&http_sockets.limit, http_sockets.charged);
  int fd = dial();
  EVENTUALLY(readable(idle, 0)); /* the idle one makes way */
  assert_true(ended(idle));
  if (try_say(fd, GET("/x"), strlen(GET("/x")))) assert_true(ended(fd)); /* there is no memory for its request */
  assert_int_equal(unpark(app), 1);
  expect(parked_fd, 200, "parked");
  atomic_store(&http_sockets.limit, SIZE_MAX);
  say(parked_fd, GET("/x"));
  expect(parked_fd, 200, "/x");
  close(fd);
  close(idle);
  close(parked_fd);
  close(dial_served());
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* Several workers look for one to cut at the same time: each finds one as long as there are any. */
static pthread_barrier_t all_ready;
static void *ask_once(void *served) {
  pthread_barrier_wait(&all_ready);
  int fd = dial();
  if (try_say(fd, GET("/x"), strlen(GET("/x"))) && status_of(fd) == 200) atomic_fetch_add((_Atomic int *)served, 1);
  close(fd);
  return NULL;
}

static void test_several_cut_at_once(void **state) {
  (void)state;
  enum { STALLED = 64, ASKING = 8 };
  struct nx_http_options options = defaults();
  options.live_threads = options.max_threads = 8;
  start(options);
  int fds[STALLED];
  for (int i = 0; i < STALLED; i++) {
    fds[i] = dial();
    say(fds[i], "GET /part");
  }
  EVENTUALLY(http_sockets.charged == STALLED * 136 * KIB);
  atomic_store(&http_sockets.limit, http_sockets.charged);
  let_age(STALL_MS);
  for (int round = 0; round < 4; round++) {
    pthread_t threads[ASKING];
    _Atomic int served = 0;
    pthread_barrier_init(&all_ready, NULL, ASKING);
    for (int i = 0; i < ASKING; i++) pthread_create(&threads[i], NULL, ask_once, (void *)&served);
    for (int i = 0; i < ASKING; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&all_ready);
    assert_int_equal(served, ASKING);
  }
  atomic_store(&http_sockets.limit, SIZE_MAX);
  for (int i = 0; i < STALLED; i++) close(fds[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* Thousands against an account that is at its limit. */
static void test_flood_without_memory(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.max_connections = 100;
  start(options);
  atomic_store(&http_sockets.limit, 30 * 8 * KIB + 128 * KIB);
  int fds[1000];
  for (int i = 0; i < 1000; i++) {
    fds[i] = dial();
    if (i % 3 == 0) try_say(fds[i], "GET /part", 9);
    if (i % 5 == 0) try_say(fds[i], GET("/x"), strlen(GET("/x")));
  }
  close(get_through());
  assert_true(sockets_at_most(http_sockets.limit));
  assert_true(stats().connections <= 30 + 16);
  atomic_store(&http_sockets.limit, SIZE_MAX);
  for (int i = 0; i < 1000; i++) close(fds[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* --- memory for buffers -------------------------------------------------------------------------------------- */

/* A body that is refused room: 503, the end of the connection, and nothing is kept. */
static void test_no_memory_for_a_body(void **state) {
  (void)state;
  static const char *const heads[] = {POST "Content-Length: 60000\r\n\r\n", CHUNKED "ea60\r\n"};
  char *body = filled("", 60000, "");
  for (int kind = 0; kind < 2; kind++) {
    start(defaults());
    atomic_store(&http_buffers.limit, 32 * KIB);
    int fd = dial();
    say(fd, heads[kind]);
    try_say(fd, body, 60000);
    struct reply reply = hear(fd);
    assert_int_equal(reply.status, 503);
    assert_true(reply.closes);
    assert_non_null(strstr(reply.body, "no memory for the request"));
    free(reply.body);
    assert_true(ended(fd));
    assert_int_equal(atomic_load(&app->refused), 1);
    assert_int_equal(atomic_load(&app->handled), 0);
    close(fd);
    EVENTUALLY(stats().connections == 0);
    atomic_store(&http_buffers.limit, SIZE_MAX);
    fd = dial();
    say(fd, POST "Content-Length: 60000\r\n\r\n");
    say(fd, body);
    expect(fd, 200, body);
    close(fd);
    stop();
  }
  free(body);
}

static void test_no_memory_for_an_answer(void **state) {
  (void)state;
  start(defaults());
  atomic_store(&http_buffers.limit, 64 * KIB);
  int fd = dial();
  say(fd, GET("/big?100000") GET("/behind"));
  struct reply reply = hear(fd);
  assert_int_equal(reply.status, 503);
  assert_true(reply.closes);
  assert_non_null(strstr(reply.body, "no memory for the response"));
  free(reply.body);
  assert_true(ended(fd));
  close(fd);
  atomic_store(&http_buffers.limit, SIZE_MAX);
  assert_int_equal(atomic_load(&app->finished), 1);
  stop();
}

/* At any limit a request is answered in full, or refused and closed, or its connection ends. */
static void test_any_limit_of_buffers(void **state) {
  (void)state;
  char *body = filled(POST "Content-Length: 20000\r\n\r\n", 20000, "");
  const char *const requests[] = {GET("/x"), GET("/big?30000"), body, GET("/headers"), "nonsense\r\n\r\n"};
  struct nx_http_options options = defaults();
  options.live_threads = 1;
  start(options);
  unsigned answered = 0, refused = 0;
  for (size_t limit = 0; limit < 64 * KIB; limit += 700) {
    atomic_store(&http_buffers.limit, limit);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
      int fd = dial();
      struct reply reply = {0};
      if (try_say(fd, requests[i], strlen(requests[i]))) reply = hear(fd);
      assert_true(reply.status == 0 || reply.status == 503 || reply.status == (i == 4 ? 400 : 200));
      if (reply.status == 503) assert_true(reply.closes);
      if (reply.status == 200) answered++;
      if (reply.status == 503) refused++;
      free(reply.body);
      close(fd);
    }
    EVENTUALLY(stats().connections == 0);
    assert_true(http_buffers.charged <= limit || http_buffers.charged < 64 * KIB);
  }
  assert_true(answered > 20 && refused > 20);
  atomic_store(&http_buffers.limit, SIZE_MAX);
  close(dial_served());
  free(body);
  stop();
}

/* Room that an answer does not need is not held while a slow reader takes it. */
static void test_slack_is_given_back(void **state) {
  (void)state;
  start(defaults());
  int fd = try_dial(4 * KIB);
  say(fd, GET("/slack?1000000"));
  EVENTUALLY(atomic_load(&app->finished) == 1);
  EVENTUALLY(http_buffers.charged < 1000000 + 128 * KIB);
  assert_true(http_buffers.charged >= 1000000);
  struct reply reply = hear(fd);
  assert_int_equal(reply.status, 200);
  assert_int_equal(reply.len, 1000000);
  for (size_t i = 0; i < reply.len; i++)
    if (reply.body[i] != (char)(i * 7 + i / 4096)) fail_msg("byte %zu", i);
  free(reply.body);
  close(fd);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* Buffers are many: who has been sending or reading one message for long is given up early; who is between messages, or
 * sends a head, is not. */
static void test_hurried(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.hurried_timeout_ms = 300;
  start(options);
  int reader = try_dial(4 * KIB), sender = dial(), head = dial(), idle = dial_served();
  say(reader, GET("/big?4194304"));
  say(sender, POST "Content-Length: 5\r\n\r\nab");
  say(head, "GET /head");
  EVENTUALLY(stats().connections == 4 && atomic_load(&app->finished) == 2);
  let_age(options.hurried_timeout_ms + 500); /* two sweeps */
  assert_int_equal(stats().connections, 4); /* nobody is in a hurry yet */
  assert_false(readable(sender, 0));
  atomic_store(&app->hurried, true);
  assert_int_equal(status_of(sender), 408);
  EVENTUALLY(http_buffers.charged < 128 * KIB); /* of 4 MiB */
  char scratch[64 * KIB];
  ssize_t got;
  while ((got = recv(reader, scratch, sizeof scratch, 0)) > 0) continue;
  assert_true(got < 0 && errno == ECONNRESET);
  say(head, " HTTP/1.1\r\nHost: a\r\n\r\n");
  expect(head, 200, "/head");
  say(idle, GET("/x"));
  expect(idle, 200, "/x");
  const int fds[] = {reader, sender, head, idle};
  for (int i = 0; i < 4; i++) close(fds[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* Who gets on at a fair rate is not given up, however long it takes. */
static void test_hurried_but_fast(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  options.hurried_timeout_ms = 50;
  start(options);
  atomic_store(&app->hurried, true);
  int fd = try_dial(4 * KIB);
  say(fd, GET("/big?8388608"));
  struct reply reply = {0};
  for (size_t head = 0; head < 4 || memcmp(reply.head + head - 4, "\r\n\r\n", 4); head++)
    assert_true(read_exactly(fd, reply.head + head, 1));
  static char scratch[64 * KIB];
  for (size_t at = 0; at < 8 * MIB; at += sizeof scratch) {
    assert_true(read_exactly(fd, scratch, sizeof scratch));
    usleep(8000); /* 8 MiB/s, for a second: four sweeps */
  }
  close(fd);
  EVENTUALLY(stats().connections == 0);
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
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max < 16384 ? files.rlim_max : 16384;
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_DFL); /* the server must not raise it */
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
    cmocka_unit_test(test_eviction),
    cmocka_unit_test(test_flood),
    cmocka_unit_test(test_idle_connections),
    cmocka_unit_test(test_no_descriptors),
    cmocka_unit_test(test_who_makes_way),
    cmocka_unit_test(test_probes_beside_stalled_ones),
    cmocka_unit_test(test_probes_beside_lingering_ones),
    cmocka_unit_test(test_no_memory_for_sockets),
    cmocka_unit_test(test_no_memory_and_nobody_to_cut),
    cmocka_unit_test(test_several_cut_at_once),
    cmocka_unit_test(test_flood_without_memory),
    cmocka_unit_test(test_no_memory_for_a_body),
    cmocka_unit_test(test_no_memory_for_an_answer),
    cmocka_unit_test(test_any_limit_of_buffers),
    cmocka_unit_test(test_slack_is_given_back),
    cmocka_unit_test(test_hurried),
    cmocka_unit_test(test_hurried_but_fast),
    cmocka_unit_test(test_drain),
    cmocka_unit_test(test_drain_under_load),
    cmocka_unit_test(test_create_destroy),
    cmocka_unit_test(test_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
