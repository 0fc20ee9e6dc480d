/* SPDX-License-Identifier: Apache-2.0
 *
 * The subcommands, one file each. argv[0] is the command's own name; the result is the exit status. */
#ifndef NX_CLI_CLI_H
#define NX_CLI_CLI_H

#include "config/config.h"
#include "memory/cgroup.h"
#include "net/net.h"

enum {
  NX_EXIT_OK = 0,
  NX_EXIT_FAILURE = 1,
  NX_EXIT_USAGE = 2,  /* bad arguments or configuration: trying again changes nothing */
};

int nx_cmd_config(int argc, char **argv);
int nx_cmd_doctor(int argc, char **argv);
int nx_cmd_health(int argc, char **argv);
int nx_cmd_plan(int argc, char **argv);
int nx_cmd_run(int argc, char **argv);
int nx_cmd_serve(int argc, char **argv);
int nx_cmd_top(int argc, char **argv);
int nx_cmd_version(int argc, char **argv);

/* Loads the configuration from environment and flags and fits it to this machine; says on stderr what is wrong.
 * `cgroup` (owned by the caller) may be NULL. Returns an exit status. */
int nx_cli_load(struct nx_config *config, struct nx_cgroup **cgroup, int argc, char **argv);
/* The client for requests of handlers; NULL when NET_ALLOW is not set. */
int nx_cli_open_net(struct nx_net **out, const struct nx_config *config, struct nx_account *account,
                    struct nx_error *err);
/* What config/ cannot judge, because it knows no other module; a line for `problems` when it is wrong. */
int nx_cli_check_net_allow(const struct nx_config *config, struct nx_buf *problems, struct nx_error *err);
struct nx_machine nx_cli_machine(const struct nx_cgroup *cgroup);

#endif
