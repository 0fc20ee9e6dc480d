/* SPDX-License-Identifier: Apache-2.0
 *
 * For the tests of the HTTP server: a small application, its start and stop, a client on plain sockets.
 * Every wait is a poll with a long limit, so that a slow machine makes these tests slow, not red. */
#ifndef NX_TESTS_HTTP_SUPPORT_H
#define NX_TESTS_HTTP_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "counting_account.h"
#include "http/server.h"

#ifdef __SANITIZE_THREAD__
#define LONG_MS 120000 /* copying bodies byte by byte is some forty times slower */
#else
#define LONG_MS 20000
#endif
#define KIB 1024
#define MIB (1024 * 1024)

/* --- the application ----------------------------------------------------------------------------------------- */

#define PARKED_MAX 4096

struct app {
  struct nx_http_server *server;
  pthread_mutex_t lock;
  struct nx_http_exchange *parked[PARKED_MAX], *ready[PARKED_MAX];
  unsigned parked_count, ready_count;
  _Atomic unsigned handled, refused, finished, threads, slow_inside;
  _Atomic bool slow_may_end, fail_init, spend_thread, hurried;
  _Atomic unsigned thread_exits;
};

static inline void plain(struct nx_http_response *response, int status, const void *body, size_t len) {
  response->status = status;
  response->content_type = "text/plain";
  nx_buf_add(&response->body, body, len);
}

static inline bool is(struct nx_str text, const char *expected) {
  return text.len == strlen(expected) && !memcmp(text.data, expected, text.len);
}

static inline void big(struct nx_http_response *response, size_t len) {
  char *room = nx_buf_reserve(&response->body, len);
  response->status = 200;
  response->content_type = "application/octet-stream";
  for (size_t i = 0; room && i < len; i++) room[i] = (char)(i * 7 + i / 4096);
  if (room) response->body.len = len;
}

/* `len` bytes in a buffer that has room for many more. */
static inline void slack(struct nx_http_response *response, size_t len) {
  nx_buf_reserve(&response->body, 4 * MIB);
  big(response, len);
}

static inline enum nx_http_next park(struct app *of, struct nx_http_exchange *exchange) {
  exchange->app = of;
  pthread_mutex_lock(&of->lock);
  of->parked[of->parked_count++] = exchange;
  pthread_mutex_unlock(&of->lock);
  return NX_HTTP_PARKED;
}

/* Stays inside until the test lets it go, as a long execution would. */
static inline void slow(struct app *of) {
  atomic_fetch_add(&of->slow_inside, 1);
  nx_http_server_thread_blocked(of->server);
  while (!atomic_load(&of->slow_may_end)) usleep(1000);
  nx_http_server_thread_unblocked(of->server);
  atomic_fetch_sub(&of->slow_inside, 1);
}

/* What the server made of the headers. */
static inline void show_headers(const struct nx_http_request *request, struct nx_http_response *response) {
  const struct nx_str shown[] = {request->content_type, request->if_match, request->if_none_match,
                                 request->authorization, request->traceparent, request->request_id, request->query};
  nx_buf_str(&response->headers, "X-One: 1\r\nX-Two: 2\r\n");
  plain(response, 200, "", 0);
  for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
    if (i) nx_buf_char(&response->body, '|');
    nx_buf_add(&response->body, shown[i].data, shown[i].len);
  }
}

/* /early needs no body for its answer. */
static inline bool answer_head(void *self, struct nx_http_exchange *exchange) {
  assert_null(exchange->app);
  assert_null(exchange->request.body.data);
  if (!is(exchange->request.path, "/early")) return false;
  plain(&exchange->response, 401, exchange->request.authorization.data, exchange->request.authorization.len);
  return true;
}

static inline enum nx_http_next handle(void *self, struct nx_http_exchange *exchange) {
  struct app *of = self;
  struct nx_http_request *request = &exchange->request;
  struct nx_http_response *response = &exchange->response;
  assert_null(exchange->app);
  atomic_fetch_add(&of->handled, 1);
  if (is(request->path, "/park")) return park(of, exchange);
  if (is(request->path, "/slow")) slow(of);
  response->close = is(request->path, "/close");
  if (is(request->path, "/big"))
    big(response, (size_t)strtoul(request->query.data, NULL, 10));
  else if (is(request->path, "/slack"))
    slack(response, (size_t)strtoul(request->query.data, NULL, 10));
  else if (is(request->path, "/long-headers"))
    nx_buf_reserve(&response->headers, (size_t)strtoul(request->query.data, NULL, 10));
  else if (is(request->path, "/none"))
    response->status = 204;
  else if (is(request->path, "/unchanged"))
    plain(response, 304, "must not be sent", 16);
  else if (is(request->path, "/headers"))
    show_headers(request, response);
  else if (request->body.len)
    plain(response, 200, request->body.data, request->body.len);
  else
    plain(response, 200, request->path.data, request->path.len);
  return NX_HTTP_DONE;
}

