/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int refuse_text(CURLUcode code, struct nx_error *err) {
  switch (code) {
  case CURLUE_UNSUPPORTED_SCHEME:
  case CURLUE_BAD_SCHEME: return nx_error_set(err, NX_ERR_INVALID, "the URL must begin with http:// or https://");
  case CURLUE_USER_NOT_ALLOWED: return nx_error_set(err, NX_ERR_INVALID, "a URL with a user name is refused");
  case CURLUE_OUT_OF_MEMORY: return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the URL");
  default: return nx_error_set(err, NX_ERR_INVALID, "the URL is not valid");
  }
}

/* Copies one part of the URL; false when it has none, or a longer one than `size`. */
static bool get_part(const struct nx_net_url *url, const struct nx_curl_api *curl, CURLUPart part, char *out, size_t size) {
  char *text;
  if (curl->url_get(url->parsed, part, &text, CURLU_DEFAULT_PORT)) return false;
  size_t bytes = strlen(text);
  bool fits = bytes < size;
  if (fits) memcpy(out, text, bytes + 1);
  curl->free(text);
  return fits;
}

static bool has_part(const struct nx_net_url *url, const struct nx_curl_api *curl, CURLUPart part) {
  char *text;
  if (curl->url_get(url->parsed, part, &text, 0)) return false;
  curl->free(text);
  return true;
}

static bool get_host(struct nx_net_url *url, const struct nx_curl_api *curl) {
  if (!get_part(url, curl, CURLUPART_HOST, url->host, sizeof url->host)) return false;
  size_t bytes = strlen(url->host);
  if (bytes < 2 || *url->host != '[' || url->host[bytes - 1] != ']') return bytes > 0;
  memmove(url->host, url->host + 1, bytes - 2);
  url->host[bytes - 2] = 0;
  return true;
}

static int take_parts(struct nx_net_url *url, const struct nx_curl_api *curl, const char *text, struct nx_error *err) {
  char scheme[8], port[8];
  /* What is no ASCII in path and query is percent-encoded; in the host it stays, and is refused with it. */
  CURLUcode code = curl->url_set(url->parsed, CURLUPART_URL, text, CURLU_DISALLOW_USER | CURLU_URLENCODE);
  if (!code) code = curl->url_set(url->parsed, CURLUPART_FRAGMENT, NULL, 0);
  if (code) return refuse_text(code, err);
  if (!get_part(url, curl, CURLUPART_SCHEME, scheme, sizeof scheme)) return refuse_text(CURLUE_BAD_SCHEME, err);
  url->is_https = !strcmp(scheme, "https");
  if (!url->is_https && strcmp(scheme, "http")) return refuse_text(CURLUE_BAD_SCHEME, err);
  /* A zone would choose the network interface. */
  if (!get_host(url, curl) || has_part(url, curl, CURLUPART_ZONEID) ||
      !get_part(url, curl, CURLUPART_PORT, port, sizeof port))
    return refuse_text(CURLUE_MALFORMED_INPUT, err);
  url->port = (uint16_t)strtoul(port, NULL, 10); /* libcurl has checked the range */
  return 0;
}

int nx__net_url_init(struct nx_net_url *url, const struct nx_curl_api *curl, const struct nx_net_allow *allow,
                     const char *text, struct nx_error *err) {
  *url = (struct nx_net_url){.parsed = curl->url()};
  int status = url->parsed ? take_parts(url, curl, text, err) : refuse_text(CURLUE_OUT_OF_MEMORY, err);
  if (!status && !nx__net_allow_has_host(allow, url->host, url->port))
    status = nx_error_set(err, NX_ERR_INVALID, "%.100s port %u is not allowed: NET_ALLOW does not list it", url->host,
                          url->port);
  if (status) nx__net_url_deinit(url, curl);
  return status;
}

void nx__net_url_deinit(struct nx_net_url *url, const struct nx_curl_api *curl) {
  curl->url_cleanup(url->parsed);
  url->parsed = NULL;
}

bool nx__net_url_has_origin_of(const struct nx_net_url *a, const struct nx_net_url *b) {
  return a->is_https == b->is_https && a->port == b->port && !strcasecmp(a->host, b->host);
}
