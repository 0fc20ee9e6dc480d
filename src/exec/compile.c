/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/compile.h"

#include <string.h>

#include "base/clock.h"
#include "metrics/metrics.h"

static void take(struct nx_job *job, struct nx_handler *handler) {
  job->execution.handler = handler;
  job->_owns_handler = true;
}

static void fail(struct nx_job *job, const struct nx_error *err) {
  job->refusal = *err;
  nx_execution_fail(&job->execution, NX_OUTCOME_INTERNAL_ERROR, "%s", err->text);
}

/* Compiling is an execution of its own, without rights; its outcome is the job's when it fails. The caller's own limits
 * must not decide what the image holds: others with the same source get it too. Nor may a handler's grants be too tight
 * to compile it, when they were not where it was installed. An execution that is resumed has used some of its limits
 * already, and gets nothing back. */
static struct nx_image *make_image(const struct nx_compiler *compiler, struct nx_job *job) {
  struct nx_image *image = NULL;
  struct nx_error err;
  struct nx_lease lease;
  if (nx_pool_acquire(compiler->pool, nx_sandbox_base_image(), &job->reservation, &lease, &err)) {
    fail(job, &err);
    return NULL;
  }
  struct nx_execution *x = &job->execution;
  const struct nx_execution_limits limits = x->limits;
  const uint64_t duration_ns = x->duration_ns;
  const uint32_t host_calls = x->host_calls;
  x->limits.memory_bytes = compiler->memory_bytes;
  if (job->entry) x->limits.timeout_ns = compiler->timeout_ns;
  x->host_calls = 0;
  x->duration_ns = 0;
  x->budget = &lease;
  nx_execution_compile(x, lease.instance, job->source, compiler->account, &image);
  nx_pool_release(&lease);
  job->compile_us = x->duration_ns / 1000;
  x->limits = limits;
  x->host_calls = host_calls;
  x->duration_ns = duration_ns;
  return image;
}

void nx__compile_find(const struct nx_compiler *compiler, struct nx_job *job) {
  if (job->entry)
    memcpy(job->_source_hash, job->entry->source_hash, NX_HASH_BYTES);
  else
    nx_handler_hash_source(job->_source_hash, job->source.data, job->source.bytes);
  struct nx_handler *handler = nx_registry_find(compiler->registry, job->_source_hash);
  if (!handler) return;
  job->cache_hit = true;
  job->execution.outcome = NX_OUTCOME_SUCCESS;
  take(job, handler);
}

/* Takes over `image`. */
static bool keep(const struct nx_compiler *compiler, struct nx_job *job, struct nx_image *image) {
  struct nx_handler *handler = NULL;
  struct nx_error err;
  int status = nx_handler_create(&handler, job->source.data, job->source.bytes, image, job->compile_us, &err);
  if (!status && !job->cache_hit) nx_cache_writer_put(compiler->writer, job->_source_hash, image);
  nx_image_release(image);
  if (status) {
    fail(job, &err);
    return false;
  }
  take(job, nx_registry_keep(compiler->registry, handler));
  job->execution.outcome = NX_OUTCOME_SUCCESS;
  return true;
}

bool nx__compile_load(const struct nx_compiler *compiler, struct nx_job *job) {
  struct nx_image *image = nx_cache_load(compiler->cache, job->_source_hash);
  job->_missed = !image;
  job->cache_hit = image != NULL;
  return image && keep(compiler, job, image);
}

bool nx__compile(const struct nx_compiler *compiler, struct nx_job *job) {
  struct nx_image *image = job->_missed ? NULL : nx_cache_load(compiler->cache, job->_source_hash);
  job->_missed = false;
  job->cache_hit = image != NULL;
  if (!image) image = make_image(compiler, job);
  return image && keep(compiler, job, image);
}
