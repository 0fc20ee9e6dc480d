/* SPDX-License-Identifier: Apache-2.0
 *
 * May a request go to this URL? The parsed form that was judged is the one that libcurl is given, so that there are no
 * two readings of a URL.
 * Ownership: the caller owns the URL; init after a failed init needs no deinit. */
#ifndef NX_NET_URL_H
#define NX_NET_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "net/curl_api.h"
#include "net/net_allow.h"

#define NX_NET_HOST_BYTES_MAX 255u

struct nx_net_url {
  CURLU *parsed; /* without fragment */
  bool is_https;
  uint16_t port;
  char host[NX_NET_HOST_BYTES_MAX + 1]; /* without brackets */
};

int nx__net_url_init(struct nx_net_url *url, const struct nx_curl_api *curl, const struct nx_net_allow *allow,
                     const char *text, struct nx_error *err);
void nx__net_url_deinit(struct nx_net_url *url, const struct nx_curl_api *curl);
bool nx__net_url_has_origin_of(const struct nx_net_url *a, const struct nx_net_url *b);

#endif
