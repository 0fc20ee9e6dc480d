/* SPDX-License-Identifier: Apache-2.0
 *
 * POST /v1/execute and POST /run/{name}: a request becomes a job, a job becomes a reply. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_text.h"
#include "exec/report.h"
#include "exec/result.h"
#include "http/app.h"
#include "http/json_body.h"
#include "http/problem.h"

static enum nx_http_next invalid(struct nx_request *request, const char *detail) {
  nx_problem_write(&request->exchange->response, 400, "INVALID_REQUEST", detail);
  return NX_HTTP_DONE;
}

/* The host's copies of a request are charged like all memory. */
static enum nx_http_next no_memory(struct nx_request *request, uint64_t bytes) {
  nx__app_refuse_memory(request->app, &request->exchange->response, "no memory for the request", bytes);
  return NX_HTTP_DONE;
}

/* ---- What both forms share ---------------------------------------------------------------------------------------- */

static uint64_t lower_u64(uint64_t configured, uint64_t wanted) {
  return wanted && wanted < configured ? wanted : configured;
}

static void lower_limits(struct nx_execution_limits *limits, uint64_t timeout_ms, uint64_t memory_mb) {
  limits->timeout_ns = lower_u64(limits->timeout_ns, timeout_ms * NX_NS_PER_MS);
  limits->memory_bytes = (uint32_t)lower_u64(limits->memory_bytes, memory_mb << 20);
}

/* Finds request->name; the handler's grants become the rights' first half. */
static bool take_entry(struct nx_request *request) {
  if (!nx__find_handler(request)) return false;
  struct nx_execution *x = &request->job.execution;
  struct nx_grants *grants = request->entry->grants;
  request->job.entry = request->entry;
  request->job.cache_hit = request->entry->handler != NULL;
  x->handler = request->entry->handler;
  if (grants) {
    x->rights.grants = &grants->capabilities;
    lower_limits(&x->limits, grants->timeout_ms, grants->memory_limit_mb);
  }
  return true;
}

static void record(struct nx_request *request) {
  struct nx_str id = request->exchange->request.request_id;
  if (request->entry) nx_entry_count_execution(request->entry);
  if (!request->name[0]) nx_metrics_cache(request->job.cache_hit);
  nx_job_report(&request->job, (struct nx_text){id.data, (uint32_t)id.len});
}

static enum nx_http_next submit(struct nx_request *request,
                                enum nx_http_next (*complete)(struct nx_request *request)) {
  request->job.kind = NX_JOB_EXECUTE;
  request->complete = complete;
  nx_execution_name(&request->job.execution);
  return nx__app_submit(request);
}

static void add_execution_id(struct nx_request *request) {
  nx_buf_printf(&request->exchange->response.headers, "X-Execution-Id: %s\r\n", request->job.execution.id);
}

static void write_result(struct nx_request *request, int status) {
  struct nx_http_response *response = &request->exchange->response;
  response->status = status;
  response->content_type = "application/json";
  nx_result_write(&request->job, &response->body);
}

/* ---- POST /run/{name} ------------------------------------------------------------------------------------------------- */

/* A name that is a sealed continuation is too long for a header. */
#define LOCATION_NAME_MAX 64u

static void complete_suspended(struct nx_request *request) {
  const struct nx_buf *name = &request->job.name;
  if (name->len && name->len <= LOCATION_NAME_MAX)
    nx_buf_printf(&request->exchange->response.headers, "Location: /v1/resume/%.*s\r\n", (int)name->len, name->data);
  write_result(request, 202);
}

static enum nx_http_next complete_run(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  struct nx_execution *x = &request->job.execution;
  record(request);
  add_execution_id(request);
  if (x->outcome == NX_OUTCOME_SUSPENDED) {
    complete_suspended(request);
  } else if (x->outcome != NX_OUTCOME_SUCCESS) {
    nx_problem_from_job(response, &request->job);
  } else if (!x->has_value) {
    response->status = 204;
  } else {
    response->status = 200;
    response->content_type = "application/json";
    nx_buf_deinit(&response->body);
    response->body = x->value; /* given away */
    x->value = (struct nx_buf){0};
  }
  return NX_HTTP_DONE;
}

