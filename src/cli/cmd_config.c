/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus config [--json] [FLAGS of serve]: the load path of serve, printed. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int nx_cmd_config(int argc, char **argv) {
  bool json = argc > 1 && !strcmp(argv[1], "--json");
  struct nx_config config;
  struct nx_cgroup *cgroup;
  int status = nx_cli_load(&config, &cgroup, argc - json, argv + json);
  if (status) return status;
  NX_BUF_AUTO out = {0};
  if (json)
    nx_config_print_json(&config, &out);
  else
    nx_config_print_text(&config, &out);
  fwrite(out.data, 1, out.len, stdout);
  nx_cgroup_close(cgroup);
  return out.failed || fflush(stdout) ? NX_EXIT_FAILURE : NX_EXIT_OK;
}
