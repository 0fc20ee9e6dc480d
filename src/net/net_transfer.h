/* SPDX-License-Identifier: Apache-2.0
 *
 * One request on its way through libcurl, with its redirects: each of them is judged and sent like a new request (a hop).
 * Ownership: borrows the context and the request, which must stay until the end.
 * Threads:   the client's only.
 * Limits:    NX_NET_REDIRECTS_MAX; those of the response. Time is the caller's business, but for TCP connections. */
#ifndef NX_NET_TRANSFER_H
#define NX_NET_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/account.h"
#include "net/curl_api.h"
#include "net/net_allow.h"
#include "net/net_request.h"
#include "net/net_response.h"
#include "net/net_url.h"

#define NX_NET_REDIRECTS_MAX 10u

/* What all transfers of a client share. */
struct nx_net_context {
  struct nx_curl_api curl;
  struct nx_net_allow allow;
  CURLM *multi;
  struct nx_account *account;
  size_t max_body_bytes;
};

struct nx_net_transfer {
  const struct nx_net_context *_context;
  struct nx_net_request *_request;
  struct nx_net_response _response;
  struct nx_net_url _url;
  CURL *_easy; /* of the hop on its way; NULL: none */
  struct curl_slist *_headers;
  unsigned _redirects;
  bool _has_left_origin; /* credentials of the handler were for the first server only */
  bool _is_given_up;
  struct nx_error _refusal; /* why a callback has ended the hop; code NX_OK: it has not */
};

enum nx_net_step { NX_NET_GOES_ON, NX_NET_COMPLETE, NX_NET_FAILED };

/* `owner` is what nx__net_transfer_owner gives back. On failure nothing has begun, and there is nothing to end. */
int nx__net_transfer_begin(struct nx_net_transfer *transfer, const struct nx_net_context *context,
                           struct nx_net_request *request, void *owner, struct nx_error *err);
void *nx__net_transfer_owner(const struct nx_net_context *context, CURL *easy);
/* libcurl is done with the hop. COMPLETE: the result can be written. FAILED: `err` is filled. */
enum nx_net_step nx__net_transfer_step(struct nx_net_transfer *transfer, CURLcode result, struct nx_error *err);
int nx__net_transfer_write(struct nx_net_transfer *transfer, struct nx_buf *out, struct nx_error *err);
/* Frees everything. Waits for nothing. */
void nx__net_transfer_end(struct nx_net_transfer *transfer);

/* Has this hop no connection yet, TLS included? */
bool nx__net_transfer_is_connecting(const struct nx_net_transfer *transfer);
/* Is a thread of libcurl's looking up the host's name? */
bool nx__net_transfer_is_looking_up(const struct nx_net_transfer *transfer);
/* Nobody wants the result any more, but the lookup cannot be cut: the hop fails as soon as it has ended. */
void nx__net_transfer_give_up(struct nx_net_transfer *transfer);

#endif
