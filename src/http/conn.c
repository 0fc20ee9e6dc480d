/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a connection: see the diagrams in conn.h. Each step function does one thing to an owned connection and
 * says how it goes on; run() is the loop around them. */
#include "http/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/server_internal.h"

#define REQUESTS_PER_TURN 2
#define SPARES_MAX 2              /* per worker */
#define KEPT_BYTES 8192           /* of each buffer of a spare */
#define SLACK_BYTES 65536         /* that a response may have: slow readers hold it for long */
#define READ_BYTES 4096
#define READ_BODY_BYTES 65536
#define LINGER_BYTES (1U << 20)

enum step {
  GO_ON, /* do what the phase asks for */
  WAIT,  /* nothing to do before the next event */
  YIELD, /* there is more to do, but others first */
  GONE,  /* closed, or parked: not ours any more, not to be touched */
};

/* --- io: buffers and their cache ----------------------------------------------------------------------------- */

void nx__http_io_destroy(struct nx_http_server *server, struct nx_http_io *io) {
  nx_buf_deinit(&io->in);
  nx_buf_deinit(&io->exchange.response.headers);
  nx_buf_deinit(&io->exchange.response.body);
  free(io);
  nx_account_release(server->options.buffers, sizeof *io);
}

static struct nx_http_io *io_create(struct nx_http_server *server) {
  struct nx_account *buffers = server->options.buffers;
  if (!nx_account_charge(buffers, sizeof(struct nx_http_io))) return NULL;
  struct nx_http_io *io = calloc(1, sizeof *io);
  if (!io) {
    nx_account_release(buffers, sizeof *io);
    return NULL;
  }
  io->limits = &server->options;
  io->in.account = io->exchange.response.headers.account = io->exchange.response.body.account = buffers;
  return io;
}

static struct nx_http_io *io_acquire(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_server *server = worker->server;
  while (!nx_account_charge(server->options.sockets, nx__http_socket_bytes(server)))
    if (!nx__http_shed_stalled(worker, NX__HTTP_STALL_MS)) return NULL;
  struct nx_http_io *io = worker->spare; /* now: what was shed may have become one */
  if (io) {
    worker->spare = io->next_spare;
    worker->spares--;
  } else {
    io = io_create(server);
    if (!io) {
      nx_account_release(server->options.sockets, nx__http_socket_bytes(server));
      return NULL;
    }
  }
  io->conn = conn;
  nx__http_parse_begin(io);
  return io;
}

static void reset_exchange(struct nx_http_io *io, size_t keep_bytes) {
  struct nx_http_response *response = &io->exchange.response;
  nx_buf_reset(&response->headers, keep_bytes);
  nx_buf_reset(&response->body, keep_bytes);
  response->status = 0;
  response->content_type = NULL;
  response->close = false;
  io->exchange.app = NULL;
}

static void io_release(struct nx_http_server *server, struct nx_http_worker *worker, struct nx_http_io *io) {
  nx_account_release(server->options.sockets, nx__http_socket_bytes(server));
  if (!worker || worker->spares == SPARES_MAX) {
    nx__http_io_destroy(server, io);
    return;
  }
  nx_buf_reset(&io->in, KEPT_BYTES);
  io->start = io->parsed = 0;
  reset_exchange(io, KEPT_BYTES);
  io->conn = NULL;
  io->next_spare = worker->spare;
  worker->spare = io;
  worker->spares++;
}

/* Moves the unanswered bytes to the front of the buffer. */
static void compact(struct nx_http_io *io) {
  if (!io->start) return;
  io->in.len -= io->start;
  io->parsed -= io->start;
  memmove(io->in.data, io->in.data + io->start, io->in.len);
  io->start = 0;
}

/* Before a wait for the rest of a request: slow clients, of which there may be thousands, hold what they sent and
 * little more. Harmless when memory is short. */
static void shrink_input(struct nx_http_io *io) {
  compact(io);
  if (io->in.capacity / 2 > io->in.len + 512) nx_buf_shrink(&io->in);
}

/* --- phases -------------------------------------------------------------------------------------------------- */

static void enter(struct nx_http_conn *conn, enum nx__http_phase phase, uint64_t timeout_ms) {
  atomic_store_explicit(&conn->phase, (unsigned char)phase, memory_order_relaxed);
  atomic_store_explicit(&conn->deadline_ns, nx__http_deadline_in(timeout_ms), memory_order_relaxed);
}

