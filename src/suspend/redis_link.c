/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/redis_link.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "metrics/metrics.h"
#include "store_redis_lua.h"

#define CONNECTIONS 4
#define TURN_TIMEOUT_MS 1000u
#define BROKEN_MS 500u

struct connection {
  redisContext *context; /* NULL: not connected */
  char script_sha[41];
  bool taken;
  bool probes; /* taken while the link was broken */
};

struct nx__redis_link {
  struct nx_suspend_store address;
  char name[sizeof((struct nx_suspend_store *)0)->redis_host + 8];
  pthread_mutex_t mutex; /* guards what follows, but not a connection that is taken; not held while waiting for Redis */
  pthread_cond_t given_back;
  struct connection connections[CONNECTIONS];
  bool broken;
  uint64_t probe_at_ns; /* while broken: who comes then may try */
  char reason[sizeof((struct nx_error *)0)->text];
};

/* ---- One connection --------------------------------------------------------------------------------------------- */

static void hang_up(struct connection *connection) {
  if (connection->context) redisFree(connection->context);
  connection->context = NULL;
}

/* Makes the script known to the server, and learns what it is called there. */
static int load_script(struct connection *connection, struct nx_error *why) {
  struct nx__redis_command command = {0};
  redisReply *reply;
  nx__redis_add_text(&command, "SCRIPT");
  nx__redis_add_text(&command, "LOAD");
  nx__redis_add_text(&command, store_redis_lua);
  int status = nx__redis_introduce(connection->context, &command, &reply, why);
  if (status) return status;
  if (reply->type == REDIS_REPLY_STRING && reply->len == sizeof connection->script_sha - 1)
    memcpy(connection->script_sha, reply->str, sizeof connection->script_sha);
  else
    status = nx_error_set(why, NX_ERR_UNAVAILABLE, "its answer to SCRIPT LOAD makes no sense");
  freeReplyObject(reply);
  return status;
}

static int open_connection(const struct nx__redis_link *link, struct connection *connection, struct nx_error *why) {
  connection->context = nx__redis_connect(&link->address, why);
  if (!connection->context) return -NX_ERR_UNAVAILABLE;
  int status = load_script(connection, why);
  if (status) hang_up(connection);
  return status;
}

static void set_word(struct nx__redis_command *command, int index, const char *text) {
  command->words[index] = text;
  command->sizes[index] = strlen(text);
}

static bool is_error(const redisReply *reply, const char *code) {
  return reply->type == REDIS_REPLY_ERROR && strstr(reply->str, code);
}

/* Redis forgets scripts when it starts again, and when it is told to. */
static redisReply *call(struct connection *connection, struct nx__redis_command *command, struct nx_error *why) {
  if (!command->is_operation) return nx__redis_exchange(connection->context, command, why);
  set_word(command, 0, "EVALSHA");
  set_word(command, 1, connection->script_sha);
  redisReply *reply = nx__redis_exchange(connection->context, command, why);
  if (!reply || !is_error(reply, "NOSCRIPT")) return reply;
  freeReplyObject(reply);
  set_word(command, 0, "EVAL");
  set_word(command, 1, store_redis_lua);
  return nx__redis_exchange(connection->context, command, why);
}

/* The reply, if need be from a fresh connection; NULL: there is no getting through. */
static redisReply *insist(const struct nx__redis_link *link, struct connection *connection,
                          struct nx__redis_command *command, struct nx_error *why) {
  for (int attempt = 0; attempt < 2; attempt++) {
    if (!connection->context && open_connection(link, connection, why)) return NULL;
    redisReply *reply = call(connection, command, why);
    if (reply) return reply;
    hang_up(connection);
  }
  return NULL;
}

/* ---- All connections -------------------------------------------------------------------------------------------- */

static int unavailable(const struct nx__redis_link *link, const char *reason, struct nx_error *err) {
  return nx_error_set(err, NX_ERR_UNAVAILABLE,
                      "the Redis at %s does not answer: %s; suspended executions are unavailable until it is back",
                      link->name, reason);
}

/* One that is not taken, connected if possible. */
static struct connection *find_free(struct nx__redis_link *link) {
  struct connection *found = NULL;
  for (struct connection *c = link->connections; c < link->connections + CONNECTIONS; c++)
    if (!c->taken && (!found || !found->context)) found = c;
  return found;
}

static struct timespec after_ms(uint64_t ms) {
  uint64_t ns = nx_clock_ns() + ms * NX_NS_PER_MS;
  return (struct timespec){.tv_sec = (time_t)(ns / NX_NS_PER_S), .tv_nsec = (long)(ns % NX_NS_PER_S)};
}

