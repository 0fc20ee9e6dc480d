/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of net: an HTTP server on 127.0.0.1 whose paths say how it behaves, names that resolve as the test wants, and
 * fetches that wait for their result. */
#ifndef NX_TESTS_NET_SUPPORT_H
#define NX_TESTS_NET_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "counting_account.h"
#include "net/net.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define CONNECTIONS_MAX 1024

/* ---- A gate that threads wait at -------------------------------------------------------------------------------- */

struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool is_open;
  unsigned arrived;
};
#define GATE {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0}

static inline void gate_pass(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->arrived++;
  pthread_cond_broadcast(&gate->changed);
  while (!gate->is_open) pthread_cond_wait(&gate->changed, &gate->mutex);
  pthread_mutex_unlock(&gate->mutex);
}

static inline void gate_await(struct gate *gate, unsigned arrived) {
  pthread_mutex_lock(&gate->mutex);
  while (gate->arrived < arrived) pthread_cond_wait(&gate->changed, &gate->mutex);
  pthread_mutex_unlock(&gate->mutex);
}

static inline void gate_open(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->is_open = true;
  pthread_cond_broadcast(&gate->changed);
  pthread_mutex_unlock(&gate->mutex);
}

static inline void gate_close(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->is_open = false;
  gate->arrived = 0;
  pthread_mutex_unlock(&gate->mutex);
}

/* ---- Names, in place of DNS ------------------------------------------------------------------------------------- */

static struct gate slow_names = GATE;

static inline const char *resolve(const char *name) {
  static const struct { const char *name, *address; } names[] = {
    {"loop.test", "127.0.0.1"}, {"LOOP.test.", "127.0.0.1"}, {"slow.test", "127.0.0.1"}, {"mapped.test", "::ffff:127.0.0.1"},
    {"metadata.test", "169.254.169.254"}, {"private.test", "10.1.2.3"}, {"six.test", "::1"}, {"mixed.test", "10.1.2.3"},
  };
  for (size_t i = 0; i < COUNT(names); i++)
    if (!strcmp(name, names[i].name)) return names[i].address;
  return NULL;
}

/* libcurl's resolver finds this one first. mixed.test has an address that is refused, then one that is listed. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  const char *address = resolve(name);
  if (!address) return EAI_NONAME;
  if (!strcmp(name, "slow.test")) gate_pass(&slow_names);
  struct addrinfo numeric = hints ? *hints : (struct addrinfo){0};
  numeric.ai_flags = AI_NUMERICHOST;
  numeric.ai_family = AF_UNSPEC;
  int status = real(address, service, &numeric, out);
  if (!status && !strcmp(name, "mixed.test")) status = real("127.0.0.1", service, &numeric, &(*out)->ai_next);
  return status;
}

/* ---- Libraries -------------------------------------------------------------------------------------------------- */

static const char *hidden_libraries; /* the start of their names; NULL: none */

void *dlopen(const char *name, int flags) {
  void *(*real)(const char *, int);
  *(void **)&real = dlsym(RTLD_NEXT, "dlopen");
  if (name && hidden_libraries && !strncmp(name, hidden_libraries, strlen(hidden_libraries))) return NULL;
  return real(name, flags);
}

/* ---- The server ------------------------------------------------------------------------------------------------- */

static struct {
  int fd;
  uint16_t port;
  pthread_t thread;
  pthread_t threads[CONNECTIONS_MAX];
  atomic_uint connections, requests;
  atomic_uint hanging; /* requests that are never answered */
  pthread_mutex_t mutex;
  pthread_cond_t changed;
} server = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline void put(int fd, const char *data, size_t bytes) {
  while (bytes) {
    ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);
    if (n <= 0) return;
    data += n;
    bytes -= (size_t)n;
  }
}
static inline void say(int fd, const char *text) { put(fd, text, strlen(text)); }

static _Thread_local bool is_head; /* the request that is answered: without a body */

static inline void answer(int fd, const char *headers, const char *body, size_t bytes) {
  char head[512];
  snprintf(head, sizeof head, "HTTP/1.1 200 Fine\r\nContent-Length: %zu\r\n%s\r\n", bytes, headers);
  say(fd, head);
  if (!is_head) put(fd, body, bytes);
}

static inline void answer_redirect(int fd, const char *path) {
  char head[8192];
  snprintf(head, sizeof head, "HTTP/1.1 %.3s Elsewhere\r\nContent-Length: 4\r\nLocation: %s\r\n\r\n%s", path, path + 4,
           is_head ? "" : "gone");
  say(fd, head);
}

