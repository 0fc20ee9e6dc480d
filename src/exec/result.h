/* SPDX-License-Identifier: Apache-2.0
 *
 * The result of a job as the API's JSON (docs/api.md, "Result"). */
#ifndef NX_EXEC_RESULT_H
#define NX_EXEC_RESULT_H

#include "exec/exec.h"

/* {executionId, status, returnValue, stateMutations, …}. A failed execution has no effects: its mutations, events and
 * view commands are left out, its logs are not. */
void nx_result_write(const struct nx_job *job, struct nx_buf *out);

/* What the store has of an execution: the result of a finished one; of one that waits {suspensionId, status, suspension}. */
struct nx_taken;
void nx_result_write_kept(const struct nx_taken *kept, struct nx_text name, struct nx_buf *out);

#endif