/* With the mutex held; NULL with `err` filled. */
static struct connection *wait_for_turn(struct nx__redis_link *link, struct nx_error *err) {
  const struct timespec deadline = after_ms(TURN_TIMEOUT_MS);
  bool late = false;
  for (;;) {
    struct connection *found = find_free(link);
    if (link->broken && (!found || nx_clock_ns() < link->probe_at_ns)) {
      unavailable(link, link->reason, err);
      return NULL;
    }
    if (found) return found;
    if (late) {
      unavailable(link, "all connections to it are busy", err);
      return NULL;
    }
    late = pthread_cond_timedwait(&link->given_back, &link->mutex, &deadline) == ETIMEDOUT;
  }
}

static struct connection *take(struct nx__redis_link *link, struct nx_error *err) {
  pthread_mutex_lock(&link->mutex);
  struct connection *connection = wait_for_turn(link, err);
  if (connection) {
    connection->taken = true;
    connection->probes = link->broken;
    if (link->broken) link->probe_at_ns = UINT64_MAX; /* by this one only */
  }
  pthread_mutex_unlock(&link->mutex);
  return connection;
}

/* With the mutex held. */
static void become_broken(struct nx__redis_link *link, const char *reason) {
  if (!link->broken) nx_log(NX_LOG_WARN, "redis does not answer", "address", link->name, "reason", reason, NULL);
  link->broken = true;
  link->probe_at_ns = nx_clock_ns() + BROKEN_MS * NX_NS_PER_MS;
  snprintf(link->reason, sizeof link->reason, "%s", reason);
}

static void become_whole(struct nx__redis_link *link) {
  if (link->broken) nx_log(NX_LOG_INFO, "redis answers again", "address", link->name, NULL);
  link->broken = false;
}

/* `failure` is NULL when Redis answered. While somebody probes, it is for the prober to say that it failed again. */
static void give_back(struct nx__redis_link *link, struct connection *connection, const char *failure) {
  pthread_mutex_lock(&link->mutex);
  if (!failure)
    become_whole(link);
  else if (!link->broken || connection->probes)
    become_broken(link, failure);
  connection->taken = false;
  pthread_cond_broadcast(&link->given_back);
  pthread_mutex_unlock(&link->mutex);
}

static void count_failure(int status) {
  if (status == -NX_ERR_UNAVAILABLE) nx_metrics_store_failed(NX_METRICS_STORE_UNAVAILABLE);
  if (status == -NX_ERR_OVERLOADED) nx_metrics_store_failed(NX_METRICS_STORE_FULL);
}

/* 0 for what is not an error reply. */
static int judge(const struct nx__redis_link *link, const redisReply *reply, struct nx_error *err) {
  if (reply->type != REDIS_REPLY_ERROR) return 0;
  if (is_error(reply, "WRONGTYPE"))
    return nx_error_set(err, NX_ERR_INVALID,
                        "the Redis at %s keeps something under " NX__REDIS_ROOT "* that is not ours: %s", link->name,
                        reply->str);
  if (is_error(reply, "OOM "))
    return nx_error_set(err, NX_ERR_OVERLOADED, "the Redis at %s is full (maxmemory)", link->name);
  return nx_error_set(err, NX_ERR_UNAVAILABLE,
                      "the Redis at %s refuses to work: %s; suspended executions are unavailable until it does",
                      link->name, reply->str);
}

int nx__redis_run(struct nx__redis_link *link, struct nx__redis_command *command, redisReply **out,
                  struct nx_error *err) {
  struct nx_error why = {0};
  struct connection *connection = take(link, err);
  if (!connection) {
    count_failure(-NX_ERR_UNAVAILABLE);
    return -NX_ERR_UNAVAILABLE;
  }
  redisReply *reply = insist(link, connection, command, &why);
  int status = reply ? judge(link, reply, err) : unavailable(link, why.text, err);
  /* It may have become a replica, or another server may have taken over: have the name looked up again. */
  if (status == -NX_ERR_UNAVAILABLE) hang_up(connection);
  give_back(link, connection, reply ? NULL : why.text);
  count_failure(status);
  if (status)
    freeReplyObject(reply);
  else
    *out = reply;
  return status;
}

int nx__redis_link_create(struct nx__redis_link **out, const struct nx_suspend_store *address, struct nx_error *err) {
  struct nx__redis_link *link = calloc(1, sizeof *link);
  if (!link) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the connections to Redis");
  link->address = *address;
  const char *form = strchr(address->redis_host, ':') ? "[%s]:%u" : "%s:%u";
  snprintf(link->name, sizeof link->name, form, address->redis_host, address->redis_port);
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&link->given_back, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_mutex_init(&link->mutex, NULL);
  *out = link;
  return 0;
}

void nx__redis_link_destroy(struct nx__redis_link *link) {
  for (int i = 0; i < CONNECTIONS; i++) hang_up(&link->connections[i]);
  pthread_cond_destroy(&link->given_back);
  pthread_mutex_destroy(&link->mutex);
  explicit_bzero(&link->address, sizeof link->address);
  free(link);
}

const char *nx__redis_link_name(const struct nx__redis_link *link) { return link->name; }

const struct nx_suspend_store *nx__redis_link_address(const struct nx__redis_link *link) { return &link->address; }
