/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/compile.h"

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

int nx__acquire(const struct nx_compiler *compiler, struct nx_image *image, struct nx_lease *lease,
                struct nx_error *err) {
  int status = nx_pool_acquire(compiler->pool, image, lease, err);
  if (status != -NX_ERR_OVERLOADED) return status;
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_IDLE_INSTANCES, nx_pool_trim(compiler->pool, UINT64_MAX));
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_HANDLER_IMAGES, nx_registry_drop_cold(compiler->registry, SIZE_MAX));
  return nx_pool_acquire(compiler->pool, image, lease, err);
}

/* Compiling is an execution of its own, without rights; its outcome is the job's when it fails. The caller's own limits
 * must not decide what the image holds: others with the same source get it too. */
static struct nx_image *make_image(const struct nx_compiler *compiler, struct nx_job *job) {
  struct nx_image *image = NULL;
  struct nx_error err;
  struct nx_lease lease;
  if (nx__acquire(compiler, nx_sandbox_base_image(), &lease, &err)) {
    fail(job, &err);
    return NULL;
  }
  struct nx_execution *x = &job->execution;
  uint32_t memory_bytes = x->limits.memory_bytes;
  x->limits.memory_bytes = compiler->memory_bytes;
  nx_execution_compile(x, lease.instance, job->source, &image);
  x->limits.memory_bytes = memory_bytes;
  nx_pool_release(compiler->pool, &lease);
  job->compile_us = x->duration_ns / 1000;
  x->host_calls = 0;
  return image;
}

bool nx__compile(const struct nx_compiler *compiler, struct nx_job *job) {
  uint8_t hash[NX_HASH_BYTES];
  nx_handler_hash_source(hash, job->source.data, job->source.bytes);
  struct nx_handler *handler = nx_registry_find(compiler->registry, hash);
  if (handler) {
    job->cache_hit = true;
    job->execution.outcome = NX_OUTCOME_SUCCESS;
    take(job, handler);
    return true;
  }
  struct nx_image *image = nx_cache_load(compiler->cache, hash);
  job->cache_hit = image != NULL;
  bool fresh = !image;
  if (!image) image = make_image(compiler, job);
  if (!image) return false;
  struct nx_error err;
  int status = nx_handler_create(&handler, job->source.data, job->source.bytes, image, job->compile_us, &err);
  if (!status && fresh) nx_cache_writer_put(compiler->writer, hash, image);
  nx_image_release(image);
  if (status) {
    fail(job, &err);
    return false;
  }
  take(job, nx_registry_keep(compiler->registry, handler));
  job->execution.outcome = NX_OUTCOME_SUCCESS;
  return true;
}
