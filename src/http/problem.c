/* SPDX-License-Identifier: Apache-2.0 */
#include "http/problem.h"

#include <string.h>

static void open_problem(struct nx_http_response *response, int status) {
  response->status = status;
  response->content_type = NX_PROBLEM_TYPE;
  nx_buf_reset(&response->body, SIZE_MAX);
  nx_buf_printf(&response->body, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,", nx_http_reason(status),
                status);
}

static void add_text(struct nx_http_response *response, const char *code, const char *detail) {
  nx_buf_printf(&response->body, "\"code\":\"%s\",\"detail\":", code);
  nx_buf_json_string(&response->body, detail, strlen(detail));
}

void nx_problem_write(struct nx_http_response *response, int status, const char *code, const char *detail) {
  open_problem(response, status);
  add_text(response, code, detail);
  nx_buf_char(&response->body, '}');
}

void nx_problem_from_error(struct nx_http_response *response, const struct nx_error *err) {
  nx_problem_write(response, nx_error_http_status(err->code), nx_error_name(err->code), err->text);
}

static void add_refused(struct nx_http_response *response, const struct nx_refusal *refused) {
  if (!refused->layer) return;
  nx_buf_printf(&response->body, ",\"layer\":\"%s\",\"limitBytes\":%llu,\"usedBytes\":%llu,\"requestedBytes\":%llu",
                refused->layer, (unsigned long long)refused->limit_bytes, (unsigned long long)refused->used_bytes,
                (unsigned long long)refused->requested_bytes);
}

void nx_problem_overloaded(struct nx_http_response *response, const char *detail, const struct nx_refusal *refused,
                           unsigned retry_after_s) {
  open_problem(response, 503);
  add_text(response, "OVERLOADED", detail);
  add_refused(response, refused);
  nx_buf_char(&response->body, '}');
  nx_buf_printf(&response->headers, "Retry-After: %u\r\n", retry_after_s);
}

void nx_problem_from_job(struct nx_http_response *response, const struct nx_job *job) {
  const struct nx_execution *x = &job->execution;
  struct nx_buf *body = &response->body;
  open_problem(response, nx_outcome_http_status(x->outcome));
  nx_buf_printf(body, "\"code\":\"%s\",\"detail\":", nx_outcome_code(x->outcome));
  nx_buf_json_string(body, x->error.message.data ? x->error.message.data : "", x->error.message.len);
  if (x->error.line)
    nx_buf_printf(body, ",\"location\":{\"line\":%u,\"column\":%u}", x->error.line,
                  x->error.column ? x->error.column : 1);
  add_refused(response, &job->refused);
  if (x->id[0]) nx_buf_printf(body, ",\"executionId\":\"%s\"", x->id);
  nx_buf_char(body, '}');
}
