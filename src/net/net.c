/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's thread and its queue. A fetch is incoming (handed over, nobody has looked at it), then waiting for one of
 * the max_concurrent places, then running. Answered means that `done` was called, exactly once. */
#include "net/net.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/number.h"
#include "base/thread.h"
#include "net/net_request.h"
#include "net/net_transfer.h"

#define WAITING_MAX 1024u
#define CONNECT_TIMEOUT_MS 10000u
#define IDLE_CONNECTIONS_MAX 16L
#define POLL_MS_MAX 60000u
/* What libcurl, TLS and the kernel take for one running fetch, about; what they keep in between is measured with the
 * process. */
#define RUNNING_BYTES ((size_t)96 << 10)

struct nx_net_fetch {
  TAILQ_ENTRY(nx_net_fetch) link;
  struct nx_net_request request;
  struct nx_net_transfer transfer; /* while running */
  struct nx_error failure;         /* code NX_OK: none so far */
  uint64_t timeout_ms, deadline_ns;
  uint64_t connect_deadline_ns; /* of the present hop */
  nx_net_done_fn *done;
  void *opaque;
  atomic_bool is_abandoned; /* Synchronization: set by any thread, read by the client's */
  bool is_answered;
};

TAILQ_HEAD(fetches, nx_net_fetch);

struct nx_net {
  struct nx_net_context context; /* constant after create */
  uint64_t max_timeout_ms;
  unsigned max_concurrent;
  pthread_t thread;
  atomic_uint waiting_count; /* Synchronization: incoming and waiting ones, counted by whoever moves them */

  pthread_mutex_t mutex; /* guards the next three; `done` is called outside of it */
  struct fetches incoming;
  bool is_started, is_stopping;

  /* The thread's own. */
  struct fetches waiting, running;
  unsigned running_count;
  bool must_end; /* is_stopping, as last seen */
};

/* ---- The end of a fetch ----------------------------------------------------------------------------------------- */

static void free_fetch(struct nx_net *net, struct nx_net_fetch *fetch) {
  nx__net_request_deinit(&fetch->request);
  free(fetch);
  nx_account_release(net->context.account, sizeof *fetch);
}

static void tell(struct nx_net_fetch *fetch, bool success, const char *json, size_t bytes) {
  fetch->is_answered = true;
  fetch->done(fetch->opaque, success, json, bytes);
}

static void tell_failure(struct nx_net_fetch *fetch) {
  static const char no_memory[] = "\"net.fetch: no memory\"";
  char text[sizeof fetch->failure.text + 16];
  NX_BUF_AUTO json = {0};
  int bytes = snprintf(text, sizeof text, "net.fetch: %s", fetch->failure.text);
  nx_buf_json_string(&json, text, (size_t)bytes);
  if (json.failed)
    tell(fetch, false, no_memory, sizeof no_memory - 1);
  else
    tell(fetch, false, json.data, json.len);
}

static void tell_result(struct nx_net *net, struct nx_net_fetch *fetch) {
  NX_BUF_AUTO json = {.account = net->context.account};
  if (nx__net_transfer_write(&fetch->transfer, &json, &fetch->failure))
    tell_failure(fetch);
  else
    tell(fetch, true, json.data, json.len);
}

static void end_waiting(struct nx_net *net, struct nx_net_fetch *fetch) {
  TAILQ_REMOVE(&net->waiting, fetch, link);
  atomic_fetch_sub(&net->waiting_count, 1);
  tell_failure(fetch);
  free_fetch(net, fetch);
}

static void end_running(struct nx_net *net, struct nx_net_fetch *fetch) {
  TAILQ_REMOVE(&net->running, fetch, link);
  net->running_count--;
  if (!fetch->is_answered) tell_failure(fetch);
  nx__net_transfer_end(&fetch->transfer);
  nx_account_release(net->context.account, RUNNING_BYTES);
  free_fetch(net, fetch);
}

/* ---- Time and cancelling ---------------------------------------------------------------------------------------- */

/* Fills `failure` when the fetch has no more time or nobody to wait for it. */
static bool is_over(const struct nx_net *net, struct nx_net_fetch *fetch, uint64_t now_ns, bool is_connecting) {
  if (net->must_end)
    nx_error_set(&fetch->failure, NX_ERR_UNAVAILABLE, "the server is shutting down");
  else if (atomic_load(&fetch->is_abandoned))
    nx_error_set(&fetch->failure, NX_ERR_UNAVAILABLE, "cancelled");
  else if (now_ns >= fetch->deadline_ns)
    nx_error_set(&fetch->failure, NX_ERR_UNAVAILABLE, "timed out after %llu ms", (unsigned long long)fetch->timeout_ms);
  else if (is_connecting && now_ns >= fetch->connect_deadline_ns)
    nx_error_set(&fetch->failure, NX_ERR_UNAVAILABLE, "no connection within %u ms", CONNECT_TIMEOUT_MS);
  return fetch->failure.code != NX_OK;
}

/* A lookup cannot be cut, and libcurl would wait for it: the fetch is answered, and keeps its place until the lookup has
 * ended. So the threads that look up names stay bounded, however short the timeouts of handlers are. */
