/* SPDX-License-Identifier: Apache-2.0
 *
 * The listening socket: accepting; who goes when there is no room is room.c's business.
 * It is owned like a connection (conn.h), so one worker at a time accepts, and what it uses needs no lock. It is
 * edge-triggered too: a worker accepts until EAGAIN, or goes behind the connections that are ready after a batch.
 *
 * A connection for which nobody makes way yet waits here, and those behind it in the backlog: mostly somebody goes a moment
 * later, and a probe that finds its connection reset has no second one. When some have waited without a pause for
 * ROOM_WAIT_MS, all that find no room are turned away. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/server_internal.h"

#define ACCEPT_BATCH 32
#define BACKLOG 1024
#define ROOM_WAIT_MS 500u

/* --- creation ------------------------------------------------------------------------------------------------ */

static socklen_t parse_address(const struct nx_http_options *options, struct sockaddr_storage *out) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)out;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
  memset(out, 0, sizeof *out);
  if (inet_pton(AF_INET, options->host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(options->port);
    return sizeof *v4;
  }
  if (inet_pton(AF_INET6, options->host, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(options->port);
    return sizeof *v6;
  }
  return 0;
}

static bool set(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

/* Accepted sockets inherit all of these, which saves their system calls. Buffer sizes must be set before listen: the
 * window scale is agreed on in the handshake, and so are the largest segments. Peers acknowledge every second segment at once, and
 * a single one after 40 ms. Segments of the loopback interface have 64 KiB: in a small buffer there is but one, and every one waits. */
static bool set_options(int fd, const struct nx_http_options *options, int family) {
  int bytes = (int)options->socket_buffer_bytes;
  return set(fd, SOL_SOCKET, SO_REUSEADDR, 1) && set(fd, IPPROTO_TCP, TCP_NODELAY, 1) &&
         (family != AF_INET6 || set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)) &&
         (!bytes || (set(fd, SOL_SOCKET, SO_SNDBUF, bytes) && set(fd, SOL_SOCKET, SO_RCVBUF, bytes) &&
                     set(fd, IPPROTO_TCP, TCP_MAXSEG, bytes / 4)));
}

int nx__http_listen(struct nx_http_server *server, struct nx_error *err) {
  const struct nx_http_options *options = &server->options;
  struct sockaddr_storage address;
  socklen_t size = parse_address(options, &address);
  if (!size) return nx_error_set(err, NX_ERR_CONFIG, "\"%s\" is not a numeric IPv4 or IPv6 address", options->host);
  int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return nx_error_sys(err, "socket for %s", options->host);
  server->listener.fd = fd; /* closed by destroy from here on */
  atomic_store(&server->listener.owner, NX__HTTP_IDLE);
  if (!set_options(fd, options, address.ss_family)) return nx_error_sys(err, "socket options");
  if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, BACKLOG) < 0)
    return nx_error_sys(err, "cannot listen on %s port %u", options->host, options->port);
  if (getsockname(fd, (struct sockaddr *)&address, &size) < 0) return nx_error_sys(err, "getsockname");
  /* The port stands at the same place in both kinds of address. */
  server->port = ntohs(((struct sockaddr_in *)&address)->sin_port);
  server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return 0;
}

void nx__http_listener_close(struct nx_http_server *server) {
  int fd = server->listener.fd;
  server->listener.fd = -1;
  atomic_store(&server->listener.owner, NX__HTTP_FREE);
  if (fd >= 0) close(fd);
  if (server->spare_fd >= 0) close(server->spare_fd);
  if (server->waiting_fd >= 0) close(server->waiting_fd);
  server->spare_fd = server->waiting_fd = -1;
}

/* --- without descriptors -------------------------------------------------------------------------------------- */

/* No descriptor for the connection that waits: a reserved one is used to take it and turn it away, because an
 * edge-triggered listener does not mention it again. */
