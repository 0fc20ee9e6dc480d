/* SPDX-License-Identifier: Apache-2.0
 *
 * Creation, the shared epoll, the sweep of deadlines, draining, the end. */
#include "http/server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "http/server_internal.h"

#define SWEEP_MS 250
#define RETRY_MS 25 /* instead, while somebody waits to be accepted */
/* Who moves a message at such a rate (1 MiB/s) is not given up when memory for buffers is short. */
#define HURRIED_BYTES_PER_MS 1024u
/* Descriptors below this plus max_connections may be connections: the process has others, and gets them first. */
#define OTHER_DESCRIPTORS 4096

/* --- epoll --------------------------------------------------------------------------------------------------- */

int nx__http_watch(struct nx_http_server *server, int op, int fd, uint32_t events, void *what) {
  struct epoll_event event = {.events = events, .data.ptr = what};
  return epoll_ctl(server->epoll_fd, op, fd, &event);
}

/* One shot, so that no tick needs a read and an idle server has none. Arming an armed one is harmless. */
void nx__http_arm_sweep(struct nx_http_server *server) {
  long ms = atomic_load(&server->accept_again) ? RETRY_MS : SWEEP_MS;
  const struct itimerspec soon = {.it_value = {.tv_nsec = ms * (long)NX_NS_PER_MS}};
  timerfd_settime(server->timer_fd, 0, &soon, NULL);
}

/* How much earlier than its deadline a connection is given up when memory for buffers is short. */
static uint64_t hurry_ns(const struct nx_http_server *server, const struct nx_http_conn *conn) {
  const struct nx_http_options *options = &server->options;
  enum nx__http_phase phase = nx__http_phase(conn);
  bool moves = phase == NX__HTTP_BODY || phase == NX__HTTP_WRITING;
  uint64_t timeout_ms = moves ? nx__http_phase_timeout_ms(options, phase) : 0;
  return timeout_ms > options->hurried_timeout_ms ? (timeout_ms - options->hurried_timeout_ms) * NX_NS_PER_MS : 0;
}

/* Of a connection that the caller owns. Whoever gets on at a fair rate is no slow client, only one with much to move. */
static bool is_over(const struct nx_http_server *server, const struct nx_http_conn *conn, uint64_t now, bool hurried) {
  uint64_t deadline = nx__http_deadline(conn), hurry = hurried ? hurry_ns(server, conn) : 0;
  if (!hurry || deadline <= now) return deadline <= now;
  size_t moved = nx__http_phase(conn) == NX__HTTP_WRITING ? conn->io->sent : conn->io->in.len;
  return deadline + moved / HURRIED_BYTES_PER_MS * NX_NS_PER_MS <= now + hurry;
}

static void sweep(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  uint64_t now = nx__http_now();
  bool hurried = server->app.is_hurried && server->app.is_hurried(server->app.self);
  for (int fd = 0, top = atomic_load(&server->top_fd); fd <= top; fd++) {
    struct nx_http_conn *conn = &server->conns[fd];
    if (atomic_load(&conn->owner) != NX__HTTP_IDLE) continue;
    if (nx__http_deadline(conn) > now + (hurried ? hurry_ns(server, conn) : 0)) continue;
    if (!nx__http_try_own(conn)) continue;
    if (is_over(server, conn, now, hurried)) /* it may have been used in between */
      nx__http_conn_timeout(worker, conn);
    else
      nx__http_conn_yield(server, conn);
  }
  if (atomic_exchange(&server->accept_again, false)) nx__http_accept(worker);
  if (atomic_exchange(&server->start_failed, false)) nx__http_workers_grow(server);
  /* A connection accepted after this look arms the sweep itself. */
  if (atomic_load(&server->connections)) nx__http_arm_sweep(server);
}

void nx__http_serve_once(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  struct epoll_event event;
  /* One event at a time: a batch would make the later ones wait for the handlers of the earlier ones. */
  if (epoll_wait(server->epoll_fd, &event, 1, -1) != 1) return;
  void *what = event.data.ptr;
  if (what == &server->wake_fd) {
    worker->was_woken = true;
    return;
  }
  bool ended = atomic_load_explicit(&server->spent_ended, memory_order_relaxed) && atomic_exchange(&server->spent_ended, false);
  if (!worker->has_successor || ended) worker->has_successor = nx__http_workers_grow(server);
  if (what == &server->timer_fd)
    sweep(worker);
  else if (what == &server->listener)
    nx__http_accept(worker);
  else
    nx__http_conn_event(worker, what, event.events);
}

/* --- life ---------------------------------------------------------------------------------------------------- */