static inline struct nx_http_exchange *next_ready(void *self) {
  struct app *app = self;
  pthread_mutex_lock(&app->lock);
  struct nx_http_exchange *exchange = app->ready_count ? app->ready[--app->ready_count] : NULL;
  pthread_mutex_unlock(&app->lock);
  return exchange;
}

static inline enum nx_http_next proceed(void *self, struct nx_http_exchange *exchange) {
  assert_ptr_equal(exchange->app, self);
  if (exchange->request.body.len)
    plain(&exchange->response, 200, exchange->request.body.data, exchange->request.body.len);
  else
    plain(&exchange->response, 200, "parked", 6);
  return NX_HTTP_DONE;
}

static inline int thread_init(void *self, struct nx_error *err) {
  struct app *app = self;
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  assert_true(sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT) && sigismember(&mask, SIGHUP));
  assert_false(sigismember(&mask, SIGSEGV) || sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGPIPE));
  if (atomic_load(&app->fail_init)) return nx_error_set(err, NX_ERR_NO_MEMORY, "no stack for the thread");
  atomic_fetch_add(&app->threads, 1);
  return 0;
}

static inline void thread_exit(void *self) {
  atomic_fetch_sub(&((struct app *)self)->threads, 1);
  atomic_fetch_add(&((struct app *)self)->thread_exits, 1);
}

static inline bool thread_is_spent(void *self) { return atomic_exchange(&((struct app *)self)->spend_thread, false); }

static inline bool is_hurried(void *self) { return atomic_load(&((struct app *)self)->hurried); }

static inline void refuse(void *self, struct nx_http_response *response, enum nx_error_code code, const char *detail,
                          size_t bytes) {
  atomic_fetch_add(&((struct app *)self)->refused, 1);
  response->content_type = "application/problem+json";
  nx_buf_printf(&response->body, "{\"status\":%d,\"code\":\"%s\",\"bytes\":%zu,\"detail\":", response->status,
                nx_error_name(code), bytes);
  nx_buf_json_string(&response->body, detail, strlen(detail));
  nx_buf_char(&response->body, '}');
}

static inline void finished(void *self, const struct nx_http_exchange *exchange) {
  assert_true(exchange->response.status >= 200);
  atomic_fetch_add(&((struct app *)self)->finished, 1);
}

/* Makes all parked exchanges ready; returns how many. */
static inline unsigned unpark(struct app *app) {
  pthread_mutex_lock(&app->lock);
  unsigned count = app->parked_count;
  for (unsigned i = 0; i < count; i++) app->ready[app->ready_count++] = app->parked[i];
  app->parked_count = 0;
  pthread_mutex_unlock(&app->lock);
  for (unsigned i = 0; i < count; i++) nx_http_server_wake(app->server);
  return count;
}

/* --- starting and stopping ----------------------------------------------------------------------------------- */

/* First in main: thousands of connections, and SIGPIPE as it is by default. */
static inline void prepare_process(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max < 16384 ? files.rlim_max : 16384;
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_DFL); /* the server must not raise it */
}

static struct app *app;
static struct counting_account http_buffers = COUNTING_ACCOUNT, http_sockets = COUNTING_ACCOUNT;

static inline struct nx_http_options defaults(void) {
  return (struct nx_http_options){
    .host = "127.0.0.1",
    .max_connections = 5000,
    .max_header_bytes = 8 * KIB,
    .max_body_bytes = 64 * KIB,
    .header_timeout_ms = LONG_MS,
    .body_timeout_ms = LONG_MS,
    .idle_timeout_ms = LONG_MS,
    .write_timeout_ms = LONG_MS,
    .live_threads = 4,
    .max_threads = 8,
    .thread_stack_bytes = 256 * KIB,
    .socket_buffer_bytes = 64 * KIB,
    .buffers = &http_buffers.as_account,
    .sockets = &http_sockets.as_account,
  };
}

static const struct nx_http_app callbacks = {
  .answer_head = answer_head,
  .handle = handle,
  .next_ready = next_ready,
  .proceed = proceed,
  .thread_init = thread_init,
  .thread_exit = thread_exit,
  .thread_is_spent = thread_is_spent,
  .is_hurried = is_hurried,
  .refuse = refuse,
  .finished = finished,
};

