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
  struct nx_account *account;     /* charged for images */
  struct nx_registry *registry;
  struct nx_cache *cache;         /* NULL: none */
  struct nx_cache_writer *writer; /* NULL: none */
  uint32_t memory_bytes;          /* what compiling may use, whoever asks: images are shared by all callers */
  uint64_t timeout_ns;            /* and how long it may take, for a handler that has a name */
};

/* Looks for the source of job->entry, or for job->source, among the compiled handlers in memory; sets job->execution.handler, which the job then owns. */
void nx__compile_find(const struct nx_compiler *compiler, struct nx_job *job);
/* The same from the disk cache, for a job that nx__compile_find found nothing for. False: it is not there, or
 * job->refusal says what failed. */
bool nx__compile_load(const struct nx_compiler *compiler, struct nx_job *job);
/* The same from the disk cache, or else by compiling. False: job->execution says why not. */
bool nx__compile(const struct nx_compiler *compiler, struct nx_job *job);

#endif
