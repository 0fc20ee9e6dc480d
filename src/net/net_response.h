/* SPDX-License-Identifier: Apache-2.0
 *
 * What a server answers, collected as it arrives and written as JSON for the handler. The server is as little trusted as
 * the handler.
 * Ownership: the response owns its bytes, charged to the account.
 * Threads:   one at a time.
 * Limits:    bytes and lines of the head, trailers included; bytes of the body. Passed: the append fails. */
#ifndef NX_NET_RESPONSE_H
#define NX_NET_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/account.h"
#include "base/buf.h"
#include "base/error.h"

#define NX_NET_RESPONSE_HEAD_BYTES_MAX ((size_t)64 << 10)
#define NX_NET_RESPONSE_HEADERS_MAX 256u

struct nx_net_response {
  char status_text[128]; /* cut when longer */
  struct nx_buf body;
  struct nx_buf _headers; /* lines "name:value\n", names in lower case */
  size_t _header_count;
  size_t _head_bytes; /* as received */
  bool _head_is_over;
};

void nx__net_response_init(struct nx_net_response *response, size_t max_body_bytes, struct nx_account *account);
void nx__net_response_deinit(struct nx_net_response *response);
/* Forgets what was received: another one follows, after a redirect. */
void nx__net_response_reset(struct nx_net_response *response);

/* One line of the head, line end included: status line, header, empty line, of interim responses and trailers too. */
int nx__net_response_add_line(struct nx_net_response *response, const char *line, size_t bytes, struct nx_error *err);
int nx__net_response_add_body(struct nx_net_response *response, const char *data, size_t bytes, struct nx_error *err);

/* Writes the object of nx_net_done_fn. The body is freed. */
int nx__net_response_write(struct nx_net_response *response, unsigned status, const char *url, bool redirected,
                           struct nx_buf *out, struct nx_error *err);

#endif