void nx__http_conn_assert(const struct nx_http_conn *conn) {
  const struct nx_http_io *io = conn->io;
  (void)io; /* without asserts */
  switch (nx__http_phase(conn)) {
  case NX__HTTP_QUIET: assert(!io); break;
  case NX__HTTP_HEADERS: assert(io && io->conn == conn && io->in.len > io->start); break;
  case NX__HTTP_BODY: assert(io && io->conn == conn && io->headers_done && io->parsed == io->in.len); break;
  case NX__HTTP_WRITING: assert(io && io->conn == conn && io->sent < io->total); break;
  case NX__HTTP_LINGER: assert(!io); break;
  case NX__HTTP_ANSWERING: assert(false && "never released"); break;
  }
}

void nx__http_conn_init(struct nx_http_conn *conn, int fd, uint64_t idle_timeout_ms) {
  unsigned char owner = atomic_load(&conn->owner); /* pairs with the store in nx__http_conn_close */
  assert(owner == NX__HTTP_FREE);
  (void)owner;
  conn->fd = fd;
  conn->io = NULL;
  conn->drained = conn->until_eagain = false;
  atomic_store_explicit(&conn->served, false, memory_order_relaxed);
  enter(conn, NX__HTTP_QUIET, idle_timeout_ms);
  atomic_store(&conn->owner, NX__HTTP_OWNED);
}

void nx__http_conn_close(struct nx_http_server *server, struct nx_http_worker *worker, struct nx_http_conn *conn) {
  int fd = conn->fd;
  if (conn->io) io_release(server, worker, conn->io);
  conn->io = NULL;
  /* FREE first: from close on the kernel may give the number to a connection accepted by another worker. */
  atomic_store(&conn->owner, NX__HTTP_FREE);
  close(fd);
  nx_account_release(server->options.sockets, NX__HTTP_IDLE_SOCKET_BYTES);
  atomic_fetch_sub(&server->connections, 1);
}

static enum step end(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  nx__http_conn_close(worker->server, worker, conn);
  return GONE;
}

void nx__http_conn_cut(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct linger none = {.l_onoff = 1, .l_linger = 0};
  setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  nx__http_conn_close(worker->server, worker, conn);
}

/* --- writing ------------------------------------------------------------------------------------------------- */

static enum step send_response(struct nx_http_worker *worker, struct nx_http_conn *conn);
static enum step refuse(struct nx_http_worker *worker, struct nx_http_conn *conn, struct nx__http_refusal why);

/* The response stands in the exchange: says so to the application, and sends it. */
static enum step respond(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_server *server = worker->server;
  struct nx_http_io *io = conn->io;
  struct nx_http_response *response = &io->exchange.response;
  bool drains = atomic_load_explicit(&server->draining, memory_order_relaxed);
  io->closing = response->close || drains || !io->keep_alive;
  /* A peer that asked for the end sends nothing more; any other may be sending the rest, or the next request, already. */
  io->polite = io->closing && (io->keep_alive || nx__http_phase(conn) != NX__HTTP_ANSWERING);
  nx__http_respond_begin(io);
  if (response->body.capacity - response->body.len > SLACK_BYTES) nx_buf_shrink(&response->body);
  if (server->app.finished) server->app.finished(server->app.self, &io->exchange);
  enter(conn, NX__HTTP_WRITING, server->options.write_timeout_ms);
  return send_response(worker, conn);
}

static enum step refuse_memory(struct nx_http_worker *worker, struct nx_http_conn *conn, const char *detail,
                               size_t bytes) {
  return refuse(worker, conn, (struct nx__http_refusal){NX_ERR_NO_MEMORY, 503, detail, bytes});
}

/* The application's answer, unless it ran out of memory while writing it. */
static enum step answer(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  const struct nx_http_response *response = &conn->io->exchange.response;
  const struct nx_buf *failed = response->headers.failed ? &response->headers : &response->body;
  if (failed->failed) return refuse_memory(worker, conn, "no memory for the response", failed->starved_bytes);
  return respond(worker, conn);
}

static enum step refuse(struct nx_http_worker *worker, struct nx_http_conn *conn, struct nx__http_refusal why) {
  const struct nx_http_app *app = &worker->server->app;
  struct nx_http_io *io = conn->io;
  struct nx_http_response *response = &io->exchange.response;
  void *attached = io->exchange.app;
  reset_exchange(io, KEPT_BYTES);
  io->exchange.app = attached;
  response->status = why.status;
  app->refuse(app->self, response, why.code, why.detail, why.bytes);
  if (response->headers.failed) nx_buf_reset(&response->headers, 0);
  if (response->body.failed) nx_buf_reset(&response->body, 0);
  response->close = true;
  return respond(worker, conn);
}

/* Shuts our side and reads on for a while: closing with unread input would reset the connection, and the reset may
 * overtake the answer (RFC 9112, 9.6). */
static enum step linger(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  io_release(worker->server, worker, conn->io);
  conn->io = NULL;
  conn->discard_left = LINGER_BYTES;
  if (shutdown(conn->fd, SHUT_WR) < 0) return end(worker, conn);
  enter(conn, NX__HTTP_LINGER, NX__HTTP_LINGER_MS);
  return GO_ON;
}