static inline void answer_big(int fd, size_t bytes, bool with_length) {
  char *body = malloc(bytes);
  memset(body, 'x', bytes);
  if (with_length) {
    answer(fd, "", body, bytes);
  } else {
    say(fd, "HTTP/1.1 200 Fine\r\nConnection: close\r\n\r\n");
    put(fd, body, bytes);
  }
  free(body);
}

static inline void hang(int fd) {
  char byte;
  pthread_mutex_lock(&server.mutex);
  server.hanging++;
  pthread_cond_broadcast(&server.changed);
  pthread_mutex_unlock(&server.mutex);
  while (recv(fd, &byte, 1, 0) > 0) continue;
}

static inline void server_await_hanging(unsigned count) {
  pthread_mutex_lock(&server.mutex);
  while (server.hanging < count) pthread_cond_wait(&server.changed, &server.mutex);
  pthread_mutex_unlock(&server.mutex);
}

/* False: the connection is closed. */
static inline bool serve(int fd, const char *path, const char *request, size_t bytes) {
  if (!strcmp(path, "/hello")) answer(fd, "", "hello", 5);
  else if (!strncmp(path, "/echo", 5)) answer(fd, "", request, bytes);
  else if (!strncmp(path, "/r/", 3)) answer_redirect(fd, path + 3);
  else if (!strcmp(path, "/relative")) answer_redirect(fd, "302/hello");
  else if (!strncmp(path, "/big/", 5)) answer_big(fd, strtoul(path + 5, NULL, 10), true);
  else if (!strncmp(path, "/endless/", 9)) return answer_big(fd, strtoul(path + 9, NULL, 10), false), false;
  else if (!strcmp(path, "/headers"))
    answer(fd, "X-One: a\r\nx-ONE:  b \r\nSet-Cookie: c=1, x\r\nset-cookie: d=2\r\nFolded: e\r\n  f\r\nEmpty:\r\n__proto__: p\r\n", "", 0);
  else if (!strcmp(path, "/cookie")) answer(fd, "Set-Cookie: c=1\r\n", "", 0);
  else if (!strcmp(path, "/binary")) answer(fd, "", "\xff\x00\x01", 3);
  else if (!strcmp(path, "/utf8")) answer(fd, "", "\xe2\x82\xac\"\n\x00", 6);
  else if (!strcmp(path, "/interim"))
    say(fd, "HTTP/1.1 103 Early\r\nX-Early: 1\r\n\r\nHTTP/1.1 201\r\nTransfer-Encoding: chunked\r\nX-Late: 1\r\n\r\n"
            "2\r\nab\r\n0\r\nX-Trailer: 1\r\n\r\n");
  else if (!strcmp(path, "/cut")) return say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), false;
  else if (!strcmp(path, "/nothing")) return false;
  else if (!strcmp(path, "/nonsense")) return say(fd, "SSH-2.0-x\r\n"), false;
  else if (!strcmp(path, "/half")) return say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), hang(fd), false;
  else if (!strcmp(path, "/hang")) return hang(fd), false;
  else if (!strcmp(path, "/longhead")) {
    say(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 80; i++) {
      char line[1100];
      snprintf(line, sizeof line, "X-%d: %01024d\r\n", i, 0);
      say(fd, line);
    }
    return hang(fd), false;
  } else if (!strcmp(path, "/manyheaders")) {
    say(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 300; i++) say(fd, "a:b\r\n");
    return hang(fd), false;
  } else say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  return true;
}

/* Reads one request to `request`, ended by NUL; its bytes, or 0. */
static inline size_t read_request(int fd, char *request, size_t size) {
  size_t bytes = 0, want = 0;
  while (bytes + 1 < size) {
    ssize_t n = recv(fd, request + bytes, want ? want - bytes : 1, 0);
    if (n <= 0) return 0;
    request[bytes += (size_t)n] = 0;
    if (want ? bytes == want : bytes >= 4 && !memcmp(request + bytes - 4, "\r\n\r\n", 4)) {
      const char *length = want ? NULL : strcasestr(request, "\r\nContent-Length:");
      size_t body = length ? strtoul(length + 17, NULL, 10) : 0;
      if (!body) return bytes;
      want = bytes + body;
    }
  }
  return 0;
}

static inline void *serve_connection(void *argument) {
  int fd = (int)(intptr_t)argument;
  static const size_t size = 256 << 10;
  char *request = malloc(size), path[4096];
  for (size_t bytes; (bytes = read_request(fd, request, size));) {
    atomic_fetch_add(&server.requests, 1);
    is_head = !strncmp(request, "HEAD ", 5);
    if (sscanf(request, "%*s %4095s", path) != 1 || !serve(fd, path, request, bytes)) break;
  }
  free(request);
  close(fd);
  return NULL;
}

