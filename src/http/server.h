/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP/1.1 server: elastic leader/followers over one shared epoll (docs/architecture.md, "How threads meet sockets").
 *
 * Knows bytes, connections and limits, not handlers: every complete request is given to the application's `handle`,
 * on the worker thread that read it. A worker that would have to wait parks the exchange instead (NX_HTTP_PARKED);
 * whichever worker is free next takes it up again through `next_ready`.
 *
 * Ownership: the server owns connections, exchanges and their buffers. An exchange is valid from `handle` until
 *            NX_HTTP_DONE is returned for it; during `answer_head` only, unless that completes it.
 * Threads:   `answer_head`, `handle`, `proceed` and `next_ready` run on worker threads, at most one of them per exchange at
 *            a time.
 * Limits:    header bytes, body bytes, time to send either, idle time, time to read the response, connections. */
#ifndef NX_HTTP_SERVER_H
#define NX_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct nx_str {
  const char *data; /* not NUL-terminated; NULL when absent */
  size_t len;
};

enum nx_http_method {
  NX_HTTP_GET,
  NX_HTTP_HEAD,
  NX_HTTP_POST,
  NX_HTTP_PUT,
  NX_HTTP_DELETE,
  NX_HTTP_OPTIONS,
  NX_HTTP_OTHER,
};

/* Everything points into the connection's buffer and lives as long as the exchange. */
struct nx_http_request {
  enum nx_http_method method;
  struct nx_str path;  /* as sent, up to '?'; percent-escapes are not decoded */
  struct nx_str query; /* after '?' */
  struct nx_str content_type, if_match, if_none_match, authorization, traceparent, request_id;
  struct nx_str body;  /* whole; chunked bodies are joined */
};

struct nx_http_response {
  int status;
  const char *content_type; /* NULL when there is no body; at most 96 bytes are sent */
  struct nx_buf headers;    /* further header lines, each ended by CRLF; values must be free of CR and LF */
  struct nx_buf body;       /* when this one or `headers` ran out of memory (failed), a 503 is sent instead */
  bool close;               /* say Connection: close and do so */
};

struct nx_http_exchange {
  struct nx_http_request request;
  struct nx_http_response response;
  void *app;     /* the application's; NULL when `answer_head` or `handle` is called */
};

enum nx_http_next {
  NX_HTTP_DONE,   /* the response is complete */
  NX_HTTP_PARKED, /* comes back through next_ready */
};

/* `handle` and `refuse` are required; the others may be NULL where there is nothing to do. */
struct nx_http_app {
  void *self; /* borrowed; given to every callback */
  /* The head of a request has come, and its body has not, or not all of it: true when the response is complete without.
   * The client is told at once, gets no 100 Continue, and the connection is closed. Else `handle` comes later, with an
   * exchange as if nothing had been asked. */
  bool (*answer_head)(void *self, struct nx_http_exchange *exchange);
  enum nx_http_next (*handle)(void *self, struct nx_http_exchange *exchange);
  /* A parked exchange that may go on now, on this thread; NULL when there is none. Asked before every wait for
   * sockets, so executions that queue are served before new connections. */
  struct nx_http_exchange *(*next_ready)(void *self);
  enum nx_http_next (*proceed)(void *self, struct nx_http_exchange *exchange);
  /* Runs first (last) on every worker thread; a failed init ends the start of that thread. */
  int (*thread_init)(void *self, struct nx_error *err);
  void (*thread_exit)(void *self);
  /* Asked on a worker between requests: true ends this thread, and another takes its place. */
  bool (*thread_is_spent)(void *self);
  /* Memory for buffers is short: clients that have been sending or receiving for longer than `hurried_timeout_ms`, and
   * slower than 1 MiB/s beyond it, are given up. */
  bool (*is_hurried)(void *self);
  /* A request that the server itself refused: fills the response with a problem (RFC 9457). response->status is set
   * already and should stay: mostly the status of `code`, but HTTP has closer ones for some (414, 417, 505). `bytes` is
   * how much memory could not be had, when that is why. */
  void (*refuse)(void *self, struct nx_http_response *response, enum nx_error_code code, const char *detail, size_t bytes);
  /* Every finished exchange, refusals included, for metrics: once for each `handle` and each `answer_head` that says
   * true, just before the response is written. `app` is exchange->app as they left it; of a request that the server
   * refused, `request` is not to be read (its buffer may have moved). Not called for exchanges that are still parked when
   * the server is destroyed. */
  void (*finished)(void *self, const struct nx_http_exchange *exchange);
};

struct nx_http_options {
  const char *host;          /* a numeric IPv4 or IPv6 address; "::" serves both; read by create only */
  uint16_t port;             /* 0: any free one; see nx_http_server_port */
  unsigned max_connections;  /* beyond it the longest idle one is closed, strangers first */
  size_t max_header_bytes;   /* request line and headers together */
  size_t max_body_bytes;
  /* From the first byte of a request to the end of its head; from there to the end of its body; between requests;
   * from the first byte of a response until the peer took the last. 0: none. Checked every 250 ms. */
  uint64_t header_timeout_ms, body_timeout_ms, idle_timeout_ms, write_timeout_ms;
  uint64_t hurried_timeout_ms; /* instead of body_timeout_ms and write_timeout_ms while the app is hurried */
  unsigned live_threads;     /* how many should wait for sockets at a time: about cores + 2 */
  unsigned max_threads;      /* permits to execute + 1 */
  size_t thread_stack_bytes; /* with a guard page below; 0: the system's default */
  uint64_t thread_idle_timeout_ms; /* after so long in the parked state a thread ends; 0: never */
  /* SO_SNDBUF and SO_RCVBUF of every connection, of which the kernel may take twice as much each (socket(7)); 0: the
   * system's default. */
  unsigned socket_buffer_bytes;
  struct nx_account *buffers;   /* charged for all buffers; borrowed, as long as the server lives; NULL: nobody */
  struct nx_account *sockets;   /* charged for each connection: 8 KiB, and 2 × socket_buffer_bytes while it is used */
};

struct nx_http_server;

/* Binds and listens; serves from nx_http_server_start on. `options` is copied, `app` too. */
int nx_http_server_create(struct nx_http_server **out, const struct nx_http_options *options,
                          const struct nx_http_app *app, struct nx_error *err);
int nx_http_server_start(struct nx_http_server *server, struct nx_error *err);
uint16_t nx_http_server_port(const struct nx_http_server *server);

/* The reason phrase of a status; empty when there is none. */
const char *nx_http_reason(int status);

/* Any thread: there is a ready exchange (next_ready) although no worker is about to ask for one. */
void nx_http_server_wake(struct nx_http_server *server);
/* Any thread, once per call of `handle` at most: the app knows that one worker has been inside for long, or is going to
 * be (that it left again): another parked thread is woken (allowed to park). */
void nx_http_server_thread_blocked(struct nx_http_server *server);
void nx_http_server_thread_unblocked(struct nx_http_server *server);

struct nx_http_stats {
  unsigned connections;
  unsigned threads;
  uint64_t accepted, evicted;
};
void nx_http_server_stats(const struct nx_http_server *server, struct nx_http_stats *out);

/* Drain: stop accepting, close idle connections, answer what is in flight with Connection: close. */
void nx_http_server_drain(struct nx_http_server *server);
/* True when no connection is left. */
bool nx_http_server_drained(const struct nx_http_server *server);
/* Ends the threads and closes everything. Only after drain; cuts what is still in flight. */
void nx_http_server_destroy(struct nx_http_server *server);

#endif
