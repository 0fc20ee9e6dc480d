/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: who may touch it, what it waits for, and the request it is working on. Internal to src/http.
 *
 * Ownership of a connection (`owner`), decided by compare-and-swap because several workers share one epoll:
 *
 *              accept             event                    event on an owned one
 *        FREE ───────▶ IDLE ──────────────▶ OWNED ───────────────────────────────▶ PENDING
 *          ▲            ▲  nx__http_acquire  │ │ ▲                                   │
 *          │            └────────────────────┘ │ └───────────────────────────────────┘
 *          │        nx__http_release (EAGAIN)  │      nx__http_release fails: go on reading
 *          └───────────────────────────────────┴── nx__http_conn_close (from PENDING too)
 *
 * Events are edge-triggered: the kernel says once that there are bytes, or a FIN. So an owner lets go only after
 * EAGAIN, and an event that arrives meanwhile is kept as PENDING. Accepting passes through OWNED until epoll has the
 * descriptor. A stale event (the descriptor was closed and given to another connection between epoll_wait and
 * nx__http_acquire) costs one read that finds nothing.
 *
 * What it waits for (`phase`), and the facts that hold whenever nobody owns it (nx__http_conn_assert):
 *
 *   QUIET ──first byte──▶ HEADERS ──blank line──▶ BODY ──last byte──▶ ANSWERING ──NX_HTTP_DONE──▶ WRITING
 *     ▲                      │                      │      (handle, parked, proceed)                │    │
 *     │                      └──────────────────────┴─refused, or answered from the head──▶ WRITING ┤    │ closing,
 *     └─────────────────────────────────────kept alive──────────────────────────────────────────────┘    ▼ politely
 *                                                                                                      LINGER
 *   QUIET      between requests        no io             deadline idle_timeout    then closed without a word
 *   HEADERS    part of a request head  io, bytes in it   deadline header_timeout  then 408
 *   BODY       head complete           io                deadline body_timeout    then 408
 *   ANSWERING  the application's turn  never unowned     no deadline
 *   WRITING    the socket is full      io, bytes left    deadline write_timeout   then reset
 *   LINGER     answered, sending side shut: input is discarded so that the peer reads the answer before a reset;
 *                                      no io             deadline 2 s             then closed
 *
 * Threads: everything but the atomics belongs to the owner. */
#ifndef NX_HTTP_CONN_H
#define NX_HTTP_CONN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/uio.h>

#include <llhttp.h>

#include "base/buf.h"
#include "base/clock.h"
#include "http/server.h"

struct nx_http_worker;

enum nx__http_owner { NX__HTTP_FREE, NX__HTTP_IDLE, NX__HTTP_OWNED, NX__HTTP_PENDING };

enum nx__http_phase {
  NX__HTTP_QUIET,
  NX__HTTP_HEADERS,
  NX__HTTP_BODY,
  NX__HTTP_ANSWERING,
  NX__HTTP_WRITING,
  NX__HTTP_LINGER,
};

/* One cache line: 10,000 quiet connections cost 640 KB, and neighbours do not slow each other down. */
struct nx_http_conn {
  _Atomic(unsigned char) owner;
  _Atomic(unsigned char) phase;    /* written by the owner; others read it as a hint and look again once they own */
  bool drained;                    /* the last read emptied the socket and no event came since */
  bool until_eagain;               /* a FIN may lie behind the bytes: a short read is no proof of emptiness */
  _Atomic(bool) served;            /* it had an answer: no stranger that only takes up room */
  int fd;
  unsigned discard_left;           /* LINGER: bytes still worth reading */
  _Atomic(uint64_t) deadline_ns;   /* on CLOCK_MONOTONIC_COARSE; as phase */
  struct nx_http_io *io;           /* NULL between requests */
} __attribute__((aligned(64)));

/* Headers that nexus looks at; all others are checked for syntax and skipped. */
enum nx__http_header {
  NX__HTTP_HOST,
  NX__HTTP_CONTENT_TYPE,
  NX__HTTP_AUTHORIZATION,
  NX__HTTP_EXPECT,
  NX__HTTP_TRANSFER_ENCODING,
  NX__HTTP_IF_MATCH,
  NX__HTTP_IF_NONE_MATCH,
  NX__HTTP_TRACEPARENT,
  NX__HTTP_REQUEST_ID,
  NX__HTTP_HEADER_COUNT,
};

struct nx__http_span {
  uint32_t at; /* relative to io->start, so that the buffer may move; 0: absent */
  uint32_t len;
};

struct nx__http_refusal {
  enum nx_error_code code; /* NX_OK: none */
  int status;
  const char *detail; /* constant text */
  size_t bytes;       /* of memory that could not be had; 0: that is not why */
};

#define NX__HTTP_HEAD_BYTES 320

/* What a connection needs only while a request is on its way: kept by the connection from the first byte of a request
 * to the last byte of its answer, then handed to a small cache of the worker. */
struct nx_http_io {
  struct nx_http_conn *conn;
  const struct nx_http_options *limits;
  struct nx_http_io *next_spare;

  /* in: [0, start) answered before; [start, parsed) this request; [parsed, len) not looked at yet. */
  struct nx_buf in;
  size_t start, parsed;
  llhttp_t parser;
  struct nx__http_span target, name, value, headers[NX__HTTP_HEADER_COUNT];
  size_t body_at, body_len;  /* body_at relative to start; 0: not known yet */
  size_t framing_bytes;      /* of a chunked body: everything that is not body */
  bool in_value;             /* a header value was complete: the next field starts a new header */
  bool target_done, headers_done, expects_continue, keep_alive;
  struct nx__http_refusal refusal;

  struct nx_http_exchange exchange;

