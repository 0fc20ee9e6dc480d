/* SPDX-License-Identifier: Apache-2.0
 *
 * Source into a handler: from memory, from the disk cache, or by compiling it. Private to src/exec. */
#ifndef NX_EXEC_COMPILE_H
#define NX_EXEC_COMPILE_H

#include "exec/exec.h"
#include "handler/cache_writer.h"

/* Where it looks, and what it compiles in; all borrowed. */
struct nx_compiler {
  struct nx_pool *pool;
  struct nx_registry *registry;
  struct nx_cache *cache;         /* NULL: none */
  struct nx_cache_writer *writer; /* NULL: none */
  uint32_t memory_bytes;          /* what compiling may use, whoever asks: images are shared by all callers */
};

/* An instance that shows `image`. When the budget has no room, idle instances and handlers that no name refers to are
 * given up first. */
int nx__acquire(const struct nx_compiler *compiler, struct nx_image *image, struct nx_lease *lease,
                struct nx_error *err);

/* Sets job->execution.handler, which the job then owns. False: job->execution says why not. */
bool nx__compile(const struct nx_compiler *compiler, struct nx_job *job);

#endif