static bool shed(struct nx_http_server *server) {
  if (server->spare_fd < 0) return false;
  close(server->spare_fd);
  int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0) close(fd);
  server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return fd >= 0;
}

/* --- accepting ----------------------------------------------------------------------------------------------- */

/* When there are too many, or no memory for one more, others make way. */
static bool has_room(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  while (atomic_load(&server->connections) >= server->options.max_connections ||
         !nx_account_charge(server->options.sockets, NX__HTTP_IDLE_SOCKET_BYTES))
    if (!nx__http_make_way(worker)) return false;
  return true;
}

/* Edge-triggered, the listener does not mention again who waits: the sweep does. */
static void accept_later(struct nx_http_server *server) {
  if (!atomic_exchange(&server->accept_again, true)) nx__http_arm_sweep(server);
}

/* False when it does not wait any more: turned away. */
static bool wait_for_room(struct nx_http_server *server, int fd) {
  uint64_t now = nx__http_now();
  if (!server->waiting_since_ns) server->waiting_since_ns = now;
  if (now - server->waiting_since_ns >= ROOM_WAIT_MS * NX_NS_PER_MS) {
    close(fd);
    return false;
  }
  server->waiting_fd = fd;
  accept_later(server);
  return true;
}

static void adopt(struct nx_http_worker *worker, int fd) {
  struct nx_http_server *server = worker->server;
  struct nx_http_conn *conn = &server->conns[fd];
  if (fd > atomic_load(&server->top_fd)) atomic_store(&server->top_fd, fd);
  nx__http_conn_init(conn, fd, server->options.idle_timeout_ms);
  atomic_fetch_add(&server->accepted, 1);
  if (atomic_fetch_add(&server->connections, 1) == 0) nx__http_arm_sweep(server);
  /* Raises an event at once, because the socket is writable; whoever gets it reads what may be there already. Owned until
   * then: a stale event for the slot could have another worker close the descriptor that is being registered. */
  if (nx__http_watch(server, EPOLL_CTL_ADD, fd, NX__HTTP_EVENTS, conn) < 0)
    nx__http_conn_close(server, worker, conn);
  else if (!nx__http_release(conn))
    nx__http_conn_yield(server, conn);
}

/* Who waits goes first. */
static int next_fd(struct nx_http_server *server) {
  int fd = server->waiting_fd;
  server->waiting_fd = -1;
  return fd >= 0 ? fd : accept4(server->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* False when nobody waits, or cannot be helped now. */
static bool accept_one(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  int fd = next_fd(server);
  if (fd >= 0) {
    if ((unsigned)fd >= server->slots)
      close(fd);
    else if (has_room(worker))
      adopt(worker, fd);
    else
      return !wait_for_room(server, fd);
    return true;
  }
  switch (errno) {
  case EAGAIN: server->waiting_since_ns = 0; return false;
  case EBADF:
  case EINVAL: return false;
  case EMFILE:
  case ENFILE:
    if (nx__http_make_way(worker) || shed(server)) return true;
    break;
  case ENOMEM:
  case ENOBUFS: break;
  default: return true; /* an error of that one connection, reported by accept */
  }
  accept_later(server);
  return false;
}

void nx__http_accept(struct nx_http_worker *worker) {
  struct nx_http_server *server = worker->server;
  struct nx_http_conn *listener = &server->listener;
  if (!nx__http_acquire(listener)) return;
  unsigned left;
  do {
    left = ACCEPT_BATCH;
    while (left && accept_one(worker)) left--;
    if (atomic_load(&server->draining)) {
      nx__http_listener_close(server);
      return;
    }
    /* Registering it again while owned: whoever gets that event after the release accepts the rest, behind the
     * connections that are ready now. */
    if (!left) nx__http_watch(server, EPOLL_CTL_MOD, listener->fd, EPOLLIN | EPOLLET, listener);
  } while (!nx__http_release(listener));
}
