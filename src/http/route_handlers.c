/* SPDX-License-Identifier: Apache-2.0
 *
 * /v1/handlers: installing, listing, reading and removing handlers, and their grants. What is installed here lives in
 * this process only; HANDLERS_DIR is read and never written. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "http/app.h"
#include "http/problem.h"

static enum nx_http_next fail(struct nx_request *request, const struct nx_error *err) {
  nx_problem_from_error(&request->exchange->response, err);
  return NX_HTTP_DONE;
}

static enum nx_http_next no_such_handler(struct nx_request *request) {
  char detail[NX_HANDLER_NAME_MAX + 48];
  snprintf(detail, sizeof detail, "there is no handler named \"%s\"", request->name);
  nx_problem_write(&request->exchange->response, 404, "HANDLER_NOT_FOUND", detail);
  return NX_HTTP_DONE;
}

static bool find_entry(struct nx_request *request) {
  request->entry = nx_registry_get(request->app->registry, request->name, strlen(request->name));
  return request->entry != NULL;
}

static void forget_entry(struct nx_request *request) {
  nx_entry_release(request->entry);
  request->entry = NULL;
}

static void hex_hash(char hex[2 * NX_HASH_BYTES + 1], const struct nx_entry *entry) {
  nx_hash_to_hex(hex, entry->source_hash);
}

static void write_info(const struct nx_entry *entry, struct nx_buf *out) {
  char hex[2 * NX_HASH_BYTES + 1];
  hex_hash(hex, entry);
  nx_buf_printf(out, "{\"name\":\"%s\",\"hash\":\"%s\",\"sizeBytes\":%zu,\"imageBytes\":%zu,\"executions\":%" PRIu64
                ",\"origin\":\"%s\"}",
                entry->name, hex, entry->handler->source_bytes, nx_image_bytes(entry->handler->image),
                nx_entry_executions(entry), nx_origin_name(entry->origin));
}

static void add_etag(struct nx_http_response *response, const struct nx_entry *entry) {
  char hex[2 * NX_HASH_BYTES + 1];
  hex_hash(hex, entry);
  nx_buf_printf(&response->headers, "ETag: \"%s\"\r\n", hex);
}

/* ---- Conditions (RFC 9110, 13.1) --------------------------------------------------------------------------------- */

static bool is_star(struct nx_str value) { return value.len == 1 && *value.data == '*'; }

/* Calls it a match when one of the listed strong tags is `hex`. */
static bool lists_tag(struct nx_str value, const char *hex) {
  char tag[2 * NX_HASH_BYTES + 3];
  int bytes = snprintf(tag, sizeof tag, "\"%s\"", hex);
  for (const char *at = value.data, *end = value.data + value.len; at < end;) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    const char *stop = comma ? comma : end;
    while (at < stop && *at == ' ') at++;
    size_t len = (size_t)(stop - at);
    while (len && at[len - 1] == ' ') len--;
    if (len == (size_t)bytes && !memcmp(at, tag, len)) return true;
    at = stop + 1;
  }
  return false;
}

/* The tag of the handler that is installed now. */
static bool lists_own_tag(const struct nx_request *request, struct nx_str value) {
  char hex[2 * NX_HASH_BYTES + 1];
  hex_hash(hex, request->entry);
  return lists_tag(value, hex);
}

static bool if_match_holds(const struct nx_request *request) {
  struct nx_str value = request->exchange->request.if_match;
  return !value.data || is_star(value) || lists_own_tag(request, value);
}

static enum nx_http_next precondition_failed(struct nx_request *request) {
  nx_problem_write(&request->exchange->response, 412, "PRECONDITION_FAILED",
                   "the handler is not in the state that If-Match or If-None-Match asks for");
  return NX_HTTP_DONE;
}

/* What the registry must find when it makes the change: the state that the headers were checked against. */
static bool make_condition(struct nx_request *request, struct nx_condition *condition) {
  const struct nx_http_request *in = &request->exchange->request;
  *condition = (struct nx_condition){0};
  bool exists = find_entry(request);
  if (in->if_none_match.data) {
    if (is_star(in->if_none_match))
      condition->must_not_exist = true;
    else if (exists && lists_own_tag(request, in->if_none_match))
      return false;
  }
  if (!in->if_match.data) return true;
  if (!exists || !if_match_holds(request)) return false;
  condition->must_exist = true;
  if (!is_star(in->if_match)) condition->hash = request->entry->source_hash;
  return true;
}

/* ---- Handlers ------------------------------------------------------------------------------------------------------- */

