/* SPDX-License-Identifier: Apache-2.0
 *
 * How many workers there are.
 *
 *   live     waiting for sockets or serving one; `live_threads` of them are wanted
 *   blocked  inside `handle` for long (the application says so); replaced by another live one
 *   spent    to be ended, because the application has used the thread up
 *   parked   surplus after a blocked one came back; LIFO, so that the warm ones are used and the cold ones end
 *
 * None is created before it is needed: a worker that gets its first connection sees to it that another one waits, so
 * an idle process has one, a little used one two. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "http/server_internal.h"

/* --- one worker ---------------------------------------------------------------------------------------------- */

static void drop_spares(struct nx_http_worker *worker) {
  while (worker->spare) {
    struct nx_http_io *io = worker->spare;
    worker->spare = io->next_spare;
    nx__http_io_destroy(worker->server, io);
  }
  worker->spares = 0;
}

/* Synchronization: server->lock held. */
static void unlink_parked(struct nx_http_server *server, struct nx_http_worker *worker) {
  struct nx_http_worker **at = &server->parked;
  while (*at != worker) at = &(*at)->parked_below;
  *at = worker->parked_below;
  worker->parked = false;
}

static bool surplus(const struct nx_http_server *server) {
  return atomic_load_explicit(&server->live, memory_order_relaxed) > server->live_max;
}

/* False when it was not needed for so long that it shall end. */
static bool park(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  uint64_t idle_ms = server->options.thread_idle_timeout_ms;
  uint64_t until = idle_ms ? nx_clock_ns() + idle_ms * NX_NS_PER_MS : INT64_MAX;
  const struct timespec deadline = {(time_t)(until / NX_NS_PER_S), (long)(until % NX_NS_PER_S)};
  drop_spares(worker);
  pthread_mutex_lock(&server->lock);
  bool keep = true;
  if (surplus(server) && !atomic_load(&server->stopping)) {
    atomic_fetch_sub(&server->live, 1);
    worker->parked = true;
    worker->parked_below = server->parked;
    server->parked = worker;
    while (worker->parked && keep)
      keep = pthread_cond_clockwait(&worker->unparked, &server->lock, CLOCK_MONOTONIC, &deadline) != ETIMEDOUT;
    if (worker->parked)
      unlink_parked(server, worker);
    else
      keep = true;
  }
  pthread_mutex_unlock(&server->lock);
  return keep;
}

static bool is_spent(const struct nx_http_server *server) {
  const struct nx_http_app *app = &server->app;
  return app->thread_is_spent && app->thread_is_spent(app->self);
}

/* A spent worker ends, unless it is the last: those that stay make another when they need one. */
static bool may_end(struct nx_http_server *server) {
  if (!is_spent(server)) return false;
  unsigned live = atomic_load(&server->live);
  while (live > 1)
    if (atomic_compare_exchange_weak(&server->live, &live, live - 1)) {
      atomic_store(&server->spent_ended, true);
      return true;
    }
  return false;
}

/* `counts_as_live` is false when it ends out of the parked state. The previous one that ended is joined here, so at
 * most one ended thread is ever unjoined. */
static void leave(struct nx_http_server *server, bool counts_as_live) {
  pthread_mutex_lock(&server->lock);
  pthread_t previous = server->exited;
  bool has_previous = server->has_exited;
  server->exited = pthread_self();
  server->has_exited = true;
  server->threads--;
  if (counts_as_live) atomic_fetch_sub(&server->live, 1);
  pthread_cond_broadcast(&server->changed);
  pthread_mutex_unlock(&server->lock);
  if (has_previous) pthread_join(previous, NULL);
}

static bool enter(struct nx_http_server *server) {
  struct nx_error err = {0};
  int status = server->app.thread_init ? server->app.thread_init(server->app.self, &err) : 0;
  pthread_mutex_lock(&server->lock);
  bool first = !server->started && server->start_error.code == NX_OK;
  if (status == 0)
    server->started = true;
  else if (first)
    server->start_error = err;
  pthread_cond_broadcast(&server->changed);
  pthread_mutex_unlock(&server->lock);
  if (status == 0) return true;
  if (!first) nx_log(NX_LOG_ERROR, "a worker thread could not start", "reason", err.text, NULL);
  atomic_store(&server->start_failed, !first);
  return false;
}

