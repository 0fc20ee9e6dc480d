/* SPDX-License-Identifier: Apache-2.0
 *
 * libcurl, loaded when it is first wanted: linked in, it would cost every start milliseconds of relocations and megabytes
 * of libraries behind it, also where no handler may use the network.
 * Ownership: static; libcurl is never unloaded, since a thread of its resolver may still be on its way.
 * Threads:   load and unload from one thread at a time. */
#ifndef NX_NET_CURL_API_H
#define NX_NET_CURL_API_H

#include <curl/curl.h>

#include "base/error.h"

#define NX_CURL_FUNCTIONS(X)                                                                            \
  X(global_init) X(global_cleanup) X(version_info) X(free)                                             \
  X(easy_init) X(easy_cleanup) X(easy_setopt) X(easy_getinfo) X(easy_strerror)                         \
  X(multi_init) X(multi_cleanup) X(multi_add_handle) X(multi_remove_handle) X(multi_setopt)            \
  X(multi_perform) X(multi_info_read) X(multi_poll) X(multi_wakeup)                                    \
  X(slist_append) X(slist_free_all)                                                                    \
  X(url) X(url_cleanup) X(url_get) X(url_set)

struct nx_curl_api {
#define X(name) __typeof__(curl_##name) *name;
  NX_CURL_FUNCTIONS(X)
#undef X
};

/* NX_ERR_CONFIG says what to install. Each load is followed by one nx__curl_unload. */
int nx__curl_load(struct nx_curl_api *api, struct nx_error *err);
void nx__curl_unload(const struct nx_curl_api *api);

#endif
