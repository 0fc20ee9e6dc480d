/* SPDX-License-Identifier: Apache-2.0
 *
 * Source into a handler: from memory, from the disk cache, or by compiling it. Private to src/exec. */
#ifndef NX_EXEC_COMPILE_H
#define NX_EXEC_COMPILE_H

#include "exec/exec.h"

/* Sets job->execution.handler, which the job then owns. False: job->execution says why not. */
bool nx__compile(struct nx_pool *pool, struct nx_registry *registry, struct nx_cache *cache, struct nx_job *job);

#endif