static bool is_blank(struct nx_str text) {
  for (size_t i = 0; i < text.len; i++)
    if (!memchr(" \t\r\n", text.data[i], 4)) return false;
  return true;
}

enum nx_http_next nx__route_run(struct nx_request *request) {
  struct nx_execution *x = &request->job.execution;
  x->limits = nx_exec_limits(request->app->config);
  if (!take_entry(request)) return NX_HTTP_DONE;
  struct nx_str body = request->exchange->request.body;
  struct nx_json_fault fault;
  if (!is_blank(body)) {
    if (!nx_json_is_valid(body.data, body.len, &fault)) {
      char detail[128];
      snprintf(detail, sizeof detail, "body: not valid JSON: %s at byte %zu", fault.reason, fault.offset);
      return invalid(request, detail);
    }
    x->args = (struct nx_text){body.data, (uint32_t)body.len};
  }
  return submit(request, complete_run);
}

/* ---- POST /v1/execute --------------------------------------------------------------------------------------------------- */

/* The members of the body, by the names that enum field has. */
enum field { HANDLER, CODE, ARGS, STATE, SCOPE, CAPABILITIES, EXTENSIONS, TIMEOUT, MEMORY, FIELD_COUNT };
static const char *const field_names[FIELD_COUNT] = {
  [HANDLER] = "handler", [CODE] = "code", [ARGS] = "args", [STATE] = "state", [SCOPE] = "scope",
  [CAPABILITIES] = "capabilities", [EXTENSIONS] = "extensions", [TIMEOUT] = "timeoutMs", [MEMORY] = "memoryLimitMb",
};

/* A whole number from 1 to NUMBER_MAX; also when written as 5.0. */
#define NUMBER_MAX 1000000000
static int take_number(yyjson_val *value, const char *name, uint64_t *out, struct nx_error *err) {
  if (!value) return 0;
  double real = yyjson_is_num(value) ? yyjson_get_num(value) : 0;
  if (!(real >= 1 && real <= NUMBER_MAX) || (double)(uint64_t)real != real)
    return nx_error_set(err, NX_ERR_INVALID, "%s: expected a whole number from 1 to %d", name, NUMBER_MAX);
  *out = (uint64_t)real;
  return 0;
}

static int take_what(struct nx_request *request, yyjson_val *const fields[FIELD_COUNT], struct nx_error *err) {
  if (!fields[HANDLER] == !fields[CODE])
    return nx_error_set(err, NX_ERR_INVALID, "handler: give either handler (a name) or code (a source)");
  if (fields[CODE]) {
    if (!yyjson_is_str(fields[CODE]) || !yyjson_get_len(fields[CODE]))
      return nx_error_set(err, NX_ERR_INVALID, "code: expected a string that is not empty");
    request->job.source = (struct nx_text){yyjson_get_str(fields[CODE]), (uint32_t)yyjson_get_len(fields[CODE])};
    return 0;
  }
  const char *name = yyjson_get_str(fields[HANDLER]);
  size_t bytes = yyjson_get_len(fields[HANDLER]);
  if (!name || !nx_handler_name_valid(name, bytes))
    return nx_error_set(err, NX_ERR_INVALID, "handler: expected the name of a handler");
  memcpy(request->name, name, bytes + 1);
  return 0;
}

static int take_rights(struct nx_request *request, yyjson_val *const fields[FIELD_COUNT], struct nx_error *err) {
  request->job.execution.rights.request = &request->capabilities;
  return nx_capabilities_parse(&request->capabilities, fields[CAPABILITIES], fields[EXTENSIONS], err);
}