static void end_early(struct nx_net *net, struct nx_net_fetch *fetch) {
  if (net->must_end || !nx__net_transfer_is_looking_up(&fetch->transfer)) {
    end_running(net, fetch);
  } else {
    nx__net_transfer_give_up(&fetch->transfer);
    tell_failure(fetch);
  }
}

static void end_overdue(struct nx_net *net) {
  uint64_t now_ns = nx_clock_ns();
  for (struct nx_net_fetch *fetch = TAILQ_FIRST(&net->waiting), *next; fetch; fetch = next) {
    next = TAILQ_NEXT(fetch, link);
    if (is_over(net, fetch, now_ns, false)) end_waiting(net, fetch);
  }
  for (struct nx_net_fetch *fetch = TAILQ_FIRST(&net->running), *next; fetch; fetch = next) {
    next = TAILQ_NEXT(fetch, link);
    if (fetch->is_answered ? net->must_end
                           : is_over(net, fetch, now_ns, nx__net_transfer_is_connecting(&fetch->transfer)))
      end_early(net, fetch);
  }
}

/* ---- The thread ------------------------------------------------------------------------------------------------- */

/* False when there is nothing more to do, ever. */
static bool take_incoming(struct nx_net *net) {
  struct fetches incoming = TAILQ_HEAD_INITIALIZER(incoming);
  pthread_mutex_lock(&net->mutex);
  TAILQ_CONCAT(&incoming, &net->incoming, link);
  net->must_end = net->is_stopping;
  pthread_mutex_unlock(&net->mutex);
  bool has_news = !TAILQ_EMPTY(&incoming);
  for (struct nx_net_fetch *fetch; (fetch = TAILQ_FIRST(&incoming));) {
    TAILQ_REMOVE(&incoming, fetch, link);
    TAILQ_INSERT_TAIL(&net->waiting, fetch, link);
    if (fetch->failure.code) end_waiting(net, fetch);
  }
  return has_news || !net->must_end || !TAILQ_EMPTY(&net->waiting) || !TAILQ_EMPTY(&net->running);
}

static void begin_hop(struct nx_net_fetch *fetch) {
  fetch->connect_deadline_ns = nx_clock_ns() + CONNECT_TIMEOUT_MS * NX_NS_PER_MS;
}

static int begin(struct nx_net *net, struct nx_net_fetch *fetch) {
  if (!nx_account_charge(net->context.account, RUNNING_BYTES))
    return nx_error_set(&fetch->failure, NX_ERR_NO_MEMORY, "no memory for a request");
  int status = nx__net_transfer_begin(&fetch->transfer, &net->context, &fetch->request, fetch, &fetch->failure);
  if (status) nx_account_release(net->context.account, RUNNING_BYTES);
  return status;
}

static void begin_waiting(struct nx_net *net) {
  uint64_t now_ns = nx_clock_ns();
  while (net->running_count < net->max_concurrent && !TAILQ_EMPTY(&net->waiting)) {
    struct nx_net_fetch *fetch = TAILQ_FIRST(&net->waiting);
    if (is_over(net, fetch, now_ns, false) || begin(net, fetch)) {
      end_waiting(net, fetch);
      continue;
    }
    TAILQ_REMOVE(&net->waiting, fetch, link);
    atomic_fetch_sub(&net->waiting_count, 1);
    TAILQ_INSERT_TAIL(&net->running, fetch, link);
    net->running_count++;
    begin_hop(fetch);
  }
}

static void take_finished(struct nx_net *net) {
  int left;
  for (CURLMsg *message; (message = net->context.curl.multi_info_read(net->context.multi, &left));) {
    struct nx_net_fetch *fetch = nx__net_transfer_owner(&net->context, message->easy_handle);
    enum nx_net_step step = NX_NET_FAILED;
    if (!fetch->is_answered) step = nx__net_transfer_step(&fetch->transfer, message->data.result, &fetch->failure);
    if (step == NX_NET_GOES_ON) {
      begin_hop(fetch);
      continue;
    }
    if (step == NX_NET_COMPLETE) tell_result(net, fetch);
    end_running(net, fetch);
  }
}

static int next_look_ms(const struct nx_net *net) {
  bool has_place = net->running_count < net->max_concurrent;
  if (net->must_end || (has_place && !TAILQ_EMPTY(&net->waiting))) return 0;
  uint64_t now_ns = nx_clock_ns(), next_ns = now_ns + POLL_MS_MAX * NX_NS_PER_MS;
  const struct nx_net_fetch *fetch;
  TAILQ_FOREACH(fetch, &net->waiting, link) next_ns = nx_min_u64(next_ns, fetch->deadline_ns);
  TAILQ_FOREACH(fetch, &net->running, link) {
    if (fetch->is_answered) continue;
    next_ns = nx_min_u64(next_ns, fetch->deadline_ns);
    if (nx__net_transfer_is_connecting(&fetch->transfer)) next_ns = nx_min_u64(next_ns, fetch->connect_deadline_ns);
  }
  return (int)((nx_minus_u64(next_ns, now_ns) + NX_NS_PER_MS - 1) / NX_NS_PER_MS);
}

