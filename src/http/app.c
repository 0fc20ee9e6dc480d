/* SPDX-License-Identifier: Apache-2.0 */
#include "http/app.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/problem.h"

/* ---- Routing ---------------------------------------------------------------------------------------------------- */

typedef enum nx_http_next route_fn(struct nx_request *request);

/* Scopes of access tokens: one of those of the route is needed; ANYONE needs no token. */
enum {
  EXECUTE = NX_SCOPE_EXECUTE,
  MANAGE = NX_SCOPE_HANDLERS,
  RESUME = NX_SCOPE_RESUME,
  READ = NX_SCOPE_READ,
  ANYONE = NX_SCOPE_NONE,
};

/* {name} and {id} match one path segment that is not empty. GET routes answer HEAD too. On the admin listener everyone
 * may take every route that is there. */
static const struct route {
  const char *path;
  enum nx_http_method method;
  unsigned scopes;
  enum nx_metrics_route id;
  route_fn *run;
  enum { PLAIN, HANDLERS, ADMIN } trait; /* HANDLERS: looks up names of handlers; ADMIN: also on the admin listener */
} routes[] = {
  {"/run/{name}", NX_HTTP_POST, EXECUTE, NX_METRICS_ROUTE_RUN, nx__route_run, HANDLERS},
  {"/v1/execute", NX_HTTP_POST, EXECUTE, NX_METRICS_ROUTE_EXECUTE, nx__route_execute, HANDLERS},
  {"/v1/resume", NX_HTTP_POST, RESUME, NX_METRICS_ROUTE_RESUME, nx__route_resume, PLAIN},
  {"/v1/resume/{id}", NX_HTTP_POST, RESUME, NX_METRICS_ROUTE_RESUME_ID, nx__route_resume, PLAIN},
  {"/v1/resume/{id}", NX_HTTP_GET, RESUME, NX_METRICS_ROUTE_RESUME_ID, nx__route_look_up, PLAIN},
  {"/v1/resume/{id}", NX_HTTP_DELETE, RESUME, NX_METRICS_ROUTE_RESUME_ID, nx__route_cancel, PLAIN},
  {"/v1/handlers", NX_HTTP_GET, READ | MANAGE, NX_METRICS_ROUTE_HANDLERS, nx__route_list_handlers, HANDLERS},
  {"/v1/handlers/{name}", NX_HTTP_GET, READ | MANAGE, NX_METRICS_ROUTE_HANDLER, nx__route_get_handler, HANDLERS},
  {"/v1/handlers/{name}", NX_HTTP_PUT, MANAGE, NX_METRICS_ROUTE_HANDLER, nx__route_put_handler, HANDLERS},
  {"/v1/handlers/{name}", NX_HTTP_DELETE, MANAGE, NX_METRICS_ROUTE_HANDLER, nx__route_delete_handler, HANDLERS},
  {"/v1/handlers/{name}/grants", NX_HTTP_GET, READ | MANAGE, NX_METRICS_ROUTE_GRANTS, nx__route_get_grants, HANDLERS},
  {"/v1/handlers/{name}/grants", NX_HTTP_PUT, MANAGE, NX_METRICS_ROUTE_GRANTS, nx__route_put_grants, HANDLERS},
  {"/health", NX_HTTP_GET, ANYONE, NX_METRICS_ROUTE_HEALTH, nx__route_health, ADMIN},
  {"/livez", NX_HTTP_GET, ANYONE, NX_METRICS_ROUTE_LIVEZ, nx__route_livez, ADMIN},
  {"/readyz", NX_HTTP_GET, ANYONE, NX_METRICS_ROUTE_READYZ, nx__route_readyz, ADMIN},
  {"/metrics", NX_HTTP_GET, READ, NX_METRICS_ROUTE_METRICS, nx__route_metrics, ADMIN},
};
#define ROUTE_COUNT (sizeof routes / sizeof *routes)

