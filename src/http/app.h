/* SPDX-License-Identifier: Apache-2.0
 *
 * The application behind the server: which route a request takes, who may take it, and what every reply carries.
 *
 *   app.c             routing table, percent-decoding, request ids, parking and proceeding
 *   authorize.c       access tokens against the scopes of the table
 *   route_execute.c   POST /v1/execute, POST /run/{name}
 *   route_resume.c    /v1/resume…
 *   route_handlers.c  /v1/handlers…
 *   route_status.c    /health /livez /readyz /metrics
 *
 * Threads: worker threads of the server, many at a time; struct nx_app is constant after start but for `draining`. */
#ifndef NX_HTTP_APP_H
#define NX_HTTP_APP_H

#include <stdatomic.h>

#include "access/access.h"
#include "config/config.h"
#include "exec/exec.h"
#include "exec/shared_handlers.h"
#include "handler/registry.h"
#include "http/server.h"
#include "memory/governor.h"
#include "metrics/metrics.h"
#include "suspend/suspensions.h"

struct nx_app {
  const struct nx_config *config;
  struct nx_exec *exec;
  struct nx_registry *registry;
  struct nx_cache *cache;
  struct nx_ledger *ledger;
  struct nx_governor *governor;
  struct nx_suspensions *suspensions;
  struct nx_access *access;      /* NULL: everyone may do everything */
  struct nx_shared *shared;      /* NULL: handlers set by PUT are of this process only */
  struct nx_account *account;    /* of requests and results */
  struct nx_http_server *server; /* the public one; for its figures */
  uint64_t started_ns;
  _Atomic bool draining;
};

/* One request on its way. Allocated when it is routed, freed when it is finished. */
struct nx_request {
  struct nx_app *app;
  struct nx_http_exchange *exchange;
  enum nx_metrics_route route;
  char name[NX_HANDLER_NAME_MAX + 1]; /* {name} of the path */
  struct nx_str segment;              /* {id} of the path, as sent */
  struct nx_job job;
  struct nx_entry *entry;             /* held */
  struct nx_capabilities capabilities;/* of the request */
  struct nx_buf args, state, scope, code; /* texts taken out of the body */
  struct nx_answer *answers;          /* their JSON lies in `args` */
  struct nx_grants *grants;           /* to be set */
  struct nx_condition condition;      /* of a change; its hash is the entry's */
  bool created;                       /* what the errand has put is the first of its kind */
  /* Completes the response when the job is done, or submits the next one. */
  enum nx_http_next (*complete)(struct nx_request *request);
};

/* The callbacks of a server whose `self` is `app`; the admin listener has the status routes only. */
struct nx_http_app nx_app_public(struct nx_app *app);
struct nx_http_app nx_app_admin(struct nx_app *app);

/* What is to become of a request, as far as that depends on who sent it. */
enum nx__access { NX__ACCESS_GRANTED, NX__ACCESS_NO_TOKEN, NX__ACCESS_UNKNOWN_TOKEN, NX__ACCESS_LACKS_SCOPE };
struct nx__verdict {
  enum nx__access kind;
  struct nx_tenant tenant; /* GRANTED: who asks; nobody without access tokens */
};
/* `scopes`: one of them is needed; none: everyone may. */
struct nx__verdict nx__judge(struct nx_app *app, unsigned scopes, struct nx_str authorization);
/* 401 or 403. */
void nx__refuse_access(struct nx_http_response *response, enum nx__access kind, unsigned scopes);

/* Submits request->job; on return the response is complete or the exchange is parked. */
enum nx_http_next nx__app_submit(struct nx_request *request);

/* The same for work that waits for a disk or a network. */
enum nx_http_next nx__app_send(struct nx_request *request, void (*errand)(struct nx_job *job),
                               enum nx_http_next (*complete)(struct nx_request *request));

/* 503: the container has no memory for the host's own copies; `bytes` as for nx_governor_refusal. */
void nx__app_refuse_memory(struct nx_app *app, struct nx_http_response *response, const char *detail, uint64_t bytes);

/* The response of an execution as its whole result. */
enum nx_http_next nx__complete_execute(struct nx_request *request);

/* request->entry becomes the handler of request->name; false: there is none, and the response says so. */
bool nx__find_handler(struct nx_request *request);

/* Routes. Each fills the response, or submits a job. */
enum nx_http_next nx__route_execute(struct nx_request *request);
enum nx_http_next nx__route_run(struct nx_request *request);
enum nx_http_next nx__route_resume(struct nx_request *request);
enum nx_http_next nx__route_look_up(struct nx_request *request);
enum nx_http_next nx__route_cancel(struct nx_request *request);
enum nx_http_next nx__route_list_handlers(struct nx_request *request);
enum nx_http_next nx__route_get_handler(struct nx_request *request);
enum nx_http_next nx__route_put_handler(struct nx_request *request);
enum nx_http_next nx__route_delete_handler(struct nx_request *request);
enum nx_http_next nx__route_get_grants(struct nx_request *request);
enum nx_http_next nx__route_put_grants(struct nx_request *request);
enum nx_http_next nx__route_health(struct nx_request *request);
enum nx_http_next nx__route_livez(struct nx_request *request);
enum nx_http_next nx__route_readyz(struct nx_request *request);
enum nx_http_next nx__route_metrics(struct nx_request *request);

/* {"status":…}, and the HTTP status for it. */
int nx_app_write_health(struct nx_app *app, struct nx_buf *out);

#endif
