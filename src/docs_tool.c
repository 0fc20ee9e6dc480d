/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes the pages of docs/ that come from tables in the code. usage: docs_tool DIR */
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "memory/plan.h"
#include "metrics/metrics.h"

static int write_page(const char *dir, const char *name, int (*write)(FILE *out, struct nx_error *err)) {
  char path[4096];
  struct nx_error err;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *out = fopen(path, "w");
  if (!out) {
    perror(path);
    return 1;
  }
  int status = write(out, &err);
  if (status) fprintf(stderr, "%s: %s\n", path, err.text);
  return fclose(out) || status ? 1 : 0;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  return write_page(argv[1], "configuration.md", nx_config_write_docs) |
         write_page(argv[1], "metrics.md", nx_metrics_write_docs) | write_page(argv[1], "sizing.md", nx_plan_write_docs);
}
