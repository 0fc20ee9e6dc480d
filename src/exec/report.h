/* SPDX-License-Identifier: Apache-2.0
 *
 * What is told of an execution besides its result: figures, and a line of the log. */
#ifndef NX_EXEC_REPORT_H
#define NX_EXEC_REPORT_H

#include "exec/exec.h"

/* Once for each reply to its caller, and once for each time that it went on without one. `request_id` may be empty. */
void nx_job_report(const struct nx_job *job, struct nx_text request_id);

#endif
