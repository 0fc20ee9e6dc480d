/* SPDX-License-Identifier: Apache-2.0
 *
 * Who makes way when there is no room for another connection, or no memory for one that is used. */
#include "http/server_internal.h"

#define STRANGER_MS 1000u
#define LONG_IDLE_MS 1000u
#define SHORT_STALL_MS 100u

/* --- who is idle --------------------------------------------------------------------------------------------- */

/* The longest idle goes first; those that have not sent a request for STRANGER_MS count as idle for much longer, else a
 * flood of connections would drive out the clients. (Not at once: a probe is a stranger too until its request is read.) */
static uint64_t rank(const struct nx_http_conn *conn, uint64_t deadline_ns, uint64_t stranger_deadline_ns) {
  bool served = atomic_load_explicit(&conn->served, memory_order_relaxed);
  return served || deadline_ns > stranger_deadline_ns ? deadline_ns : deadline_ns / 2;
}

/* Finds the first ones to go in one walk; they stay the first until they are used, so that a flood of connections at
 * the limit costs one walk per batch. */
static void collect_candidates(struct nx_http_server *server) {
  struct nx_http_candidate *list = server->candidates;
  uint64_t stranger_deadline = nx__http_deadline_in(server->options.idle_timeout_ms) - STRANGER_MS * NX_NS_PER_MS;
  unsigned count = 0;
  for (int fd = 0, top = atomic_load(&server->top_fd); fd <= top; fd++) {
    struct nx_http_conn *conn = &server->conns[fd];
    uint64_t deadline = nx__http_deadline(conn), own_rank = rank(conn, deadline, stranger_deadline);
    if (atomic_load(&conn->owner) != NX__HTTP_IDLE || nx__http_phase(conn) != NX__HTTP_QUIET) continue;
    bool full = count == NX__HTTP_EVICTION_BATCH;
    if (full && own_rank >= list[0].rank) continue;
    unsigned i = full ? 0 : count++;
    if (full)
      for (; i + 1 < count && list[i + 1].rank > own_rank; i++) list[i] = list[i + 1];
    else
      for (; i > 0 && list[i - 1].rank <= own_rank; i--) list[i] = list[i - 1];
    list[i] = (struct nx_http_candidate){conn, deadline, own_rank};
  }
  server->candidate_count = count;
}

static bool evict(struct nx_http_worker *worker, struct nx_http_candidate candidate) {
  struct nx_http_conn *conn = candidate.conn;
  if (nx__http_deadline(conn) != candidate.deadline_ns || !nx__http_try_own(conn)) return false;
  if (nx__http_phase(conn) != NX__HTTP_QUIET || nx__http_deadline(conn) != candidate.deadline_ns) {
    nx__http_conn_yield(worker->server, conn);
    return false;
  }
  nx__http_conn_close(worker->server, worker, conn);
  atomic_fetch_add(&worker->server->evicted, 1);
  return true;
}

/* The first candidate, if it has been idle for long enough. */
static bool evict_candidate(struct nx_http_worker *worker, uint64_t least_idle_ns) {
  struct nx_http_server *server = worker->server;
  uint64_t newest = nx__http_deadline_in(server->options.idle_timeout_ms) - least_idle_ns;
  while (server->candidate_count && server->candidates[server->candidate_count - 1].deadline_ns <= newest)
    if (evict(worker, server->candidates[--server->candidate_count])) return true;
  return false;
}

static bool evict_longest_idle(struct nx_http_worker *worker, uint64_t least_idle_ns) {
  if (evict_candidate(worker, least_idle_ns)) return true;
  if (worker->server->candidate_count) return false; /* the first of them is too young, and so are all others */
  collect_candidates(worker->server);
  return evict_candidate(worker, least_idle_ns);
}

/* --- who has a message half way ------------------------------------------------------------------------------- */

/* When its phase began, if that is one in which it has a message half way, or only lingers; else UINT64_MAX. */
static uint64_t stalled_since(const struct nx_http_server *server, const struct nx_http_conn *conn) {
  uint64_t timeout_ms = nx__http_phase_timeout_ms(&server->options, nx__http_phase(conn));
  return timeout_ms ? nx__http_deadline(conn) - timeout_ms * NX_NS_PER_MS : UINT64_MAX;
}

/* The one that has waited for its client for longest, since before *since_ns, which becomes that time. */
static struct nx_http_conn *find_stalled(struct nx_http_server *server, uint64_t *since_ns) {
  struct nx_http_conn *oldest = NULL;
  for (int fd = 0, top = atomic_load(&server->top_fd); fd <= top; fd++) {
    struct nx_http_conn *conn = &server->conns[fd];
    uint64_t since = atomic_load(&conn->owner) == NX__HTTP_IDLE ? stalled_since(server, conn) : UINT64_MAX;
    if (since >= *since_ns) continue;
    *since_ns = since;
    oldest = conn;
  }
  return oldest;
}

bool nx__http_shed_stalled(struct nx_http_worker *worker, uint64_t least_ms) {
  struct nx_http_server *server = worker->server;
  for (;;) {
    uint64_t since = nx__http_now() - least_ms * NX_NS_PER_MS;
    struct nx_http_conn *conn = find_stalled(server, &since);
    if (!conn) return false;
    if (!nx__http_try_own(conn)) continue; /* another worker was quicker: there may be more */
    if (stalled_since(server, conn) == since) {
      nx__http_conn_cut(worker, conn);
      atomic_fetch_add(&server->evicted, 1);
      return true;
    }
    nx__http_conn_yield(server, conn); /* it went on meanwhile */
  }
}

/* --- the order of going -------------------------------------------------------------------------------------- */

/* Who has been idle for a while goes first, then who has had a message half way (or lingers) for longest, then anybody who
 * is idle: mostly a client between two requests. */
bool nx__http_make_way(struct nx_http_worker *worker) {
  return evict_longest_idle(worker, LONG_IDLE_MS * NX_NS_PER_MS) || nx__http_shed_stalled(worker, SHORT_STALL_MS) ||
         evict_longest_idle(worker, 0);
}
