/* SPDX-License-Identifier: Apache-2.0
 *
 * POST /v1/resume/{id}, POST /v1/resume, GET and DELETE /v1/resume/{id}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec/result.h"
#include "http/app.h"
#include "http/json_body.h"
#include "http/problem.h"

/* ---- The body: one result, or a list of them --------------------------------------------------------------------------- */

enum field { ID, CALL, SUCCESS, VALUE, ERROR, RESULTS, FIELD_COUNT };
static const char *const field_names[FIELD_COUNT] = {
  [ID] = "suspensionId", [CALL] = "callId", [SUCCESS] = "success", [VALUE] = "value", [ERROR] = "error",
  [RESULTS] = "results",
};

/* 0 when it is anything but the digits of a number. */
static uint64_t parse_call_id(const char *digits, size_t bytes) {
  uint64_t id = 0;
  for (size_t i = 0; i < bytes; i++) {
    if (digits[i] < '0' || digits[i] > '9' || id > UINT32_MAX) return 0;
    id = id * 10 + (uint64_t)(digits[i] - '0');
  }
  return id;
}

/* A number, or its digits in a string; absent: 0. */
static int take_call_id(yyjson_val *value, uint32_t *out, struct nx_error *err) {
  uint64_t id = yyjson_is_uint(value) ? yyjson_get_uint(value) : 0;
  if (yyjson_is_str(value)) id = parse_call_id(yyjson_get_str(value), yyjson_get_len(value));
  if (value && (!id || id > UINT32_MAX)) return nx_error_set(err, NX_ERR_INVALID, "callId: expected the number of a call");
  *out = (uint32_t)id;
  return 0;
}

