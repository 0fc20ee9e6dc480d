/* SPDX-License-Identifier: Apache-2.0
 *
 * The result of a job as the API's JSON (docs/api.md, "Result"). */
#ifndef NX_EXEC_RESULT_H
#define NX_EXEC_RESULT_H

#include "exec/exec.h"

/* {executionId, status, returnValue, stateMutations, …}. A failed execution has no effects: its mutations, events and
 * view commands are left out, its logs are not. */
void nx_result_write(const struct nx_job *job, struct nx_buf *out);

#endif