static enum step response_sent(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_io *io = conn->io;
  bool leftover = io->parsed < io->in.len;
  if (io->closing) return io->polite || leftover || !conn->drained ? linger(worker, conn) : end(worker, conn);
  reset_exchange(io, KEPT_BYTES);
  io->start = io->parsed;
  if (!leftover) {
    nx_buf_reset(&io->in, KEPT_BYTES);
    io->start = io->parsed = 0;
  }
  nx__http_parse_begin(io);
  atomic_store_explicit(&conn->served, true, memory_order_relaxed);
  if (leftover)
    enter(conn, NX__HTTP_HEADERS, worker->server->options.header_timeout_ms);
  else
    enter(conn, NX__HTTP_QUIET, worker->server->options.idle_timeout_ms);
  if (!leftover && conn->drained) return GO_ON;
  return --worker->turn_left ? GO_ON : YIELD;
}

/* Until the socket takes no more: only then the kernel reports when it does again. */
static enum step send_response(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_io *io = conn->io;
  while (io->sent < io->total) {
    struct iovec pieces[4];
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)nx__http_respond_rest(io, pieces)};
    ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    if (sent >= 0)
      io->sent += (size_t)sent;
    else if (errno == EAGAIN)
      return WAIT;
    else if (errno != EINTR)
      return end(worker, conn);
  }
  return response_sent(worker, conn);
}

static enum step discard(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  char scratch[READ_BYTES];
  while (conn->discard_left) {
    ssize_t got = recv(conn->fd, scratch, sizeof scratch, 0);
    if (got < 0 && errno == EAGAIN) return WAIT;
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    conn->discard_left -= (size_t)got < conn->discard_left ? (unsigned)got : conn->discard_left;
  }
  return end(worker, conn);
}

/* --- reading ------------------------------------------------------------------------------------------------- */

/* A complete request. Once the application parked it, another worker may own the connection already. */
static enum step handle(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  const struct nx_http_app *app = &worker->server->app;
  enter(conn, NX__HTTP_ANSWERING, 0);
  if (app->handle(app->self, &conn->io->exchange) == NX_HTTP_PARKED) return GONE;
  return answer(worker, conn);
}

/* Room grows with what was sent, not with what was announced. */
static size_t bytes_to_expect(const struct nx_http_conn *conn) {
  uint64_t missing = nx__http_phase(conn) == NX__HTTP_BODY ? conn->io->parser.content_length : 0;
  return missing < READ_BYTES ? READ_BYTES : missing > READ_BODY_BYTES ? READ_BODY_BYTES : (size_t)missing;
}

/* One read. False at the end of the input, or when the connection broke. */
static bool fill(struct nx_http_conn *conn) {
  struct nx_http_io *io = conn->io;
  if (io->in.capacity - io->in.len < READ_BYTES / 4) {
    compact(io);
    if (!nx_buf_reserve(&io->in, bytes_to_expect(conn))) return true;
  }
  size_t room = io->in.capacity - io->in.len;
  ssize_t got = recv(conn->fd, io->in.data + io->in.len, room, 0);
  if (got > 0) {
    io->in.len += (size_t)got;
    conn->drained = (size_t)got < room && !conn->until_eagain;
    return true;
  }
  if (got < 0 && errno == EINTR) return true;
  if (got < 0 && errno == EAGAIN) {
    conn->drained = true;
    conn->until_eagain = false;
    return true;
  }
  return false;
}

/* The application needs no more for its answer. */
static bool answers_head(const struct nx_http_worker *worker, struct nx_http_io *io) {
  const struct nx_http_app *app = &worker->server->app;
  if (!app->answer_head) return false;
  nx__http_parse_fill(io);
  if (!app->answer_head(app->self, &io->exchange)) return false;
  io->exchange.response.close = true;
  return true;
}

/* The head is complete and the body is not: has it sent, if the client waits for a word. */
static enum step enter_body(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  struct nx_http_io *io = conn->io;
  if (answers_head(worker, io)) return answer(worker, conn);
  enter(conn, NX__HTTP_BODY, worker->server->options.body_timeout_ms);
  if (!io->expects_continue || io->body_len) return GO_ON;
  io->expects_continue = false;
  /* Nothing else is on its way to the client, so that the socket takes these few bytes or is broken. */
  ssize_t sent = send(conn->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL);
  return sent == (ssize_t)sizeof go_on - 1 ? GO_ON : end(worker, conn);
}

