/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's own state, shared by the files of src/http. */
#ifndef NX_HTTP_SERVER_INTERNAL_H
#define NX_HTTP_SERVER_INTERNAL_H

#include <pthread.h>
#include <sys/epoll.h>

#include "http/conn.h"

#define NX__HTTP_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define NX__HTTP_EVICTION_BATCH 16

/* One worker thread; lives on that thread's stack. */
struct nx_http_worker {
  struct nx_http_server *server;
  struct nx_http_io *spare; /* cache, so that a request costs no allocation */
  unsigned spares;
  unsigned turn_left;       /* requests this connection may still have before others get their turn */
  bool was_woken;           /* by nx_http_server_wake */
  bool has_successor;       /* another worker waits while this one works: see nx__http_workers_grow */
  /* Synchronization: server->lock. */
  struct nx_http_worker *parked_below;
  bool parked;
  pthread_cond_t unparked;
};

struct nx_http_candidate {
  struct nx_http_conn *conn;
  uint64_t deadline_ns;
  uint64_t rank; /* lower goes first */
};

struct nx_http_server {
  struct nx_http_options options;
  struct nx_http_app app;
  int epoll_fd, timer_fd, wake_fd;
  uint16_t port;

  struct nx_http_conn *conns;  /* indexed by descriptor; a private mapping, so untouched slots cost nothing */
  unsigned slots;
  _Atomic(int) top_fd;         /* no connection ever had a higher one */

  struct nx_http_conn listener; /* only its ownership and fd are used */
  /* Synchronization: owner of the listener. */
  int spare_fd;                /* given up for a moment to shed when descriptors run out; -1 when that failed */
  int waiting_fd;              /* accepted, and without room yet; -1: none */
  uint64_t waiting_since_ns;   /* from then on some have waited for room without a pause; 0: nobody waits */
  struct nx_http_candidate candidates[NX__HTTP_EVICTION_BATCH]; /* longest idle last */
  unsigned candidate_count;
  _Atomic(bool) accept_again;  /* somebody waits, here or in the backlog: the sweep comes soon and retries */

  _Atomic(bool) draining, stopping;
  _Atomic(unsigned) connections;
  _Atomic(uint64_t) accepted, evicted;

  /* Threads (workers.c). Synchronization: lock; `live` is also read without it. */
  pthread_mutex_t lock;
  pthread_cond_t changed;         /* threads, started */
  unsigned threads;               /* alive */
  _Atomic(unsigned) live;         /* of them neither parked nor said to be blocked */
  unsigned live_max;
  struct nx_http_worker *parked;  /* LIFO */
  bool has_exited;
  pthread_t exited;               /* ended, and joined by the next one that ends */
  bool started;                   /* the first worker got through thread_init */
  struct nx_error start_error;
  _Atomic(bool) spent_ended;      /* a spent worker ended: whoever serves next sees to another */
  _Atomic(bool) start_failed;     /* of a later one, whose creator took it for granted: the sweep tries again */
};

/* What a connection takes of the kernel's memory while nothing is on its way: socket, file, epoll entry. */
#define NX__HTTP_IDLE_SOCKET_BYTES 8192u
/* And what one of its socket buffers may take besides while something is: the server does not read on while it answers,
 * so that only who pipelines without reading fills both, and what is found beyond the charge is charged to the kernel's
 * layer. */
static inline size_t nx__http_socket_bytes(const struct nx_http_server *server) {
  return 2 * (size_t)server->options.socket_buffer_bytes;
}

/* --- server.c ------------------------------------------------------------------------------------------------ */

/* `what` comes back with the event: a connection (the listener is one), or the address of timer_fd or wake_fd. */
int nx__http_watch(struct nx_http_server *server, int op, int fd, uint32_t events, void *what);
void nx__http_arm_sweep(struct nx_http_server *server);
/* Waits for one event and serves it; workers.c calls it in a loop. */
void nx__http_serve_once(struct nx_http_worker *worker);

/* --- listener.c ---------------------------------------------------------------------------------------------- */

int nx__http_listen(struct nx_http_server *server, struct nx_error *err);
void nx__http_accept(struct nx_http_worker *worker);
/* Owner of the listener only. */
void nx__http_listener_close(struct nx_http_server *server);

/* --- room.c -------------------------------------------------------------------------------------------------- */

/* Closes a connection in favour of another; false when there is none that may go. Owner of the listener only. */
bool nx__http_make_way(struct nx_http_worker *worker);
/* Memory is needed: cuts off the client that has been sending or receiving one message, or lingering, for longest. False
 * when none has for `least_ms`. Any worker. */
bool nx__http_shed_stalled(struct nx_http_worker *worker, uint64_t least_ms);
#define NX__HTTP_STALL_MS 500u

/* --- workers.c ----------------------------------------------------------------------------------------------- */

/* One more live worker, if there are fewer than wanted. False when it could not be had. */
bool nx__http_workers_grow(struct nx_http_server *server);
/* Has all workers end and waits for them. */
void nx__http_workers_stop(struct nx_http_server *server);

#endif
