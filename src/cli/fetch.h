/* SPDX-License-Identifier: Apache-2.0
 *
 * GET from a running nexus: one request, one connection, plain HTTP. For commands, not for the server.
 *
 * Ownership: the caller owns both structs; nx_fetch_end frees what a fetch holds, the server must outlive it.
 * Threads:   one at a time. nx_fetch_server_parse asks the resolver and may wait for it, nx_fetch_get waits up to its
 *            deadline, the rest waits for nothing: poll nx_fetch_fd for nx_fetch_events and call nx_fetch_step.
 * Errors:    NX_ERR_SYSTEM: nobody there, or the connection broke; NX_ERR_INVALID: the answer is not HTTP, or ends early;
 *            NX_ERR_TOO_LARGE; NX_ERR_REQUEST_TIMEOUT. The texts repeat nothing of what the other side sent.
 * Limits:    the body has the caller's, the head of the answer 64 KiB. Time is the caller's affair. */
#ifndef NX_CLI_FETCH_H
#define NX_CLI_FETCH_H

#include <sys/socket.h>

#include <llhttp.h>

#include "base/buf.h"
#include "base/error.h"
#include "config/config.h"

enum { NX_FETCH_ADDRESSES_MAX = 8, NX_FETCH_TOKEN_MAX = 512 };

/* Where to ask. `name` is printable ASCII: http://HOST:PORT. */
struct nx_fetch_server {
  char name[288];
  const char *token; /* borrowed, checked; NULL: none is shown */
  struct sockaddr_storage _addresses[NX_FETCH_ADDRESSES_MAX]; /* tried in this order */
  unsigned _count;
};

/* http://HOST[:PORT], with a slash behind if you like; IPv6 addresses in brackets. -NX_ERR_CONFIG when it is not that,
 * -NX_ERR_NOT_FOUND when HOST has no address. */
int nx_fetch_server_parse(struct nx_fetch_server *server, const char *url, struct nx_error *err);
/* The server that runs with this configuration on this machine: ADMIN_PORT if set, else PORT. */
void nx_fetch_server_local(struct nx_fetch_server *server, const struct nx_config *config);
/* The access token to show, after one of the above; it is borrowed. -NX_ERR_CONFIG when it cannot stand in a header. */
int nx_fetch_server_set_token(struct nx_fetch_server *server, const char *token, struct nx_error *err);

struct nx_fetch {
  int status; /* of HTTP; with the body valid once nx_fetch_step has said 1 */
  struct nx_buf body;
  const struct nx_fetch_server *_server;
  unsigned _next_address;
  int _fd;
  bool _connecting, _complete;
  char _request[512 + NX_FETCH_TOKEN_MAX];
  size_t _request_bytes, _sent, _received;
  llhttp_t _parser;
};

/* Begins to connect. On failure there is nothing to end. `path` is a constant of ours. */
int nx_fetch_begin(struct nx_fetch *fetch, const struct nx_fetch_server *server, const char *path,
                   size_t body_bytes_max, struct nx_error *err);
int nx_fetch_fd(const struct nx_fetch *fetch); /* may be another one after each step */
short nx_fetch_events(const struct nx_fetch *fetch);
/* 1: the answer is there; 0: wait for the descriptor; or an error. */
int nx_fetch_step(struct nx_fetch *fetch, struct nx_error *err);
void nx_fetch_end(struct nx_fetch *fetch);

/* All of it; the caller ends the fetch after success only. */
int nx_fetch_get(struct nx_fetch *fetch, const struct nx_fetch_server *server, const char *path, size_t body_bytes_max,
                 unsigned timeout_ms, struct nx_error *err);

#endif