static enum step parse(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_io *io = conn->io;
  if (nx__http_phase(conn) == NX__HTTP_QUIET)
    enter(conn, NX__HTTP_HEADERS, worker->server->options.header_timeout_ms);
  switch (nx__http_parse(io)) {
  case NX__HTTP_COMPLETE: return handle(worker, conn);
  case NX__HTTP_REFUSED: return refuse(worker, conn, io->refusal);
  case NX__HTTP_MORE: break;
  }
  return nx__http_phase(conn) == NX__HTTP_HEADERS && io->headers_done ? enter_body(worker, conn) : GO_ON;
}

static enum step receive(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_server *server = worker->server;
  if (!conn->io && !(conn->io = io_acquire(worker, conn))) return end(worker, conn);
  if (conn->io->parsed < conn->io->in.len) return parse(worker, conn);
  if (!conn->drained) {
    if (!fill(conn)) return end(worker, conn);
    if (!conn->io->in.failed) return GO_ON;
    return refuse_memory(worker, conn, "no memory for the request", conn->io->in.starved_bytes);
  }
  bool quiet = nx__http_phase(conn) == NX__HTTP_QUIET;
  return quiet && atomic_load(&server->draining) ? end(worker, conn) : WAIT;
}

/* --- the loop ------------------------------------------------------------------------------------------------ */

static enum step advance(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  switch (nx__http_phase(conn)) {
  case NX__HTTP_WRITING: return send_response(worker, conn);
  case NX__HTTP_LINGER: return discard(worker, conn);
  default: return receive(worker, conn);
  }
}

/* Nobody will own the connection for a while: gives back the memory it does not need meanwhile. */
static void settle(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  struct nx_http_io *io = conn->io;
  switch (nx__http_phase(conn)) {
  case NX__HTTP_QUIET:
    if (io) io_release(worker->server, worker, io);
    conn->io = NULL;
    break;
  case NX__HTTP_HEADERS:
  case NX__HTTP_BODY:
    shrink_input(io);
    break;
  case NX__HTTP_WRITING:
    if (io->parsed < io->in.len) break;
    nx_buf_deinit(&io->in); /* the request was answered; a slow reader shall not hold it */
    io->start = io->parsed = 0;
    break;
  default: break;
  }
  nx__http_conn_assert(conn);
}

static void run(struct nx_http_worker *worker, struct nx_http_conn *conn, enum step step) {
  for (;;) {
    switch (step) {
    case GO_ON: step = advance(worker, conn); break;
    case WAIT:
      settle(worker, conn);
      if (nx__http_release(conn)) return;
      step = GO_ON;
      break;
    case YIELD:
      settle(worker, conn);
      nx__http_conn_yield(worker->server, conn);
      return;
    case GONE: return;
    }
  }
}

/* The socket is writable, so that registering it again raises an event even when all its input is in our buffer. An
 * event that somebody took while we were still the owner is raised again. */
void nx__http_conn_yield(struct nx_http_server *server, struct nx_http_conn *conn) {
  unsigned char owned;
  do {
    atomic_store(&conn->owner, NX__HTTP_OWNED);
    nx__http_watch(server, EPOLL_CTL_MOD, conn->fd, NX__HTTP_EVENTS, conn);
    owned = NX__HTTP_OWNED;
  } while (!atomic_compare_exchange_strong(&conn->owner, &owned, NX__HTTP_IDLE));
}

void nx__http_conn_event(struct nx_http_worker *worker, struct nx_http_conn *conn, uint32_t events) {
  if (!nx__http_acquire(conn)) return;
  conn->drained = false;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) conn->until_eagain = true;
  worker->turn_left = REQUESTS_PER_TURN;
  run(worker, conn, GO_ON);
}

void nx__http_conn_proceed(struct nx_http_worker *worker, struct nx_http_exchange *exchange) {
  const struct nx_http_app *app = &worker->server->app;
  struct nx_http_io *io = (struct nx_http_io *)((char *)exchange - offsetof(struct nx_http_io, exchange));
  struct nx_http_conn *conn = io->conn;
  if (app->proceed(app->self, exchange) == NX_HTTP_PARKED) return;
  worker->turn_left = REQUESTS_PER_TURN;
  run(worker, conn, answer(worker, conn));
}

void nx__http_conn_timeout(struct nx_http_worker *worker, struct nx_http_conn *conn) {
  static const struct nx__http_refusal headers = {NX_ERR_REQUEST_TIMEOUT, 408, "the request headers took too long", 0};
  static const struct nx__http_refusal body = {NX_ERR_REQUEST_TIMEOUT, 408, "the request body took too long", 0};
  enum step step = GONE;
  switch (nx__http_phase(conn)) {
  case NX__HTTP_HEADERS: step = refuse(worker, conn, headers); break;
  case NX__HTTP_BODY: step = refuse(worker, conn, body); break;
  case NX__HTTP_WRITING: nx__http_conn_cut(worker, conn); return;
  default: step = end(worker, conn); break;
  }
  run(worker, conn, step);
}
