/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/result.h"

#include <time.h>

#include <sodium.h>

#include "base/clock.h"
#include "suspend/suspensions.h"

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

/* ---- Suspensions ------------------------------------------------------------------------------------------------------ */

static void write_call_members(const struct nx_call *call, struct nx_buf *out) {
  nx_buf_lit(out, ",\"extensionName\":");
  nx_buf_json_string(out, call->extension, call->extension_bytes);
  nx_buf_lit(out, ",\"method\":");
  nx_buf_json_string(out, call->method, call->method_bytes);
  nx_buf_lit(out, ",\"args\":");
  nx_buf_add(out, call->args, call->args_bytes);
}

/* Only what the caller has to answer. */
static void write_calls(const struct nx_calls *calls, struct nx_buf *out) {
  struct nx_call call;
  bool first = true;
  nx_buf_lit(out, ",\"calls\":[");
  for (size_t at = 0; nx_calls_next(calls, &at, &call);) {
    if (call.kind != NX_CALL_CALLER) continue;
    nx_buf_str(out, first ? "{\"callId\":" : ",{\"callId\":");
    nx_buf_u64(out, call.id);
    write_call_members(&call, out);
    nx_buf_char(out, '}');
    first = false;
  }
  nx_buf_char(out, ']');
}

/* RFC 3339, in UTC. */
static void write_time(uint64_t ms, struct nx_buf *out) {
  time_t seconds = (time_t)(ms / 1000);
  struct tm t;
  gmtime_r(&seconds, &t);
  nx_buf_printf(out, ",\"expiresAt\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                t.tm_hour, t.tm_min, t.tm_sec, (int)(ms % 1000));
}

static void write_suspension(struct nx_text name, const struct nx_calls *calls, uint64_t expires_ms, struct nx_buf *out) {
  struct nx_call call;
  nx_buf_lit(out, ",\"suspension\":{\"suspensionId\":");
  if (name.bytes)
    nx_buf_json_string(out, name.data, name.bytes);
  else
    nx_buf_lit(out, "null"); /* it is not kept */
  for (size_t at = 0; nx_calls_next(calls, &at, &call);)
    if (call.kind == NX_CALL_CALLER) {
      write_call_members(&call, out);
      break;
    }
  write_calls(calls, out);
  if (expires_ms) write_time(expires_ms, out);
  nx_buf_char(out, '}');
}

void nx_result_write_kept(const struct nx_taken *kept, struct nx_text name, struct nx_buf *out) {
  const struct nx_record *record = &kept->record;
  struct nx_bytes result = record->sections[NX_RECORD_RESULT], packed = record->sections[NX_RECORD_CALLS];
  if (kept->state == NX_STORED_FINISHED) {
    nx_buf_add(out, result.data, result.size);
    return;
  }
  struct nx_calls calls = {.block.account = out->account};
  char id[2 * NX_EXECUTION_ID_RAW_BYTES + 1];
  sodium_bin2hex(id, sizeof id, record->fixed.execution_id, sizeof record->fixed.execution_id);
  if (!nx_calls_load(&calls, packed.data, packed.size)) out->failed = true;
  nx_buf_printf(out, "{\"executionId\":\"%s\",\"status\":\"suspended\"", id);
  write_suspension(name, &calls, record->fixed.expires_ms, out);
  nx_buf_char(out, '}');
  nx_calls_deinit(&calls);
}

static const char *status_name(enum nx_outcome outcome) {
  return outcome == NX_OUTCOME_SUCCESS ? "success" : outcome == NX_OUTCOME_SUSPENDED ? "suspended" : "error";
}

void nx_result_write(const struct nx_job *job, struct nx_buf *out) {
  const struct nx_execution *x = &job->execution;
  bool success = x->outcome == NX_OUTCOME_SUCCESS || x->outcome == NX_OUTCOME_SUSPENDED;
  nx_buf_printf(out, "{\"executionId\":\"%s\",\"status\":\"%s\"", x->id, status_name(x->outcome));
  if (x->outcome == NX_OUTCOME_SUCCESS && x->has_value) {
    nx_buf_lit(out, ",\"returnValue\":");
    nx_buf_add(out, x->value.data, x->value.len);
  }
  list_member(out, "stateMutations", &x->mutations, success);
  list_member(out, "events", &x->events, success);
  list_member(out, "viewCommands", &x->view, success);
  list_member(out, "logs", &x->logs, true);
  if (x->outcome == NX_OUTCOME_SUSPENDED)
    write_suspension((struct nx_text){job->name.data, (uint32_t)job->name.len}, &x->calls, job->expires_ms, out);
  if (!success) write_error(job, out);
  write_metrics(job, out);
  nx_buf_char(out, '}');
}
