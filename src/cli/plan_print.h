/* SPDX-License-Identifier: Apache-2.0
 *
 * A plan (memory/plan.h) for people and for programs.
 * Ownership: everything is borrowed.
 * Threads:   plain functions.
 * Limits:    the text keeps to 80 columns, sizes in MiB with one decimal; the JSON has exact bytes. */
#ifndef NX_CLI_PLAN_PRINT_H
#define NX_CLI_PLAN_PRINT_H

#include <stdbool.h>

#include "manifest/manifest.h"
#include "memory/finding.h"
#include "memory/plan.h"

struct nx_plan_report {
  const struct nx_plan_input *input;
  const struct nx_plan *plan;         /* NULL: none could be made */
  const struct nx_manifest *manifest; /* NULL: not of one */
  const struct nx_findings *findings;
  const char *verdict;
};

/* On standard output. -1 when it could not be written, which is said. */
int nx_plan_print(const struct nx_plan_report *report, bool json);

#endif
