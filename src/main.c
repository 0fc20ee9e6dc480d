/* SPDX-License-Identifier: Apache-2.0
 *
 * The command table. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *help;
} commands[] = {
  {"serve", nx_cmd_serve, "run the server (settings: nexus config, docs/configuration.md)"},
  {"run", nx_cmd_run, "FILE [--args JSON] [--state JSON] [--scope JSON] [--cap TOKEN]…: execute a handler once"},
  {"config", nx_cmd_config, "[--json]: the configuration that serve would run with, and where each value comes from"},
  {"plan", nx_cmd_plan, "[--json] [--manifest FILE] [--limit SIZE] …: what a container can hold, when it is scaled or evicted, what is wrong"},
  {"doctor", nx_cmd_doctor, "what this kernel and container offer, and what nexus makes of it"},
  {"health", nx_cmd_health, "ask a running server; exit status 0 when it is healthy or degraded"},
  {"top", nx_cmd_top, "[--url http://HOST:PORT] [--interval MS] [--once]: a live view of a running server"},
  {"version", nx_cmd_version, "version, revision and guest id"},
};
#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static int usage(FILE *out, int status) {
  fputs("usage: nexus COMMAND …\n\n", out);
  for (size_t i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 2) return usage(stderr, NX_EXIT_USAGE);
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) return usage(stdout, 0);
  if (!strcmp(argv[1], "--version")) return nx_cmd_version(argc - 1, argv + 1);
  for (size_t i = 0; i < COMMAND_COUNT; i++)
    if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
  fprintf(stderr, "nexus: unknown command \"%s\"\n", argv[1]);
  return usage(stderr, NX_EXIT_USAGE);
}