static inline void start(struct nx_http_options options) {
  struct nx_error err = {0};
  struct nx_http_app with_self = callbacks;
  app = calloc(1, sizeof *app);
  pthread_mutex_init(&app->lock, NULL);
  with_self.self = app;
  if (nx_http_server_create(&app->server, &options, &with_self, &err) || nx_http_server_start(app->server, &err))
    fail_msg("start: %s", err.text);
}

static inline void stop(void) {
  nx_http_server_drain(app->server);
  nx_http_server_destroy(app->server);
  assert_int_equal(atomic_load(&app->threads), 0);
  assert_int_equal(http_buffers.charged, 0);
  assert_int_equal(http_sockets.charged, 0);
  pthread_mutex_destroy(&app->lock);
  free(app);
}

static inline unsigned parked(void) {
  pthread_mutex_lock(&app->lock);
  unsigned count = app->parked_count;
  pthread_mutex_unlock(&app->lock);
  return count;
}

static inline struct nx_http_stats stats(void) {
  struct nx_http_stats now;
  nx_http_server_stats(app->server, &now);
  return now;
}

/* Polls `condition` until it holds. */
#define EVENTUALLY(condition)                                                       \
  do {                                                                              \
    uint64_t until_ = nx_clock_ns() + LONG_MS * NX_NS_PER_MS;                       \
    while (!(condition)) {                                                          \
      if (nx_clock_ns() > until_) fail_msg("line %d: never: %s", __LINE__, #condition); \
      usleep(1000);                                                                 \
    }                                                                               \
  } while (0)

/* --- the client ---------------------------------------------------------------------------------------------- */

static inline int try_dial(int receive_bytes) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(nx_http_server_port(app->server))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  struct timeval limit = {.tv_sec = LONG_MS / 1000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

static inline int dial(void) {
  int fd = try_dial(0);
  assert_true(fd >= 0);
  return fd;
}

static inline bool try_say(int fd, const char *bytes, size_t len) {
  while (len) {
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes += n;
    len -= (size_t)n;
  }
  return true;
}

static inline void say(int fd, const char *text) { assert_true(try_say(fd, text, strlen(text))); }

struct reply {
  int status; /* 0: the connection ended instead */
  bool closes;
  char head[2048];
  char *body;
  size_t len;
};

static inline bool read_exactly(int fd, char *to, size_t len) {
  while (len) {
    ssize_t n = recv(fd, to, len, 0);
    if (n <= 0) return false;
    to += n;
    len -= (size_t)n;
  }
  return true;
}

static inline const char *header(const struct reply *reply, const char *name) {
  const char *at = strcasestr(reply->head, name);
  return at ? at + strlen(name) : NULL;
}

/* One response; the caller frees `body`. */
static inline struct reply hear_for(int fd, bool to_head) {
  struct reply reply = {0};
  size_t len = 0;
  while (len < 4 || memcmp(reply.head + len - 4, "\r\n\r\n", 4)) {
    if (len + 1 == sizeof reply.head || !read_exactly(fd, reply.head + len, 1)) return (struct reply){0};
    len++;
  }
  assert_int_equal(sscanf(reply.head, "HTTP/1.1 %d", &reply.status), 1);
  reply.closes = header(&reply, "\r\nConnection: close\r\n");
  const char *length = header(&reply, "\r\nContent-Length: ");
  reply.len = length && !to_head ? strtoul(length, NULL, 10) : 0;
  reply.body = calloc(1, reply.len + 1);
  if (!read_exactly(fd, reply.body, reply.len)) reply.status = 0;
  return reply;
}

static inline struct reply hear(int fd) { return hear_for(fd, false); }

static inline int status_of(int fd) {
  struct reply reply = hear(fd);
  free(reply.body);
  return reply.status;
}

static inline void expect(int fd, int status, const char *body) {
  struct reply reply = hear(fd);
  assert_int_equal(reply.status, status);
  if (body) assert_string_equal(reply.body, body);
  free(reply.body);
}

/* Ended in order, or reset. */
static inline bool ended(int fd) {
  char byte;
  ssize_t n = recv(fd, &byte, 1, 0);
  return n == 0 || (n < 0 && errno == ECONNRESET);
}

static inline bool ended_in_order(int fd) {
  char byte;
  return recv(fd, &byte, 1, 0) == 0;
}

static inline bool readable(int fd, int wait_ms) {
  struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
  return poll(&poll_fd, 1, wait_ms) == 1;
}

#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"


/* `before`, `count` times x, `after`; the caller frees it. */
static inline char *filled(const char *before, size_t count, const char *after) {
  char *text = malloc(strlen(before) + count + strlen(after) + 1);
  sprintf(text, "%s%*s%s", before, (int)count, "", after);
  memset(text + strlen(before), 'x', count);
  return text;
}

#endif
