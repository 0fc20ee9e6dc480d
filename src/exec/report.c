/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/report.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "metrics/metrics.h"

/* A handler that was suspended may be gone; its name is what the executions are counted by. */
static unsigned label_of(const struct nx_job *job) {
  const char *name = nx_job_handler_name(job);
  if (job->entry) return job->entry->metrics_label;
  return *name ? nx_metrics_handler_label(name) : NX_METRICS_HANDLER_INLINE;
}

static void log_line(const struct nx_job *job, struct nx_text request_id) {
  const struct nx_execution *x = &job->execution;
  const char *name = nx_job_handler_name(job);
  char duration[24], memory[24], trace[NX_TRACEPARENT_MAX + 1], id[129];
  snprintf(duration, sizeof duration, "%" PRIu64, (x->duration_ns - x->earlier_ns) / 1000);
  snprintf(memory, sizeof memory, "%" PRIu32, x->memory_peak_bytes);
  snprintf(trace, sizeof trace, "%.*s", (int)job->traceparent.bytes, job->traceparent.bytes ? job->traceparent.data : "");
  snprintf(id, sizeof id, "%.*s", (int)request_id.bytes, request_id.bytes ? request_id.data : "");
  nx_log(NX_LOG_INFO, "execution", "executionId", x->id, "handler", *name ? name : "inline", "status",
         nx_outcome_name(x->outcome), "durationUs", duration, "memoryPeakBytes", memory, "requestId", id, "traceparent",
         trace, NULL);
}

void nx_job_report(const struct nx_job *job, struct nx_text request_id) {
  const struct nx_execution *x = &job->execution;
  nx_metrics_execution(label_of(job), nx_outcome_status(x->outcome), x->duration_ns - x->earlier_ns);
  if (nx_log_enabled(NX_LOG_INFO) && nx_log_take()) log_line(job, request_id);
}