enum nx_http_next nx__route_list_handlers(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  struct nx_registry_list list;
  struct nx_error err;
  if (nx_registry_list(request->app->registry, &list, &err)) return fail(request, &err);
  response->status = 200;
  response->content_type = "application/json";
  nx_buf_lit(&response->body, "{\"handlers\":[");
  for (size_t i = 0; i < list.count; i++) {
    if (i) nx_buf_char(&response->body, ',');
    write_info(list.entries[i], &response->body);
  }
  nx_buf_lit(&response->body, "]}");
  nx_registry_list_deinit(&list);
  return NX_HTTP_DONE;
}

enum nx_http_next nx__route_get_handler(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  if (!find_entry(request)) return no_such_handler(request);
  if (!if_match_holds(request)) return precondition_failed(request);
  add_etag(response, request->entry);
  struct nx_str none_match = request->exchange->request.if_none_match;
  if (none_match.data && (is_star(none_match) || lists_own_tag(request, none_match))) {
    response->status = 304;
    return NX_HTTP_DONE;
  }
  response->status = 200;
  response->content_type = "text/javascript; charset=utf-8";
  nx_buf_lit(&response->headers, "X-Content-Type-Options: nosniff\r\n");
  nx_buf_add(&response->body, request->entry->handler->source, request->entry->handler->source_bytes);
  return NX_HTTP_DONE;
}

static void complete_put(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  if (request->job.execution.outcome != NX_OUTCOME_SUCCESS) {
    nx_problem_from_job(response, &request->job);
    return;
  }
  struct nx_registration registration = {
    .name = request->name,
    .handler = request->job.execution.handler,
    .origin = NX_ORIGIN_API,
  };
  struct nx_error err;
  bool created;
  forget_entry(request);
  if (!make_condition(request, &registration.condition)) {
    precondition_failed(request);
    return;
  }
  if (nx_registry_put(request->app->registry, &registration, &created, &err)) {
    fail(request, &err);
    return;
  }
  forget_entry(request);
  if (!find_entry(request)) { /* deleted meanwhile by another request */
    no_such_handler(request);
    return;
  }
  response->status = created ? 201 : 200;
  response->content_type = "application/json";
  if (created) nx_buf_printf(&response->headers, "Location: /v1/handlers/%s\r\n", request->name);
  add_etag(response, request->entry);
  write_info(request->entry, &response->body);
}

enum nx_http_next nx__route_put_handler(struct nx_request *request) {
  struct nx_str body = request->exchange->request.body;
  struct nx_condition condition;
  if (!body.len) {
    nx_problem_write(&request->exchange->response, 400, "INVALID_REQUEST", "body: expected the source of a handler");
    return NX_HTTP_DONE;
  }
  if (!make_condition(request, &condition)) return precondition_failed(request); /* before it costs a compile */
  request->job.kind = NX_JOB_COMPILE;
  request->job.source = (struct nx_text){body.data, (uint32_t)body.len};
  request->job.execution.limits = nx_exec_limits(request->app->config);
  request->complete = complete_put;
  return nx__app_submit(request);
}

enum nx_http_next nx__route_delete_handler(struct nx_request *request) {
  struct nx_condition condition;
  struct nx_error err;
  if (!find_entry(request)) return no_such_handler(request);
  forget_entry(request);
  if (!make_condition(request, &condition)) return precondition_failed(request);
  if (nx_registry_remove(request->app->registry, request->name, &condition, &err))
    return err.code == NX_ERR_NOT_FOUND ? no_such_handler(request) : fail(request, &err);
  request->exchange->response.status = 204;
  return NX_HTTP_DONE;
}

/* ---- Grants ------------------------------------------------------------------------------------------------------------ */

enum nx_http_next nx__route_get_grants(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  if (!find_entry(request)) return no_such_handler(request);
  if (!request->entry->grants) {
    nx_problem_write(response, 404, "GRANTS_NOT_FOUND", "this handler was given no grants");
    return NX_HTTP_DONE;
  }
  response->status = 200;
  response->content_type = "application/json";
  nx_grants_write(request->entry->grants, &response->body);
  return NX_HTTP_DONE;
}

enum nx_http_next nx__route_put_grants(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  struct nx_str body = request->exchange->request.body;
  struct nx_grants *grants;
  struct nx_error err;
  if (!find_entry(request)) return no_such_handler(request);
  if (nx_grants_parse(&grants, body.len ? body.data : "", body.len, &err)) return fail(request, &err);
  bool created = request->entry->grants == NULL;
  int status = nx_registry_set_grants(request->app->registry, request->name, grants, &err);
  if (!status) {
    response->status = created ? 201 : 200;
    response->content_type = "application/json";
    nx_grants_write(grants, &response->body);
  }
  nx_grants_release(grants);
  if (!status) return NX_HTTP_DONE;
  return err.code == NX_ERR_NOT_FOUND ? no_such_handler(request) : fail(request, &err);
}
