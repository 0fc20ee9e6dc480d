/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP server when there is no room: too many connections, no descriptors, no memory for sockets or for buffers. Probes
 * and clients get through, and all is given back. */
#include "http_support.h"

/* --- many connections ---------------------------------------------------------------------------------------- */

static int dial_served(void) {
  int fd = dial();
  say(fd, GET("/x"));
  expect(fd, 200, "/x");
  return fd;
}

/* Until nobody uses a connection; and the coarse clock shall tell them apart. */
static void let_settle(void) {
  EVENTUALLY(http_sockets.charged == stats().connections * 8 * KIB);
  usleep(10000);
}

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
    let_settle();
  }
  say(fds[0], GET("/x")); /* so that the longest idle one is number 1 */
  expect(fds[0], 200, "/x");
  say(fds[2], GET("/park")); /* in the middle of a request: stays */
  EVENTUALLY(parked() == 1);
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
  assert_int_equal(unpark(app), 1);
  expect(fds[2], 200, "parked");
  for (int i = 0; i < 8; i++) close(fds[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* All connections have had a message half way, but not for long: nobody may go yet. Who comes waits, and is served. */
static void check_new_ones_wait(struct nx_http_options options, unsigned new_ones) {
  enum { COUNT = 16, NEW_MAX = 4 };
  int fds[COUNT], fresh[NEW_MAX];
  start(options);
  for (int i = 0; i < COUNT; i++) {
    fds[i] = dial();
    say(fds[i], "GET /part");
  }
  EVENTUALLY(http_sockets.charged == COUNT * 136 * KIB);
  if (options.max_connections > COUNT) atomic_store(&http_sockets.limit, http_sockets.charged);
  for (unsigned i = 0; i < new_ones; i++) {
    fresh[i] = dial();
    say(fresh[i], GET("/x"));
    expect(fresh[i], 200, "/x");
  }
  assert_in_range(stats().evicted, 1, new_ones);
  atomic_store(&http_sockets.limit, SIZE_MAX);
  for (int i = 0; i < COUNT; i++) close(fds[i]);
  for (unsigned i = 0; i < new_ones; i++) close(fresh[i]);
  EVENTUALLY(stats().connections == 0);
  stop();
}

static void test_new_ones_wait_for_room(void **state) {
  (void)state;
  struct nx_http_options options = defaults();
  check_new_ones_wait(options, 1); /* no memory for another connection; that of one that goes is enough for one */
  options.max_connections = 16;
  check_new_ones_wait(options, 4);
}

/* The application has them all. */
static void park_all(int *fds, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    fds[i] = dial();
    say(fds[i], GET("/park"));
  }
  EVENTUALLY(parked() == count);
}

static void end_parked(const int *fds, unsigned count) {
  assert_int_equal(unpark(app), count);
  for (unsigned i = 0; i < count; i++) {
    expect(fds[i], 200, "parked");
    close(fds[i]);
  }
  EVENTUALLY(stats().connections == 0);
}

/* Those that find no room are turned away in the end, and so is who waits when the server drains. */
static void test_nobody_may_go(void **state) {
  (void)state;
  enum { COUNT = 4, NEW = 40 };
  struct nx_http_options options = defaults();
  options.max_connections = COUNT;
  start(options);
  int fds[COUNT], turned_away[NEW];
  park_all(fds, COUNT);
  for (int i = 0; i < NEW; i++) turned_away[i] = dial();
  for (int i = 0; i < NEW; i++) {
    assert_true(ended(turned_away[i]));
    close(turned_away[i]);
  }
  assert_int_equal(stats().accepted, COUNT);
  assert_int_equal(stats().evicted, 0);
  end_parked(fds, COUNT);
  close(dial_served());
  EVENTUALLY(stats().connections == 0);
  park_all(fds, COUNT);
  int waits = dial();
  nx_http_server_drain(app->server);
  assert_true(ended(waits));
  close(waits);
  end_parked(fds, COUNT);
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
  say(kept, GET("/park")); /* the application's, so it need not make way */
  int clients[20];
  for (int i = 0; i < 20; i++) {
    clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = LONG_MS / 1000};
    setsockopt(clients[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  EVENTUALLY(parked() == 1);
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
  assert_int_equal(unpark(app), 1);
  expect(kept, 200, "parked");
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
    int fds[COUNT];
    for (int i = 0; i < COUNT; i++) {
      fds[i] = dial();
      say(fds[i], POST "Content-Length: 5\r\n\r\nab");
    }
    EVENTUALLY(http_sockets.charged == COUNT * 136 * KIB); /* of those that have a message */
    let_age(STALL_MS);
    int served = dial_served(); /* only now, so that it has not been idle for long */
    EVENTUALLY(http_sockets.charged == COUNT * 136 * KIB + 8 * KIB);
    atomic_store(&http_sockets.limit, http_sockets.charged);
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

/* How much the server says could not be had. */
static unsigned long bytes_asked_for(const struct reply *reply) {
  const char *bytes = strstr(reply->body, "\"bytes\":");
  assert_non_null(bytes);
  return strtoul(bytes + strlen("\"bytes\":"), NULL, 10);
}

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
    assert_in_range(bytes_asked_for(&reply), 8 * KIB, 64 * KIB);
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

/* The same of its body and of its headers. */
static void test_no_memory_for_an_answer(void **state) {
  (void)state;
  static const char *const requests[] = {GET("/big?100000") GET("/behind"), GET("/long-headers?100000")};
  for (int i = 0; i < 2; i++) {
    start(defaults());
    atomic_store(&http_buffers.limit, 64 * KIB);
    int fd = dial();
    say(fd, requests[i]);
    struct reply reply = hear(fd);
    assert_int_equal(reply.status, 503);
    assert_true(reply.closes);
    assert_non_null(strstr(reply.body, "no memory for the response"));
    assert_in_range(bytes_asked_for(&reply), 100000 - 8 * KIB, 100000); /* a spare buffer may have some */
    free(reply.body);
    assert_true(ended(fd));
    close(fd);
    atomic_store(&http_buffers.limit, SIZE_MAX);
    assert_int_equal(atomic_load(&app->finished), 1);
    stop();
  }
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

int main(void) {
  prepare_process();
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_eviction),
    cmocka_unit_test(test_new_ones_wait_for_room),
    cmocka_unit_test(test_nobody_may_go),
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
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