/* The text is appended to `texts`; until that is complete json.data is an offset + 1. */
static int take_answer(yyjson_val *const fields[FIELD_COUNT], struct nx_answer *out, struct nx_buf *texts,
                       struct nx_error *err) {
  if (!yyjson_is_bool(fields[SUCCESS])) return nx_error_set(err, NX_ERR_INVALID, "success: expected true or false");
  out->success = yyjson_get_bool(fields[SUCCESS]);
  if (fields[out->success ? ERROR : VALUE])
    return nx_error_set(err, NX_ERR_INVALID, out->success ? "error: goes with \"success\": false"
                                                          : "value: goes with \"success\": true");
  yyjson_val *json = fields[out->success ? VALUE : ERROR];
  size_t begin = texts->len;
  if (json) nx__json_add(texts, json);
  if (texts->failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the results");
  out->json = (struct nx_text){json ? (const char *)(uintptr_t)(begin + 1) : NULL, (uint32_t)(texts->len - begin)};
  return take_call_id(fields[CALL], &out->call_id, err);
}

static int take_list(struct nx_request *request, yyjson_val *list, struct nx_error *err) {
  size_t i, count;
  yyjson_val *item;
  if (!yyjson_is_arr(list))
    return nx_error_set(err, NX_ERR_INVALID, "results: expected a list of {callId, success, value or error}");
  request->answers = calloc(yyjson_arr_size(list) + 1, sizeof *request->answers); /* calloc(0) may be NULL */
  if (!request->answers) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the results");
  yyjson_arr_foreach(list, i, count, item) {
    yyjson_val *fields[FIELD_COUNT] = {0};
    struct nx_answer answer;
    int status = nx__json_members(item, "results", field_names, FIELD_COUNT, fields, err);
    if (!status && (fields[ID] || fields[RESULTS] || !fields[CALL]))
      status = nx_error_set(err, NX_ERR_INVALID, "results[%zu]: expected {callId, success, value or error}", i);
    if (!status) status = take_answer(fields, &answer, &request->args, err);
    if (status) return status;
    request->answers[request->job.answer_count++] = answer;
  }
  return 0;
}

static int take_one(struct nx_request *request, yyjson_val *const fields[FIELD_COUNT], struct nx_error *err) {
  request->answers = calloc(1, sizeof *request->answers);
  if (!request->answers) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the result");
  request->job.answer_count = 1;
  return take_answer(fields, request->answers, &request->args, err);
}

/* The id of the path, or, for long ones, of the body. */
static int take_id(struct nx_request *request, yyjson_val *id, struct nx_error *err) {
  if (!id == !request->segment.data)
    return nx_error_set(err, NX_ERR_INVALID, id ? "suspensionId: is in the path already"
                                                : "suspensionId: expected in the path or in the body");
  if (!id) return 0;
  if (!yyjson_is_str(id)) return nx_error_set(err, NX_ERR_INVALID, "suspensionId: expected a string");
  nx_buf_add(&request->code, yyjson_get_str(id), yyjson_get_len(id));
  if (request->code.failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the request");
  request->segment = (struct nx_str){request->code.data, request->code.len};
  return 0;
}

static int take_body(struct nx_request *request, yyjson_val *root, struct nx_error *err) {
  yyjson_val *fields[FIELD_COUNT] = {0};
  int status = nx__json_members(root, "body", field_names, FIELD_COUNT, fields, err);
  if (!status) status = take_id(request, fields[ID], err);
  if (status) return status;
  if (fields[RESULTS] && (fields[SUCCESS] || fields[VALUE] || fields[ERROR] || fields[CALL]))
    return nx_error_set(err, NX_ERR_INVALID, "results: give either a list of results or one result");
  status = fields[RESULTS] ? take_list(request, fields[RESULTS], err) : take_one(request, fields, err);
  if (status) return status;
  for (size_t i = 0; i < request->job.answer_count; i++) {
    struct nx_text *json = &request->answers[i].json;
    if (json->data) json->data = request->args.data + ((uintptr_t)json->data - 1);
  }
  request->job.answers = request->answers;
  return 0;
}

/* ---- Routes -------------------------------------------------------------------------------------------------------------- */

static enum nx_http_next submit(struct nx_request *request, enum nx_job_kind kind,
                                enum nx_http_next (*complete)(struct nx_request *request)) {
  request->job.kind = kind;
  request->job.suspension = (struct nx_text){request->segment.data, (uint32_t)request->segment.len};
  request->complete = complete;
  return nx__app_submit(request);
}

static enum nx_http_next complete_resume(struct nx_request *request) {
  snprintf(request->name, sizeof request->name, "%s", nx_job_handler_name(&request->job));
  return nx__complete_execute(request);
}

enum nx_http_next nx__route_resume(struct nx_request *request) {
  struct nx__json_body body;
  struct nx_error err;
  if (!nx__json_body_open(request, &body)) return NX_HTTP_DONE;
  int status = take_body(request, body.root, &err);
  nx__json_body_close(request, &body);
  if (!status) return submit(request, NX_JOB_RESUME, complete_resume);
  if (status == -NX_ERR_NO_MEMORY)
    nx__app_refuse_memory(request->app, &request->exchange->response, err.text, request->exchange->request.body.len);
  else
    nx_problem_from_error(&request->exchange->response, &err);
  return NX_HTTP_DONE;
}

static enum nx_http_next complete_look_up(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  response->status = 200;
  response->content_type = "application/json";
  nx_buf_deinit(&response->body);
  response->body = request->job.reply; /* given away */
  request->job.reply = (struct nx_buf){0};
  return NX_HTTP_DONE;
}

enum nx_http_next nx__route_look_up(struct nx_request *request) {
  request->job.reply.account = request->app->account;
  return submit(request, NX_JOB_LOOK_UP, complete_look_up);
}

static enum nx_http_next complete_cancel(struct nx_request *request) {
  request->exchange->response.status = 204;
  return NX_HTTP_DONE;
}

enum nx_http_next nx__route_cancel(struct nx_request *request) {
  return submit(request, NX_JOB_CANCEL, complete_cancel);
}
