/* SPDX-License-Identifier: Apache-2.0
 *
 * The built-in extension `net`: HTTP requests of handlers, which are hostile. Through libcurl's multi interface on one
 * thread of its own, so that no other thread waits.
 *
 * Where they may go: the hosts of NET_ALLOW, nowhere else; and not to private, loopback, link-local or otherwise special
 * addresses unless the list names that address or network itself. Each address is looked at when the connection is
 * made, after DNS has answered, and every redirect is judged like a new request.
 *
 * NET_ALLOW: entries with commas between. HOST, *.DOMAIN (any depth, not the domain itself), *, an address, or a network
 * in CIDR form; each but the last may end in :PORT (IPv6 then in brackets). Without a port: 80 and 443. A host must be
 * listed as it is in the URL: an address does not list the names that resolve to it, nor the other way round. Addresses
 * (at their port) and networks (at any) also permit special addresses that listed names resolve to.
 *
 * What the handler did not ask for is not sent: no cookies are kept, no credentials found, no proxy used, no compression
 * offered. Redirects are followed (10 at most); Authorization and Cookie do not go to another origin.
 *
 * Ownership: the caller owns the client; a request's texts are copied.
 * Threads:   nx_net_fetch, nx_net_abandon: any. `done` is called on the client's thread.
 * Limits:    concurrent fetches, waiting ones (1,024), redirects, time (the wait included), header and body bytes. Texts
 *            are charged to the account, and a flat amount for what libcurl takes per running fetch. */
#ifndef NX_NET_NET_H
#define NX_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/account.h"
#include "base/buf.h"
#include "base/error.h"

struct nx_net;
struct nx_net_fetch;

struct nx_net_options {
  const char *allow;            /* NET_ALLOW; borrowed until create returns */
  struct nx_account *account;
  size_t max_body_bytes;        /* of a response */
  uint64_t max_timeout_ms;
  unsigned max_concurrent;
};

/* NX_ERR_CONFIG: the list does not parse (says which entry), or libcurl is not there. */
int nx_net_create(struct nx_net **out, const struct nx_net_options *options, struct nx_error *err);
/* Cuts what is still open; `done` is called for each. */
void nx_net_destroy(struct nx_net *net);
/* Whether the list parses, without a client: for the check of the configuration. */
int nx_net_check_allow(const char *allow, struct nx_error *err);

/* Called exactly once per fetch. `success`: `json` is {status, statusText, url, redirected, headers: {name: value},
 * body} (body a string; bodyBase64 instead when it is not UTF-8). Names of headers are in lower case, values of the same
 * name joined by ", "; but several of set-cookie are an array. Otherwise `json` is a JSON string, the message of the
 * error that the handler gets. Borrowed until it returns. */
typedef void nx_net_done_fn(void *opaque, bool success, const char *json, size_t bytes);

/* `args` is the guest's JSON array [url, {method, headers, body, bodyBase64, timeoutMs}?]: hostile. `headers` is an
 * object or an array of [name, value]. `traceparent` ("" for none) is passed on unless the handler sets one.
 * What cannot be done is told by `done`, on the client's thread. That may be before this has returned to its caller: who
 * keeps the result must set it under the lock that `done` takes. NULL only when there is no memory, or no thread can be
 * made; then `done` is not called. */
struct nx_net_fetch *nx_net_fetch(struct nx_net *net, const char *args, size_t args_bytes, const char *traceparent,
                                  nx_net_done_fn *done, void *opaque);
/* Nobody waits for it any more: it is ended soon; `done` is still called. Only before `done` has returned. */
void nx_net_abandon(struct nx_net *net, struct nx_net_fetch *fetch);

#endif
