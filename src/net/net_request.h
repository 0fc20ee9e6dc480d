/* SPDX-License-Identifier: Apache-2.0
 *
 * What a handler asks of `net`, checked: nothing in a request can forge a header, a method or a second request. Whether
 * it may go where its URL says is judged elsewhere (net/net_url.h).
 * Ownership: the request owns its texts, charged to the account that its buffers are given.
 * Threads:   one at a time.
 * Limits:    the URL, the method and the headers; the body by what a handler can pass to the host. */
#ifndef NX_NET_REQUEST_H
#define NX_NET_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/account.h"
#include "base/buf.h"
#include "base/error.h"

#define NX_NET_URL_BYTES_MAX ((size_t)16 << 10)
#define NX_NET_REQUEST_HEADER_BYTES_MAX ((size_t)64 << 10)
#define NX_NET_METHOD_BYTES_MAX 31u

struct nx_net_request {
  struct nx_buf url; /* ended by NUL */
  char method[NX_NET_METHOD_BYTES_MAX + 1];
  struct nx_buf headers; /* "Name: value", or "Name;" for an empty value as libcurl wants it; each ended by NUL */
  struct nx_buf body;
  bool has_body;
  uint64_t timeout_ms; /* 0: the handler gave none */
};

/* `args` as for nx_net_fetch. On failure NX_ERR_INVALID or NX_ERR_NO_MEMORY, with a text for the handler. */
int nx__net_request_init(struct nx_net_request *request, const char *args, size_t args_bytes, const char *traceparent,
                         struct nx_account *account, struct nx_error *err);
/* Also after a failed init. */
void nx__net_request_deinit(struct nx_net_request *request);

/* The next of the headers after `previous` (NULL: the first); NULL at the end. */
const char *nx__net_request_next_header(const struct nx_net_request *request, const char *previous);
bool nx__net_request_has_header(const struct nx_net_request *request, const char *name);
/* Is `header`, one of the texts above, the one called `name`? */
bool nx__net_header_is(const char *header, const char *name);

#endif