/* What may not be read never enters the sandbox. */
static void add_readable_state(struct nx_buf *out, yyjson_val *state, const struct nx_rights *rights) {
  nx_buf_char(out, '{');
  yyjson_obj_iter iter = yyjson_obj_iter_with(state);
  for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
    if (!nx_rights_allow(rights, NX_CAP_STATE_READ, yyjson_get_str(key), yyjson_get_len(key))) continue;
    if (out->len > 1) nx_buf_char(out, ',');
    nx_buf_json_string(out, yyjson_get_str(key), yyjson_get_len(key));
    nx_buf_char(out, ':');
    nx__json_add(out, yyjson_obj_iter_get_val(key));
  }
  nx_buf_char(out, '}');
}

static int take_texts(struct nx_request *request, yyjson_val *const fields[FIELD_COUNT], struct nx_error *err) {
  struct nx_execution *x = &request->job.execution;
  if (fields[STATE] && !yyjson_is_obj(fields[STATE])) return nx_error_set(err, NX_ERR_INVALID, "state: expected an object");
  if (fields[SCOPE] && !yyjson_is_obj(fields[SCOPE])) return nx_error_set(err, NX_ERR_INVALID, "scope: expected an object");
  if (fields[ARGS]) nx__json_add(&request->args, fields[ARGS]);
  if (fields[STATE]) add_readable_state(&request->state, fields[STATE], &x->rights);
  if (fields[SCOPE]) nx__json_add(&request->scope, fields[SCOPE]);
  if (request->args.failed || request->state.failed || request->scope.failed)
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the arguments");
  x->args = (struct nx_text){request->args.data, (uint32_t)request->args.len};
  x->state = (struct nx_text){request->state.data, (uint32_t)request->state.len};
  x->scope = (struct nx_text){request->scope.data, (uint32_t)request->scope.len};
  return 0;
}

/* The source outlives the parsed body: jobs may wait in the queue. */
static int keep_source(struct nx_request *request, struct nx_error *err) {
  if (!request->job.source.data) return 0;
  nx_buf_add(&request->code, request->job.source.data, request->job.source.bytes);
  if (request->code.failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the source");
  request->job.source.data = request->code.data;
  return 0;
}

static int take_body(struct nx_request *request, yyjson_val *root, bool *answered, struct nx_error *err) {
  yyjson_val *fields[FIELD_COUNT] = {0};
  uint64_t timeout_ms = 0, memory_mb = 0;
  int status = nx__json_members(root, "body", field_names, FIELD_COUNT, fields, err);
  if (!status) status = take_what(request, fields, err);
  if (!status) status = take_rights(request, fields, err);
  if (!status) status = take_number(fields[TIMEOUT], "timeoutMs", &timeout_ms, err);
  if (!status) status = take_number(fields[MEMORY], "memoryLimitMb", &memory_mb, err);
  if (status) return status;
  if (request->name[0] && !take_entry(request)) {
    *answered = true;
    return 0;
  }
  lower_limits(&request->job.execution.limits, timeout_ms, memory_mb);
  status = take_texts(request, fields, err);
  return status ? status : keep_source(request, err);
}

enum nx_http_next nx__complete_execute(struct nx_request *request) {
  record(request);
  add_execution_id(request);
  write_result(request, 200);
  return NX_HTTP_DONE;
}

enum nx_http_next nx__route_execute(struct nx_request *request) {
  struct nx__json_body body;
  struct nx_error err;
  bool answered = false;
  request->job.execution.limits = nx_exec_limits(request->app->config);
  if (!nx__json_body_open(request, &body)) return NX_HTTP_DONE;
  int status = take_body(request, body.root, &answered, &err);
  nx__json_body_close(request, &body);
  if (status == -NX_ERR_NO_MEMORY) return no_memory(request, request->exchange->request.body.len);
  if (status) {
    nx_problem_from_error(&request->exchange->response, &err);
    return NX_HTTP_DONE;
  }
  return answered ? NX_HTTP_DONE : submit(request, nx__complete_execute);
}
