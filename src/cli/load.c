/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/cli.h"
#include "net/net.h"

/* Of requests that handlers make (NET_ALLOW). */
#define NET_TIMEOUT_MS 30000u
#define NET_CONCURRENT_MAX 64u

struct nx_machine nx_cli_machine(const struct nx_cgroup *cgroup) {
  struct nx_cgroup_memory memory;
  struct rlimit files = {.rlim_cur = 1024};
  nx_cgroup_read_memory(cgroup, &memory);
  getrlimit(RLIMIT_NOFILE, &files);
  return (struct nx_machine){
    .memory_limit_bytes = memory.limit_bytes,
    .memory_bytes = nx_cgroup_machine_memory_bytes(cgroup),
    .cores = nx_cgroup_cores(cgroup, nx_cpu_allowed()),
    .max_files = files.rlim_cur,
  };
}

/* As many descriptors as the system lets us have: connections are bounded by memory, not by a shell's default. */
static void raise_file_limit(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

int nx_cli_check_net_allow(const struct nx_config *config, struct nx_buf *problems, struct nx_error *err) {
  int status = config->net_allow ? nx_net_check_allow(config->net_allow, err) : 0;
  if (status) nx_buf_printf(problems, "%s\n", err->text);
  return status;
}

int nx_cli_load(struct nx_config *config, struct nx_cgroup **cgroup, int argc, char **argv) {
  NX_BUF_AUTO problems = {0};
  struct nx_error err;
  int status = nx_config_load(config, environ, argc - 1, argv + 1, &problems, &err);
  if (nx_cli_check_net_allow(config, &problems, &err) || status) {
    fprintf(stderr, "%.*s", (int)problems.len, problems.len ? problems.data : "");
    if (!problems.len) fprintf(stderr, "nexus: %s\n", err.text);
    return NX_EXIT_USAGE;
  }
  raise_file_limit();
  if (nx_cgroup_open(cgroup, "/", &err)) {
    fprintf(stderr, "nexus: %s\n", err.text);
    return NX_EXIT_FAILURE;
  }
  struct nx_machine machine = nx_cli_machine(*cgroup);
  if (nx_config_resolve(config, &machine, &err)) {
    fprintf(stderr, "nexus: %s\n", err.text);
    nx_cgroup_close(*cgroup);
    return NX_EXIT_USAGE;
  }
  return NX_EXIT_OK;
}

int nx_cli_open_net(struct nx_net **out, const struct nx_config *config, struct nx_account *account,
                    struct nx_error *err) {
  const struct nx_net_options options = {
    .allow = config->net_allow,
    .account = account,
    .max_body_bytes = config->max_body_bytes,
    .max_timeout_ms = NET_TIMEOUT_MS,
    .max_concurrent = NET_CONCURRENT_MAX,
  };
  *out = NULL;
  return options.allow ? nx_net_create(out, &options, err) : 0;
}
