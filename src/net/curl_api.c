/* SPDX-License-Identifier: Apache-2.0 */
#include "net/curl_api.h"

#include <dlfcn.h>
#include <stddef.h>
#include <unistd.h>

#include "base/log.h"

/* CURLOPT_QUICK_EXIT: the end does not wait for name servers. */
#define OLDEST_VERSION 0x075700u
#define OLDEST_VERSION_TEXT "7.87.0"

static void *open_library(void) {
  static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library) return library;
  }
  return NULL;
}

static int find_functions(struct nx_curl_api *api, void *library, struct nx_error *err) {
  const struct {
    const char *name;
    void *to;
  } wanted[] = {
#define X(function) {"curl_" #function, &api->function},
    NX_CURL_FUNCTIONS(X)
#undef X
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    void *found = dlsym(library, wanted[i].name);
    if (!found) return nx_error_set(err, NX_ERR_CONFIG, "NET_ALLOW: libcurl has no %s: it is too old", wanted[i].name);
    *(void **)wanted[i].to = found;
  }
  return 0;
}

static int check_version(const curl_version_info_data *version, struct nx_error *err) {
  if (version->version_num < OLDEST_VERSION)
    return nx_error_set(err, NX_ERR_CONFIG, "NET_ALLOW: libcurl is %.32s; needed is " OLDEST_VERSION_TEXT " or later",
                        version->version);
  if (!(version->features & CURL_VERSION_ASYNCHDNS))
    return nx_error_set(err, NX_ERR_CONFIG, "NET_ALLOW: this libcurl cannot look up names in the background");
  return 0;
}

/* https: fails without them; http: does not, so this is no reason not to start. */
static void look_for_authorities(const curl_version_info_data *version) {
  bool has_file = version->cainfo && !access(version->cainfo, R_OK);
  bool has_directory = version->capath && !access(version->capath, R_OK);
  if (!has_file && !has_directory)
    nx_log(NX_LOG_WARN, "no certificate authorities: handlers cannot fetch https (install ca-certificates)", "file",
           version->cainfo ? version->cainfo : "", NULL);
}

int nx__curl_load(struct nx_curl_api *api, struct nx_error *err) {
  void *library = open_library();
  if (!library)
    return nx_error_set(err, NX_ERR_CONFIG, "NET_ALLOW needs libcurl: install the package libcurl4 (libcurl.so.4)");
  int status = find_functions(api, library, err);
  if (status) return status;
  const curl_version_info_data *version = api->version_info(CURLVERSION_NOW);
  status = check_version(version, err);
  if (status) return status;
  if (api->global_init(CURL_GLOBAL_DEFAULT)) return nx_error_set(err, NX_ERR_CONFIG, "NET_ALLOW: libcurl does not start");
  look_for_authorities(version);
  return 0;
}

void nx__curl_unload(const struct nx_curl_api *api) { api->global_cleanup(); }