static inline void *accept_connections(void *argument) {
  for (int fd; (fd = accept(server.fd, NULL, NULL)) >= 0;) {
    if (server.connections == CONNECTIONS_MAX) abort();
    pthread_create(&server.threads[server.connections], NULL, serve_connection, (void *)(intptr_t)fd);
    server.connections++;
  }
  return argument;
}

static inline int listen_on_loopback(uint16_t *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal(listen(fd, 512), 0);
  getsockname(fd, (struct sockaddr *)&address, &bytes);
  *port = ntohs(address.sin_port);
  return fd;
}

static inline void server_start(void) {
  server.connections = server.requests = server.hanging = 0;
  server.fd = listen_on_loopback(&server.port);
  pthread_create(&server.thread, NULL, accept_connections, NULL);
}

/* After the client's end, which closes its connections. */
static inline void server_stop(void) {
  shutdown(server.fd, SHUT_RDWR);
  pthread_join(server.thread, NULL);
  close(server.fd);
  for (unsigned i = 0; i < server.connections; i++) pthread_join(server.threads[i], NULL);
}

/* ---- Fetches ---------------------------------------------------------------------------------------------------- */

static struct counting_account account = COUNTING_ACCOUNT;

struct reply {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  unsigned calls;
  bool success;
  char *json;
  size_t bytes;
};
#define REPLY {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}

static inline void take_reply(void *opaque, bool success, const char *json, size_t bytes) {
  struct reply *reply = opaque;
  pthread_mutex_lock(&reply->mutex);
  reply->calls++;
  reply->success = success;
  free(reply->json);
  reply->json = malloc(bytes + 1);
  memcpy(reply->json, json, bytes);
  reply->json[bytes] = 0;
  reply->bytes = bytes;
  pthread_cond_broadcast(&reply->changed);
  pthread_mutex_unlock(&reply->mutex);
}

static inline void reply_await(struct reply *reply) {
  pthread_mutex_lock(&reply->mutex);
  while (!reply->calls) pthread_cond_wait(&reply->changed, &reply->mutex);
  pthread_mutex_unlock(&reply->mutex);
}

/* `format`: arguments of net.fetch with ' for ", to be read easily. */
static inline char *args_of(const char *format, va_list values) {
  char *text = NULL;
  if (vasprintf(&text, format, values) < 0) abort();
  for (char *c = text; *c; c++)
    if (*c == '\'') *c = '"';
  return text;
}

static inline struct nx_net_fetch *begin(struct nx_net *net, struct reply *reply, const char *format, ...) {
  va_list values;
  va_start(values, format);
  char *args = args_of(format, values);
  va_end(values);
  struct nx_net_fetch *fetch = nx_net_fetch(net, args, strlen(args), "", take_reply, reply);
  free(args);
  return fetch;
}

/* Begins, waits, and checks that it ended as wanted; the JSON is valid until the next call. */
static inline const char *outcome(struct nx_net *net, bool success, const char *format, va_list values) {
  static struct reply reply = REPLY;
  free(reply.json);
  reply.json = NULL;
  reply.calls = 0;
  char *args = args_of(format, values);
  assert_non_null(nx_net_fetch(net, args, strlen(args), "00-trace-parent-01", take_reply, &reply));
  reply_await(&reply);
  if (reply.success != success) fail_msg("%s: %s", args, reply.json);
  free(args);
  return reply.json ? reply.json : "";
}

static inline const char *get(struct nx_net *net, const char *format, ...) {
  va_list values;
  va_start(values, format);
  const char *json = outcome(net, true, format, values);
  va_end(values);
  return json;
}

static inline const char *refused(struct nx_net *net, const char *format, ...) {
  va_list values;
  va_start(values, format);
  const char *json = outcome(net, false, format, values);
  va_end(values);
  return json;
}

/* Not inlined, or gcc takes a sanitizer's check of `text` for a reason to warn of NULL. */
static __attribute__((noinline)) void fail_for(const char *what, const char *part, const char *text) {
  fail_msg("%s %s in %s", what, part, text);
}
static inline void assert_has(const char *text, const char *part) {
  if (!strstr(text, part)) fail_for("no", part, text);
}
static inline void assert_lacks(const char *text, const char *part) {
  if (strcasestr(text, part)) fail_for("there is", part, text);
}

#endif