static int open_descriptors(struct nx_http_server *server, struct nx_error *err) {
  server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (server->epoll_fd < 0) return nx_error_sys(err, "epoll_create1");
  server->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (server->timer_fd < 0) return nx_error_sys(err, "timerfd_create");
  server->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (server->wake_fd < 0) return nx_error_sys(err, "eventfd");
  if (nx__http_watch(server, EPOLL_CTL_ADD, server->timer_fd, EPOLLIN | EPOLLET, &server->timer_fd) < 0 ||
      nx__http_watch(server, EPOLL_CTL_ADD, server->wake_fd, EPOLLIN | EPOLLET, &server->wake_fd) < 0)
    return nx_error_sys(err, "epoll_ctl");
  return nx__http_listen(server, err);
}

static int open_server(struct nx_http_server *server, struct nx_error *err) {
  size_t bytes = server->slots * sizeof *server->conns;
  void *conns = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (conns == MAP_FAILED) return nx_error_sys(err, "connection table of %zu bytes", bytes);
  server->conns = conns;
  return open_descriptors(server, err);
}

int nx_http_server_create(struct nx_http_server **out, const struct nx_http_options *options,
                          const struct nx_http_app *app, struct nx_error *err) {
  struct nx_http_server *server = aligned_alloc(_Alignof(struct nx_http_server), sizeof *server);
  if (!server) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the HTTP server");
  memset(server, 0, sizeof *server);
  server->options = *options;
  server->app = *app;
  server->slots = options->max_connections + OTHER_DESCRIPTORS;
  server->live_max = options->live_threads < options->max_threads ? options->live_threads : options->max_threads;
  server->epoll_fd = server->timer_fd = server->wake_fd = server->listener.fd = server->spare_fd = server->waiting_fd = -1;
  pthread_mutex_init(&server->lock, NULL);
  pthread_cond_init(&server->changed, NULL);
  int status = open_server(server, err);
  if (status < 0)
    nx_http_server_destroy(server);
  else
    *out = server;
  return status;
}

int nx_http_server_start(struct nx_http_server *server, struct nx_error *err) {
  struct nx_http_conn *listener = &server->listener;
  if (nx__http_watch(server, EPOLL_CTL_ADD, listener->fd, EPOLLIN | EPOLLET, listener) < 0)
    return nx_error_sys(err, "epoll_ctl");
  if (!nx__http_workers_grow(server)) return nx_error_set(err, NX_ERR_SYSTEM, "no worker thread could be created");
  pthread_mutex_lock(&server->lock);
  while (!server->started && server->threads) pthread_cond_wait(&server->changed, &server->lock);
  bool started = server->started;
  pthread_mutex_unlock(&server->lock);
  if (started) return 0;
  return nx_error_set(err, server->start_error.code, "first worker thread: %s", server->start_error.text);
}

uint16_t nx_http_server_port(const struct nx_http_server *server) { return server->port; }

void nx_http_server_drain(struct nx_http_server *server) {
  if (atomic_exchange(&server->draining, true)) return;
  if (nx__http_acquire(&server->listener)) nx__http_listener_close(server);
  /* Has a worker look at every connection, which ends it if there is nothing to read: what a client sent before is
   * still answered. One that is owned is looked at by its owner. */
  for (int fd = 0, top = atomic_load(&server->top_fd); fd <= top; fd++)
    if (nx__http_acquire(&server->conns[fd])) nx__http_conn_yield(server, &server->conns[fd]);
}

bool nx_http_server_drained(const struct nx_http_server *server) { return atomic_load(&server->connections) == 0; }

void nx_http_server_stats(const struct nx_http_server *server, struct nx_http_stats *out) {
  struct nx_http_server *locked = (struct nx_http_server *)server;
  pthread_mutex_lock(&locked->lock);
  out->threads = server->threads;
  pthread_mutex_unlock(&locked->lock);
  out->connections = atomic_load(&server->connections);
  out->accepted = atomic_load(&server->accepted);
  out->evicted = atomic_load(&server->evicted);
}

void nx_http_server_destroy(struct nx_http_server *server) {
  nx__http_workers_stop(server);
  for (int fd = 0, top = atomic_load(&server->top_fd); server->conns && fd <= top; fd++)
    if (atomic_load(&server->conns[fd].owner) != NX__HTTP_FREE)
      nx__http_conn_close(server, NULL, &server->conns[fd]);
  nx__http_listener_close(server);
  const int descriptors[] = {server->epoll_fd, server->timer_fd, server->wake_fd};
  for (unsigned i = 0; i < sizeof descriptors / sizeof *descriptors; i++)
    if (descriptors[i] >= 0) close(descriptors[i]);
  if (server->conns) munmap(server->conns, server->slots * sizeof *server->conns);
  pthread_cond_destroy(&server->changed);
  pthread_mutex_destroy(&server->lock);
  free(server);
}
