/* SPDX-License-Identifier: Apache-2.0
 *
 * /v1/handlers: installing, listing, reading and removing handlers, and their grants. What is installed here lives in
 * the store of suspended executions, if that shares handlers, and else in this process only; HANDLERS_DIR is read and
 * never written. */
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
  const struct nx_shared *shared = request->app->shared;
  if (shared && !nx_shared_is_complete(shared)) {
    nx_problem_write(&request->exchange->response, 503, "STORE_UNAVAILABLE",
                     "the handlers of the store could not be read yet, and this one may be among them; try again");
    nx_buf_lit(&request->exchange->response.headers, "Retry-After: 1\r\n");
    return NX_HTTP_DONE;
  }
  char detail[NX_HANDLER_NAME_MAX + 48];
  snprintf(detail, sizeof detail, "there is no handler named \"%s\"", request->name);
  nx_problem_write(&request->exchange->response, 404, "HANDLER_NOT_FOUND", detail);
  return NX_HTTP_DONE;
}

static bool find_entry(struct nx_request *request) {
  request->entry = nx_registry_get(request->app->registry, request->name, strlen(request->name));
  return request->entry != NULL;
}

bool nx__find_handler(struct nx_request *request) {
  bool found = find_entry(request);
  if (!found) no_such_handler(request);
  return found;
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
  nx_buf_printf(out, "{\"name\":\"%s\",\"hash\":\"%s\"", entry->name, hex);
  if (entry->handler)
    nx_buf_printf(out, ",\"sizeBytes\":%zu,\"imageBytes\":%zu", entry->handler->source_bytes,
                  nx_image_bytes(entry->handler->image));
  nx_buf_printf(out, ",\"executions\":%" PRIu64 ",\"origin\":\"%s\",\"scope\":\"%s\"}", nx_entry_executions(entry),
                nx_origin_name(entry->origin), entry->origin == NX_ORIGIN_STORE ? "shared" : "process");
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

/* What must be found when the change is made: the state that the headers were checked against. */
static bool make_condition(struct nx_request *request) {
  const struct nx_http_request *in = &request->exchange->request;
  struct nx_condition *condition = &request->condition;
  *condition = (struct nx_condition){0};
  forget_entry(request);
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

/* Of a handler that nobody has needed here yet. */
static void load_source(struct nx_job *job) {
  struct nx_request *request = job->owner;
  nx_shared_load_source(request->app->shared, request->entry, &request->exchange->response.body, &job->refusal);
}

static enum nx_http_next complete_get(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  response->status = 200;
  response->content_type = "text/javascript; charset=utf-8";
  nx_buf_lit(&response->headers, "X-Content-Type-Options: nosniff\r\n");
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
  if (!request->entry->handler) return nx__app_send(request, load_source, complete_get);
  nx_buf_add(&response->body, request->entry->handler->source, request->entry->handler->source_bytes);
  return complete_get(request);
}

/* What is installed now; it may have been removed meanwhile by another request. */
static enum nx_http_next show_installed(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  forget_entry(request);
  if (!find_entry(request)) return no_such_handler(request);
  response->status = request->created ? 201 : 200;
  response->content_type = "application/json";
  if (request->created) nx_buf_printf(&response->headers, "Location: /v1/handlers/%s\r\n", request->name);
  add_etag(response, request->entry);
  write_info(request->entry, &response->body);
  return NX_HTTP_DONE;
}

static void publish(struct nx_job *job) {
  struct nx_request *request = job->owner;
  const struct nx_handler *handler = job->execution.handler;
  const struct nx_shared_change change = {
    .name = request->name,
    .source_hash = handler->source_hash,
    .source = handler->source,
    .source_bytes = handler->source_bytes,
    .condition = request->condition,
  };
  nx_shared_put(request->app->shared, &change, &request->created, &job->refusal);
}

static enum nx_http_next complete_put(struct nx_request *request) {
  if (request->job.execution.outcome != NX_OUTCOME_SUCCESS) {
    nx_problem_from_job(&request->exchange->response, &request->job);
    return NX_HTTP_DONE;
  }
  struct nx_error err;
  if (!make_condition(request)) return precondition_failed(request);
  if (request->app->shared) return nx__app_send(request, publish, show_installed);
  const struct nx_registration registration = {
    .name = request->name,
    .handler = request->job.execution.handler,
    .origin = NX_ORIGIN_API,
    .condition = request->condition,
  };
  if (nx_registry_put(request->app->registry, &registration, &request->created, &err)) return fail(request, &err);
  return show_installed(request);
}

enum nx_http_next nx__route_put_handler(struct nx_request *request) {
  struct nx_str body = request->exchange->request.body;
  if (!body.len) {
    nx_problem_write(&request->exchange->response, 400, "INVALID_REQUEST", "body: expected the source of a handler");
    return NX_HTTP_DONE;
  }
  if (!make_condition(request)) return precondition_failed(request); /* before it costs a compile */
  request->job.kind = NX_JOB_COMPILE;
  request->job.source = (struct nx_text){body.data, (uint32_t)body.len};
  request->job.execution.limits = nx_exec_limits(request->app->config);
  request->complete = complete_put;
  return nx__app_submit(request);
}

static enum nx_http_next complete_delete(struct nx_request *request) {
  request->exchange->response.status = 204;
  return NX_HTTP_DONE;
}

static void withdraw(struct nx_job *job) {
  struct nx_request *request = job->owner;
  nx_shared_remove(request->app->shared, request->name, &request->condition, &job->refusal);
}

enum nx_http_next nx__route_delete_handler(struct nx_request *request) {
  struct nx_error err;
  if (!find_entry(request)) return no_such_handler(request);
  if (!make_condition(request)) return precondition_failed(request);
  if (request->app->shared) return nx__app_send(request, withdraw, complete_delete);
  if (nx_registry_remove(request->app->registry, request->name, &request->condition, &err))
    return err.code == NX_ERR_NOT_FOUND ? no_such_handler(request) : fail(request, &err);
  return complete_delete(request);
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

static enum nx_http_next show_grants(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  response->status = request->created ? 201 : 200;
  response->content_type = "application/json";
  nx_grants_write(request->grants, &response->body);
  return NX_HTTP_DONE;
}

static void publish_grants(struct nx_job *job) {
  struct nx_request *request = job->owner;
  const struct nx_shared_change change = {.name = request->name, .set_grants = true, .grants = request->grants};
  nx_shared_put(request->app->shared, &change, &request->created, &job->refusal);
}

enum nx_http_next nx__route_put_grants(struct nx_request *request) {
  struct nx_str body = request->exchange->request.body;
  struct nx_error err;
  if (!find_entry(request)) return no_such_handler(request);
  if (nx_grants_parse(&request->grants, body.len ? body.data : "", body.len, &err)) return fail(request, &err);
  if (request->app->shared) return nx__app_send(request, publish_grants, show_grants);
  request->created = request->entry->grants == NULL;
  if (!nx_registry_set_grants(request->app->registry, request->name, request->grants, &err)) return show_grants(request);
  return err.code == NX_ERR_NOT_FOUND ? no_such_handler(request) : fail(request, &err);
}