  char head[NX__HTTP_HEAD_BYTES]; /* status line and our own header lines */
  size_t head_len, sent, total;   /* of the whole response */
  bool bodiless, closing, polite; /* polite: linger when closing */
};

/* --- ownership ----------------------------------------------------------------------------------------------- */

/* For an event: true when the caller owns the connection now; otherwise its owner will see that something came. */
static inline bool nx__http_acquire(struct nx_http_conn *conn) {
  unsigned char owner = atomic_load_explicit(&conn->owner, memory_order_relaxed);
  for (;;) {
    if (owner == NX__HTTP_FREE || owner == NX__HTTP_PENDING) return false;
    unsigned char next = owner == NX__HTTP_IDLE ? NX__HTTP_OWNED : NX__HTTP_PENDING;
    if (atomic_compare_exchange_weak(&conn->owner, &owner, next)) return next == NX__HTTP_OWNED;
  }
}

/* For the sweep and for eviction: takes an idle connection or leaves no trace. */
static inline bool nx__http_try_own(struct nx_http_conn *conn) {
  unsigned char idle = NX__HTTP_IDLE;
  return atomic_compare_exchange_strong(&conn->owner, &idle, NX__HTTP_OWNED);
}

/* False when an event came meanwhile: the caller still owns the connection and must read (or write) again. */
static inline bool nx__http_release(struct nx_http_conn *conn) {
  unsigned char owned = NX__HTTP_OWNED;
  if (atomic_compare_exchange_strong(&conn->owner, &owned, NX__HTTP_IDLE)) return true;
  conn->drained = false;
  conn->until_eagain = true;
  atomic_store(&conn->owner, NX__HTTP_OWNED);
  return false;
}

static inline enum nx__http_phase nx__http_phase(const struct nx_http_conn *conn) {
  return (enum nx__http_phase)atomic_load_explicit(&conn->phase, memory_order_relaxed);
}

static inline uint64_t nx__http_deadline(const struct nx_http_conn *conn) {
  return atomic_load_explicit(&conn->deadline_ns, memory_order_relaxed);
}

/* Deadlines are swept every 250 ms, so the coarse clock (4 ms, no time stamp counter read) is good enough. */
static inline uint64_t nx__http_now(void) { return nx_clock_read_ns(CLOCK_MONOTONIC_COARSE); }

/* 0 is no timeout, but deadlines stay in order: eviction goes by them. */
static inline uint64_t nx__http_deadline_in(uint64_t timeout_ms) {
  return nx__http_now() + (timeout_ms ? timeout_ms * NX_NS_PER_MS : UINT64_C(1) << 62);
}

#define NX__HTTP_LINGER_MS 2000u

/* How long the phase may take that waits for the client with a message half way, or lingers; 0 of others. */
static inline uint64_t nx__http_phase_timeout_ms(const struct nx_http_options *options, enum nx__http_phase phase) {
  switch (phase) {
  case NX__HTTP_HEADERS: return options->header_timeout_ms;
  case NX__HTTP_BODY: return options->body_timeout_ms;
  case NX__HTTP_WRITING: return options->write_timeout_ms;
  case NX__HTTP_LINGER: return NX__HTTP_LINGER_MS;
  default: return 0;
  }
}

/* --- conn.c -------------------------------------------------------------------------------------------------- */

/* Makes a FREE slot the connection `fd`, OWNED and QUIET. */
void nx__http_conn_init(struct nx_http_conn *conn, int fd, uint64_t idle_timeout_ms);
/* `events` of epoll. Runs the connection as far as it goes. */
void nx__http_conn_event(struct nx_http_worker *worker, struct nx_http_conn *conn, uint32_t events);
/* A parked exchange goes on. */
void nx__http_conn_proceed(struct nx_http_worker *worker, struct nx_http_exchange *exchange);
/* The deadline of an owned connection has passed. */
void nx__http_conn_timeout(struct nx_http_worker *worker, struct nx_http_conn *conn);
/* Gives an owned connection up and has the kernel report it again, behind all others that are ready. */
void nx__http_conn_yield(struct nx_http_server *server, struct nx_http_conn *conn);
/* Owned → FREE. `worker` may be NULL once there are none. */
void nx__http_conn_close(struct nx_http_server *server, struct nx_http_worker *worker, struct nx_http_conn *conn);
/* The same with a reset, which makes the kernel drop unsent bytes at once rather than keep them for minutes. */
void nx__http_conn_cut(struct nx_http_worker *worker, struct nx_http_conn *conn);
void nx__http_conn_assert(const struct nx_http_conn *conn);
void nx__http_io_destroy(struct nx_http_server *server, struct nx_http_io *io);

/* --- parse.c ------------------------------------------------------------------------------------------------- */

enum nx__http_parse { NX__HTTP_MORE, NX__HTTP_COMPLETE, NX__HTTP_REFUSED };

/* A new request starts at io->start. */
void nx__http_parse_begin(struct nx_http_io *io);
/* Parses what was read and not looked at yet. COMPLETE: exchange.request is filled. REFUSED: io->refusal is. */
enum nx__http_parse nx__http_parse(struct nx_http_io *io);
/* exchange.request from the head, once that is complete, and without a body: valid until more is read. */
void nx__http_parse_fill(struct nx_http_io *io);
/* HEAD as far as it is known: an answer to it has no body. */
bool nx__http_parse_is_head(const struct nx_http_io *io);

/* --- respond.c ----------------------------------------------------------------------------------------------- */

/* Builds the head for exchange.response and sets head_len, sent, total. */
void nx__http_respond_begin(struct nx_http_io *io);
/* What is still to be sent, as at most four pieces. */
int nx__http_respond_rest(struct nx_http_io *io, struct iovec pieces[4]);

#endif