/* Does `path` fit the pattern? `segment` becomes what {name} or {id} stands for. */
static bool fits(const char *pattern, struct nx_str path, struct nx_str *segment) {
  const char *at = path.data, *end = path.data + path.len;
  for (; *pattern; pattern++) {
    if (*pattern != '{') {
      if (at == end || *at++ != *pattern) return false;
      continue;
    }
    const char *slash = memchr(at, '/', (size_t)(end - at));
    *segment = (struct nx_str){at, (size_t)((slash ? slash : end) - at)};
    if (!segment->len) return false;
    at += segment->len;
    pattern = strchr(pattern, '}');
  }
  return at == end;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Percent-decoding into a handler's name; false when it is not a valid one. */
static bool decode_name(struct nx_str segment, char name[NX_HANDLER_NAME_MAX + 1]) {
  size_t n = 0;
  for (size_t i = 0; i < segment.len; i++) {
    int byte = (unsigned char)segment.data[i];
    if (byte == '%') {
      if (segment.len - i < 3) return false;
      int high = hex_digit(segment.data[i + 1]), low = hex_digit(segment.data[i + 2]);
      if (high < 0 || low < 0) return false;
      byte = high << 4 | low;
      i += 2;
    }
    if (n == NX_HANDLER_NAME_MAX) return false;
    name[n++] = (char)byte;
  }
  name[n] = 0;
  return nx_handler_name_valid(name, n);
}

static bool method_fits(enum nx_http_method route, enum nx_http_method sent) {
  return route == sent || (route == NX_HTTP_GET && sent == NX_HTTP_HEAD);
}

static void refuse_method(struct nx_http_exchange *exchange, const struct route *same_path) {
  static const char *const names[] = {[NX_HTTP_GET] = "GET, HEAD", [NX_HTTP_POST] = "POST", [NX_HTTP_PUT] = "PUT",
                                      [NX_HTTP_DELETE] = "DELETE"};
  nx_problem_write(&exchange->response, 405, "METHOD_NOT_ALLOWED", "this path does not take that method; see Allow");
  struct nx_buf *headers = &exchange->response.headers;
  const char *separator = "Allow: ";
  for (const struct route *route = same_path; route < routes + ROUTE_COUNT; route++) {
    if (strcmp(route->path, same_path->path)) continue;
    nx_buf_str(headers, separator);
    nx_buf_str(headers, names[route->method]);
    separator = ", ";
  }
  nx_buf_lit(headers, "\r\n");
}

/* Sees what other replicas have changed; what cannot be seen now is no failure of this request's. */
static void catch_up(struct nx_job *job) {
  nx_shared_sync(((struct nx_request *)job->owner)->app->shared, NULL);
}

static struct nx_request *make_request(struct nx_app *app, struct nx_http_exchange *exchange, const struct route *route,
                                       struct nx_str segment) {
  struct nx_request *request = calloc(1, sizeof *request);
  if (!request) {
    nx_problem_write(&exchange->response, 503, "OUT_OF_MEMORY", "no memory for this request; try again");
    nx_buf_lit(&exchange->response.headers, "Retry-After: 1\r\n");
    return NULL;
  }
  request->app = app;
  request->exchange = exchange;
  request->args.account = request->state.account = request->scope.account = request->code.account = app->account;
  request->job.execution.account = app->account;
  request->route = route->id;
  request->segment = segment;
  exchange->app = request;
  return request;
}

static enum nx_http_next dispatch(struct nx_request *request, const struct route *route,
                                  const struct nx__verdict *verdict) {
  struct nx_app *app = request->app;
  struct nx_http_response *response = &request->exchange->response;
  if (verdict->kind != NX__ACCESS_GRANTED) {
    nx__refuse_access(response, verdict->kind, route->scopes);
    return NX_HTTP_DONE;
  }
  request->job.tenant = verdict->tenant;
  if (strstr(route->path, "{name}") && !decode_name(request->segment, request->name)) {
    nx_problem_write(response, 400, "INVALID_REQUEST",
                     "name: a handler's name is 1 to 128 letters, digits, '_', '-' or '.', and does not begin with '.' or '-'");
    return NX_HTTP_DONE;
  }
  if (route->trait == HANDLERS && app->shared && !app->draining && nx_shared_is_stale(app->shared))
    return nx__app_send(request, catch_up, route->run);
  return route->run(request);
}

static bool is_request_id(struct nx_str id) {
  for (size_t i = 0; i < id.len; i++)
    if (id.data[i] < '!' || id.data[i] > '~') return false;
  return id.len <= 128;
}

/* W3C trace context: VERSION-TRACE-PARENT-FLAGS in lower-case hexadecimal; later versions may append -MORE. */
static bool is_traceparent(struct nx_str parent) {
  static const char form[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
  const size_t bytes = sizeof form - 1;
  if (parent.len < bytes || parent.len > 64 || (parent.len > bytes && parent.data[bytes] != '-')) return false;
  for (size_t i = 0; i < bytes; i++)
    if (form[i] == '-' ? parent.data[i] != '-' : !strchr("0123456789abcdef", parent.data[i])) return false;
  return is_request_id(parent);
}

/* What the caller sent to recognise the reply by; what is not well-formed counts as not sent. */
static void echo_ids(struct nx_http_exchange *exchange) {
  struct nx_http_request *in = &exchange->request;
  struct nx_buf *headers = &exchange->response.headers;
  if (!is_request_id(in->request_id)) in->request_id = (struct nx_str){0};
  if (!is_traceparent(in->traceparent)) in->traceparent = (struct nx_str){0};
  if (in->request_id.len) {
    nx_buf_lit(headers, "X-Request-Id: ");
    nx_buf_add(headers, in->request_id.data, in->request_id.len);
    nx_buf_lit(headers, "\r\n");
  }
  if (in->traceparent.len) {
    nx_buf_lit(headers, "traceparent: ");
    nx_buf_add(headers, in->traceparent.data, in->traceparent.len);
    nx_buf_lit(headers, "\r\n");
  }
}

/* The route of a request; NULL: there is none, and `same_path` is one with another method, if there is such a path. */
static const struct route *find_route(const struct nx_http_request *in, bool admin, struct nx_str *segment,
                                      const struct route **same_path) {
  *same_path = NULL;
  for (const struct route *route = routes; route < routes + ROUTE_COUNT; route++) {
    if ((admin && route->trait != ADMIN) || !fits(route->path, in->path, segment)) continue;
    if (method_fits(route->method, in->method)) return route;
    if (!*same_path) *same_path = route;
  }
  return NULL;
}

static void refuse_path(struct nx_http_exchange *exchange, const struct route *same_path) {
  echo_ids(exchange);
  if (same_path)
    refuse_method(exchange, same_path);
  else
    nx_problem_write(&exchange->response, 404, "NOT_FOUND", "there is no such path; see docs/api.md");
}

static enum nx_http_next enter(struct nx_app *app, struct nx_http_exchange *exchange, const struct route *route,
                               struct nx_str segment, const struct nx__verdict *verdict) {
  echo_ids(exchange);
  struct nx_request *request = make_request(app, exchange, route, segment);
  return request ? dispatch(request, route, verdict) : NX_HTTP_DONE;
}

static enum nx_http_next handle_on(struct nx_app *app, struct nx_http_exchange *exchange, bool admin) {
  struct nx_str segment = {0};
  const struct route *same_path, *route = find_route(&exchange->request, admin, &segment, &same_path);
  if (!route) {
    refuse_path(exchange, same_path);
    return NX_HTTP_DONE;
  }
  struct nx__verdict verdict = nx__judge(app, admin ? ANYONE : route->scopes, exchange->request.authorization);
  return enter(app, exchange, route, segment, &verdict);
}

/* With access tokens only who may take a route that looks at bodies can make us keep one. The routes for everyone do
 * not, and none of them parks. */
static bool answer_head(void *self, struct nx_http_exchange *exchange) {
  struct nx_app *app = self;
  struct nx_str segment = {0};
  if (!app->access) return false;
  const struct route *same_path, *route = find_route(&exchange->request, false, &segment, &same_path);
  if (!route) {
    refuse_path(exchange, same_path);
    return true;
  }
  struct nx__verdict verdict = nx__judge(app, route->scopes, exchange->request.authorization);
  if (verdict.kind == NX__ACCESS_GRANTED && route->scopes != ANYONE) return false;
  enum nx_http_next next = enter(app, exchange, route, segment, &verdict);
  assert(next == NX_HTTP_DONE);
  (void)next; /* without asserts */
  return true;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------------ */

void nx__app_refuse_memory(struct nx_app *app, struct nx_http_response *response, const char *detail, uint64_t bytes) {
  struct nx_refusal refused = nx_governor_refusal(app->governor, bytes);
  char text[128];
  snprintf(text, sizeof text, "%s (layer: %s)", detail, refused.layer);
  nx_problem_overloaded(response, text, &refused, nx_exec_retry_after_s(app->exec));
}

static void refused(struct nx_request *request) {
  const struct nx_job *job = &request->job;
  nx_problem_overloaded(&request->exchange->response, job->refusal.text, &job->refused,
                        nx_exec_retry_after_s(request->app->exec));
}

/* What is not found is the handler, not a suspended execution. */
static bool is_about_handler(enum nx_job_kind kind) { return kind == NX_JOB_ERRAND || kind == NX_JOB_EXECUTE; }

/* A failure of the host's before the guest ran: no room for an instance, no memory. */
static void host_refused(struct nx_request *request) {
  const struct nx_error *why = &request->job.refusal;
  struct nx_http_response *response = &request->exchange->response;
  if (why->code == NX_ERR_OVERLOADED || why->code == NX_ERR_NO_MEMORY)
    refused(request);
  else if (why->code == NX_ERR_NOT_FOUND && is_about_handler(request->job.kind))
    nx_problem_write(response, 404, "HANDLER_NOT_FOUND", why->text);
  else
    nx_problem_from_error(response, why);
  if (why->code == NX_ERR_UNAVAILABLE) nx_buf_lit(&response->headers, "Retry-After: 1\r\n");
}

static enum nx_http_next finish(struct nx_request *request) {
  if (request->app->draining) request->exchange->response.close = true;
  if (!request->job.refusal.code) return request->complete(request);
  host_refused(request);
  return NX_HTTP_DONE;
}

/* Goes on as the job's state says. */
static enum nx_http_next go_on(struct nx_request *request, enum nx_job_state state) {
  if (state == NX_JOB_ADMITTED) state = nx_exec_run(request->app->exec, &request->job);
  if (nx_job_is_elsewhere(state)) return NX_HTTP_PARKED;
  if (state == NX_JOB_DONE) return finish(request);
  refused(request);
  return NX_HTTP_DONE;
}

enum nx_http_next nx__app_submit(struct nx_request *request) {
  struct nx_app *app = request->app;
  if (app->draining) {
    struct nx_http_response *response = &request->exchange->response;
    nx_problem_write(response, 503, "SHUTTING_DOWN", "this instance is shutting down; another one will answer");
    nx_buf_lit(&response->headers, "Retry-After: 1\r\n");
    response->close = true;
    return NX_HTTP_DONE;
  }
  struct nx_str trace = request->exchange->request.traceparent;
  request->job.owner = request;
  request->job.traceparent = (struct nx_text){trace.data, (uint32_t)trace.len};
  return go_on(request, nx_exec_submit(app->exec, &request->job));
}

enum nx_http_next nx__app_send(struct nx_request *request, void (*errand)(struct nx_job *job),
                               enum nx_http_next (*complete)(struct nx_request *request)) {
  request->job.kind = NX_JOB_ERRAND;
  request->job.errand = errand;
  request->complete = complete;
  return nx__app_submit(request);
}

/* ---- Callbacks of the server ------------------------------------------------------------------------------------------- */

static enum nx_http_next handle(void *self, struct nx_http_exchange *exchange) { return handle_on(self, exchange, false); }
static enum nx_http_next handle_admin(void *self, struct nx_http_exchange *exchange) {
  return handle_on(self, exchange, true);
}

static struct nx_http_exchange *next_ready(void *self) {
  struct nx_app *app = self;
  struct nx_job *job = nx_exec_next(app->exec);
  return job ? ((struct nx_request *)job->owner)->exchange : NULL;
}

static enum nx_http_next proceed(void *self, struct nx_http_exchange *exchange) {
  (void)self;
  struct nx_request *request = exchange->app;
  return go_on(request, request->job.state);
}

static struct nx_http_exchange *nothing_ready(void *self) {
  (void)self;
  return NULL;
}

static int thread_init(void *self, struct nx_error *err) {
  (void)self;
  return nx_sandbox_thread_enter(err);
}
static void thread_exit(void *self) {
  (void)self;
  nx_sandbox_thread_leave();
}

static bool thread_is_spent(void *self) {
  (void)self;
  return nx_sandbox_thread_is_spent();
}

static bool is_hurried(void *self) { return nx_governor_buffers_are_many(((struct nx_app *)self)->governor); }

/* Of a request that the server itself refused. */
static void refuse(void *self, struct nx_http_response *response, enum nx_error_code code, const char *detail,
                   size_t bytes) {
  if (code == NX_ERR_NO_MEMORY)
    nx__app_refuse_memory(self, response, detail, bytes);
  else
    nx_problem_write(response, response->status ? response->status : nx_error_http_status(code), nx_error_name(code),
                     detail);
}

static void free_request(struct nx_request *request) {
  nx_job_deinit(&request->job);
  nx_entry_release(request->entry);
  nx_grants_release(request->grants);
  nx_capabilities_deinit(&request->capabilities);
  nx_buf_deinit(&request->args);
  nx_buf_deinit(&request->state);
  nx_buf_deinit(&request->scope);
  nx_buf_deinit(&request->code);
  free(request->answers);
  free(request);
}

static void finished(void *self, const struct nx_http_exchange *exchange) {
  (void)self;
  struct nx_request *request = exchange->app;
  nx_metrics_http(request ? request->route : NX_METRICS_ROUTE_OTHER, exchange->response.status);
  if (request) free_request(request);
}

struct nx_http_app nx_app_public(struct nx_app *app) {
  return (struct nx_http_app){
    .self = app,
    .answer_head = answer_head,
    .handle = handle,
    .next_ready = next_ready,
    .proceed = proceed,
    .thread_init = thread_init,
    .thread_exit = thread_exit,
    .thread_is_spent = thread_is_spent,
    .is_hurried = is_hurried,
    .refuse = refuse,
    .finished = finished,
  };
}

struct nx_http_app nx_app_admin(struct nx_app *app) {
  struct nx_http_app admin = nx_app_public(app);
  admin.answer_head = NULL;
  admin.handle = handle_admin;
  admin.next_ready = nothing_ready;
  return admin;
}