/* A spent worker leaves what is ready to others, or to itself a little later if it is the last. */
static void serve_ready(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  const struct nx_http_app *app = &server->app;
  struct nx_http_exchange *exchange;
  while (app->next_ready && (exchange = app->next_ready(app->self))) {
    /* Several calls of wake merge into one event. There may be more ready exchanges, and others idle to take them. */
    if (worker->was_woken) nx_http_server_wake(server);
    worker->was_woken = false;
    nx__http_conn_proceed(worker, exchange);
    if (is_spent(server)) {
      nx_http_server_wake(server);
      break;
    }
  }
  worker->was_woken = false;
}

static void *worker_main(void *argument) {
  struct nx_http_server *server = argument;
  pthread_setname_np(pthread_self(), "nexus-worker");
  if (!enter(server)) {
    leave(server, true);
    return NULL;
  }
  struct nx_http_worker worker = {.server = server};
  pthread_cond_init(&worker.unparked, NULL);
  bool keep = true;
  while (keep && !atomic_load_explicit(&server->stopping, memory_order_relaxed)) {
    serve_ready(&worker);
    if (may_end(server)) {
      keep = false;
    } else if (surplus(server)) {
      keep = park(&worker);
    } else {
      nx__http_serve_once(&worker);
      if (may_end(server)) keep = false;
    }
  }
  drop_spares(&worker);
  pthread_cond_destroy(&worker.unparked);
  if (server->app.thread_exit) server->app.thread_exit(server->app.self);
  nx_http_server_wake(server); /* an event wakes only one worker, and this one does not take what it was for */
  leave(server, keep);
  return NULL;
}

/* --- their number -------------------------------------------------------------------------------------------- */

/* SIGTERM and its like are main's; blocking more would hide faults, or the signal that ends an overdue execution. */
static int set_attributes(pthread_attr_t *attributes, size_t stack_bytes) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGINT);
  sigaddset(&mask, SIGHUP);
  int error = pthread_attr_setsigmask_np(attributes, &mask);
  if (!error && stack_bytes) error = pthread_attr_setstacksize(attributes, stack_bytes);
  return error; /* the guard page below the stack is the default of glibc */
}

/* Synchronization: server->lock held. */
static bool create_worker(struct nx_http_server *server) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes)) return false;
  int error = set_attributes(&attributes, server->options.thread_stack_bytes);
  if (!error) error = pthread_create(&thread, &attributes, worker_main, server);
  pthread_attr_destroy(&attributes);
  if (error) {
    nx_log(NX_LOG_WARN, "a worker thread could not be created", "reason", strerrordesc_np(error), NULL);
    return false;
  }
  server->threads++;
  return true;
}

/* Synchronization: server->lock held. */
static bool grow(struct nx_http_server *server) {
  if (atomic_load(&server->live) >= server->live_max || atomic_load(&server->stopping)) return true;
  struct nx_http_worker *parked = server->parked;
  if (parked) {
    unlink_parked(server, parked);
    pthread_cond_signal(&parked->unparked);
  } else if (server->threads >= server->options.max_threads || !create_worker(server)) {
    return false;
  }
  atomic_fetch_add(&server->live, 1);
  return true;
}

bool nx__http_workers_grow(struct nx_http_server *server) {
  pthread_mutex_lock(&server->lock);
  bool grown = grow(server);
  pthread_mutex_unlock(&server->lock);
  return grown;
}

void nx_http_server_thread_blocked(struct nx_http_server *server) {
  pthread_mutex_lock(&server->lock);
  atomic_fetch_sub(&server->live, 1);
  grow(server);
  pthread_mutex_unlock(&server->lock);
}

void nx_http_server_thread_unblocked(struct nx_http_server *server) { atomic_fetch_add(&server->live, 1); }

void nx_http_server_wake(struct nx_http_server *server) {
  /* Nobody reads the counter: an edge-triggered eventfd raises an event at every write. */
  eventfd_write(server->wake_fd, 1);
}

void nx__http_workers_stop(struct nx_http_server *server) {
  pthread_mutex_lock(&server->lock);
  atomic_store(&server->stopping, true);
  while (server->parked) {
    struct nx_http_worker *parked = server->parked;
    unlink_parked(server, parked);
    atomic_fetch_add(&server->live, 1);
    pthread_cond_signal(&parked->unparked);
  }
  nx_http_server_wake(server);
  while (server->threads) pthread_cond_wait(&server->changed, &server->lock);
  bool any = server->has_exited;
  pthread_t last = server->exited;
  server->has_exited = false;
  pthread_mutex_unlock(&server->lock);
  if (any) pthread_join(last, NULL);
}
