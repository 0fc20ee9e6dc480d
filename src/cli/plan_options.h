/* SPDX-License-Identifier: Apache-2.0
 *
 * The arguments of nexus plan.
 * Ownership: borrows argv and `problems`; `serve` is the caller's, with room for as many as argc.
 * Threads:   plain functions.
 * Errors:    a line in `problems` for each argument that is wrong. */
#ifndef NX_CLI_PLAN_OPTIONS_H
#define NX_CLI_PLAN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct nx_plan_options {
  bool json, limit_is_given, request_is_given;
  uint64_t limit_bytes, request_bytes;
  unsigned cores, hpa_percent, pods_min, pods_max, alert_percent; /* 0: not given, but for alert_percent */
  const char *manifest;                 /* NULL: none; "-": standard input */
  char memory_flag[48], cache_flag[48]; /* what --instance and --cache mean to serve */
  char **serve;                         /* its arguments, in their order */
  int serve_count;
  struct nx_buf *problems;
};

extern const char nx_plan_usage[];

/* Takes what is the plan's; the rest, with its values, is for nx_config_load to judge. */
void nx_plan_options_parse(struct nx_plan_options *options, int argc, char **argv);

#endif