static void *run(void *argument) {
  struct nx_net *net = argument;
  const struct nx_curl_api *curl = &net->context.curl;
  int running;
  while (take_incoming(net)) {
    begin_waiting(net);
    curl->multi_perform(net->context.multi, &running);
    end_overdue(net); /* after perform: only now a hop that has just begun knows whether it looks up a name */
    take_finished(net);
    curl->multi_poll(net->context.multi, NULL, 0, next_look_ms(net), NULL);
  }
  return NULL;
}

/* ---- The interface ---------------------------------------------------------------------------------------------- */

int nx_net_check_allow(const char *allow, struct nx_error *err) {
  struct nx_net_allow list;
  int status = nx__net_allow_init(&list, allow, err);
  if (!status) nx__net_allow_deinit(&list);
  return status;
}

static int open_curl(struct nx_net_context *context, struct nx_error *err) {
  int status = nx__curl_load(&context->curl, err);
  if (status) return status;
  context->multi = context->curl.multi_init();
  if (context->multi && !context->curl.multi_setopt(context->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS_MAX))
    return 0;
  context->curl.multi_cleanup(context->multi);
  nx__curl_unload(&context->curl);
  return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for libcurl");
}

int nx_net_create(struct nx_net **out, const struct nx_net_options *options, struct nx_error *err) {
  struct nx_net *net = calloc(1, sizeof *net);
  if (!net) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the net extension");
  net->context.account = options->account;
  net->context.max_body_bytes = options->max_body_bytes;
  net->max_timeout_ms = options->max_timeout_ms;
  net->max_concurrent = options->max_concurrent;
  TAILQ_INIT(&net->incoming);
  TAILQ_INIT(&net->waiting);
  TAILQ_INIT(&net->running);
  int status = nx__net_allow_init(&net->context.allow, options->allow, err);
  if (status) goto fail_allow;
  status = open_curl(&net->context, err);
  if (status) goto fail_curl;
  pthread_mutex_init(&net->mutex, NULL);
  *out = net;
  return 0;
fail_curl:
  nx__net_allow_deinit(&net->context.allow);
fail_allow:
  free(net);
  return status;
}

static void stop(struct nx_net *net) {
  pthread_mutex_lock(&net->mutex);
  net->is_stopping = true;
  bool is_started = net->is_started;
  pthread_mutex_unlock(&net->mutex);
  if (!is_started) return;
  net->context.curl.multi_wakeup(net->context.multi);
  pthread_join(net->thread, NULL);
}

void nx_net_destroy(struct nx_net *net) {
  if (!net) return;
  stop(net);
  net->context.curl.multi_cleanup(net->context.multi);
  nx__curl_unload(&net->context.curl);
  nx__net_allow_deinit(&net->context.allow);
  pthread_mutex_destroy(&net->mutex);
  free(net);
}

static bool start(struct nx_net *net) {
  struct nx_error err;
  if (!net->is_started && nx_thread_start(&net->thread, "nexus-net", run, net, &err))
    nx_log(NX_LOG_ERROR, "no thread for the net extension", "reason", err.text, NULL);
  else
    net->is_started = true;
  return net->is_started;
}

static bool hand_over(struct nx_net *net, struct nx_net_fetch *fetch) {
  pthread_mutex_lock(&net->mutex);
  bool is_started = start(net);
  if (is_started) {
    if (atomic_fetch_add(&net->waiting_count, 1) >= WAITING_MAX && !fetch->failure.code)
      nx_error_set(&fetch->failure, NX_ERR_OVERLOADED, "more than %u requests are waiting", WAITING_MAX);
    TAILQ_INSERT_TAIL(&net->incoming, fetch, link);
  }
  pthread_mutex_unlock(&net->mutex);
  if (is_started) net->context.curl.multi_wakeup(net->context.multi);
  return is_started;
}

struct nx_net_fetch *nx_net_fetch(struct nx_net *net, const char *args, size_t args_bytes, const char *traceparent,
                                  nx_net_done_fn *done, void *opaque) {
  if (!nx_account_charge(net->context.account, sizeof(struct nx_net_fetch))) return NULL;
  struct nx_net_fetch *fetch = calloc(1, sizeof *fetch);
  if (!fetch) {
    nx_account_release(net->context.account, sizeof *fetch);
    return NULL;
  }
  fetch->done = done;
  fetch->opaque = opaque;
  nx__net_request_init(&fetch->request, args, args_bytes, traceparent, net->context.account, &fetch->failure);
  fetch->timeout_ms = net->max_timeout_ms;
  if (fetch->request.timeout_ms) fetch->timeout_ms = nx_min_u64(fetch->request.timeout_ms, net->max_timeout_ms);
  fetch->deadline_ns = nx_clock_ns() + fetch->timeout_ms * NX_NS_PER_MS;
  if (hand_over(net, fetch)) return fetch;
  free_fetch(net, fetch);
  return NULL;
}

void nx_net_abandon(struct nx_net *net, struct nx_net_fetch *fetch) {
  atomic_store(&fetch->is_abandoned, true);
  net->context.curl.multi_wakeup(net->context.multi);
}
