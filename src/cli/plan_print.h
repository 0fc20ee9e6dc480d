/* SPDX-License-Identifier: Apache-2.0
 *
 * A plan (memory/plan.h) for people and for programs.
 * Ownership: everything is borrowed; output is appended to `out`.
 * Threads:   plain functions.
 * Limits:    the text keeps to 80 columns, sizes in MiB with one decimal; the JSON has exact bytes. */
#ifndef NX_CLI_PLAN_PRINT_H
#define NX_CLI_PLAN_PRINT_H

#include "base/buf.h"
#include "memory/plan.h"

void nx_plan_print_text(const struct nx_plan_input *input, const struct nx_plan *plan, struct nx_buf *out);
void nx_plan_print_json(const struct nx_plan_input *input, const struct nx_plan *plan, struct nx_buf *out);

#endif
