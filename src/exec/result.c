/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/result.h"

static void string_member(struct nx_buf *out, const char *name, const struct nx_buf *text) {
  nx_buf_printf(out, "\"%s\":", name);
  nx_buf_json_string(out, text->data ? text->data : "", text->len);
}

static void list_member(struct nx_buf *out, const char *name, const struct nx_buf *items, bool shown) {
  nx_buf_printf(out, ",\"%s\":[", name);
  if (shown) nx_buf_add(out, items->data, items->len);
  nx_buf_char(out, ']');
}

static void write_snippet(const struct nx_job *job, struct nx_buf *out) {
  const struct nx_execution_error *error = &job->execution.error;
  const struct nx_handler *handler = job->execution.handler;
  NX_BUF_AUTO snippet = {0};
  nx_handler_snippet(handler ? handler->source : job->source.data, handler ? handler->source_bytes : job->source.bytes,
                     error->line, error->column, &snippet);
  if (!snippet.len || snippet.failed) return;
  nx_buf_char(out, ',');
  string_member(out, "snippet", &snippet);
}

static void write_error(const struct nx_job *job, struct nx_buf *out) {
  const struct nx_execution_error *error = &job->execution.error;
  nx_buf_printf(out, ",\"error\":{\"code\":\"%s\",", nx_outcome_code(job->execution.outcome));
  string_member(out, "message", &error->message);
  if (error->stack.len) {
    nx_buf_char(out, ',');
    string_member(out, "stack", &error->stack);
  }
  if (error->line) {
    nx_buf_printf(out, ",\"location\":{\"line\":%u,\"column\":%u}", error->line, error->column ? error->column : 1);
    write_snippet(job, out);
  }
  nx_buf_char(out, '}');
}

static void number_member(struct nx_buf *out, const char *before, uint64_t value) {
  nx_buf_str(out, before);
  nx_buf_u64(out, value);
}

static void write_metrics(const struct nx_job *job, struct nx_buf *out) {
  const struct nx_execution *x = &job->execution;
  number_member(out, ",\"metrics\":{\"durationUs\":", x->duration_ns / 1000);
  number_member(out, ",\"memoryUsedBytes\":", x->memory_used_bytes);
  number_member(out, ",\"memoryPeakBytes\":", x->memory_peak_bytes);
  number_member(out, ",\"hostCalls\":", x->host_calls);
  number_member(out, ",\"compilationTimeUs\":", job->compile_us);
  nx_buf_str(out, job->cache_hit ? ",\"cacheHit\":true}" : ",\"cacheHit\":false}");
}

void nx_result_write(const struct nx_job *job, struct nx_buf *out) {
  const struct nx_execution *x = &job->execution;
  bool success = x->outcome == NX_OUTCOME_SUCCESS;
  nx_buf_printf(out, "{\"executionId\":\"%s\",\"status\":\"%s\"", x->id, success ? "success" : "error");
  if (success && x->has_value) {
    nx_buf_lit(out, ",\"returnValue\":");
    nx_buf_add(out, x->value.data, x->value.len);
  }
  list_member(out, "stateMutations", &x->mutations, success);
  list_member(out, "events", &x->events, success);
  list_member(out, "viewCommands", &x->view, success);
  list_member(out, "logs", &x->logs, true);
  if (!success) write_error(job, out);
  write_metrics(job, out);
  nx_buf_char(out, '}');
}
