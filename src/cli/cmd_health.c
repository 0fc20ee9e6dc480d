/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus health: one GET /health on the loopback, for HEALTHCHECK. Uses the port that the server's environment names. */
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/fetch.h"

#define TIMEOUT_MS 3000
#define BODY_BYTES_MAX ((size_t)16 << 10)

int nx_cmd_health(int argc, char **argv) {
  struct nx_config config;
  NX_BUF_AUTO problems = {0};
  struct nx_error err;
  if (nx_config_load(&config, environ, argc - 1, argv + 1, &problems, &err)) {
    fprintf(stderr, "%.*s", (int)problems.len, problems.len ? problems.data : "");
    return NX_EXIT_USAGE;
  }
  struct nx_fetch_server server;
  struct nx_fetch fetch;
  nx_fetch_server_local(&server, &config);
  if (nx_fetch_get(&fetch, &server, "/health", BODY_BYTES_MAX, TIMEOUT_MS, &err)) {
    fprintf(stderr, "nexus health: %s: %s\n", server.name, err.text);
    return NX_EXIT_FAILURE;
  }
  int status = fetch.status;
  printf("%.*s\n", (int)fetch.body.len, fetch.body.len ? fetch.body.data : "");
  nx_fetch_end(&fetch);
  return status == 200 ? NX_EXIT_OK : NX_EXIT_FAILURE;
}
