/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/redis_watch.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fs.h"
#include "base/thread.h"

#define RECONNECT_MS 500
#define PING_MS 2000 /* after so long a silence: a connection may be dead without a sign */

struct nx__redis_watch {
  struct nx__redis_link *link;
  const char *channel;
  pthread_t thread;
  int stop_fd;              /* eventfd: readable when the thread shall end */
  /* Synchronization: sequentially consistent. Raised before the change is acknowledged. */
  _Atomic uint64_t version;
  _Atomic bool is_subscribed;
};

uint64_t nx__redis_watch_version(const struct nx__redis_watch *watch) {
  return atomic_load(&watch->is_subscribed) ? atomic_load(&watch->version) : 0;
}

void nx__redis_watch_raise(struct nx__redis_watch *watch) { atomic_fetch_add(&watch->version, 1); }

/* Waits for the socket (-1: for nothing). */
enum event { EVENT_NONE, EVENT_DATA, EVENT_STOP };
static enum event wait_for_event(const struct nx__redis_watch *watch, int socket, int timeout_ms) {
  struct pollfd fds[] = {{.fd = watch->stop_fd, .events = POLLIN}, {.fd = socket, .events = POLLIN}};
  int ready = poll(fds, 2, timeout_ms);
  if (ready > 0 && fds[0].revents) return EVENT_STOP;
  return ready > 0 ? EVENT_DATA : EVENT_NONE;
}

static bool subscribe(redisContext *context, const char *channel) {
  struct nx__redis_command command = {0};
  nx__redis_add_text(&command, "SUBSCRIBE");
  nx__redis_add_text(&command, channel);
  return nx__redis_send(context, &command);
}

static bool ping(redisContext *context) {
  struct nx__redis_command command = {0};
  nx__redis_add_text(&command, "PING");
  return nx__redis_send(context, &command);
}

static bool is_token(const redisReply *reply) {
  return reply->type == REDIS_REPLY_STRING && reply->len == NX__REDIS_TOKEN_CHARS &&
         strspn(reply->str, "0123456789abcdef") == NX__REDIS_TOKEN_CHARS;
}

static bool is_text(const redisReply *reply, const char *text) {
  return reply->type == REDIS_REPLY_STRING && !strcmp(reply->str, text);
}

/* A failure only lets the one who waits wait for longer. */
static void acknowledge(struct nx__redis_watch *watch, const redisReply *token) {
  struct nx__redis_command command;
  redisReply *reply;
  nx__redis_begin(&command, "hear");
  nx__redis_add(&command, token->str, token->len);
  if (!nx__redis_run(watch->link, &command, &reply, NULL)) freeReplyObject(reply);
}

/* ["subscribe", CHANNEL, 1], ["message", CHANNEL, TOKEN], or the answer to a ping. */
static void hear(struct nx__redis_watch *watch, const redisReply *message) {
  if (message->type != REDIS_REPLY_ARRAY || message->elements != 3) return;
  bool subscribed = is_text(message->element[0], "subscribe");
  bool changed = is_text(message->element[0], "message") && is_token(message->element[2]);
  if (subscribed || changed) nx__redis_watch_raise(watch);
  if (subscribed) atomic_store(&watch->is_subscribed, true);
  if (changed) acknowledge(watch, message->element[2]);
}

static bool hear_all(struct nx__redis_watch *watch, redisContext *context) {
  if (redisBufferRead(context)) return false;
  for (;;) {
    void *message = NULL;
    if (redisGetReplyFromReader(context, &message)) return false;
    if (!message) return true;
    hear(watch, message);
    freeReplyObject(message);
  }
}

/* Until the connection is lost, or the thread shall end: then true. */
static bool listen_to(struct nx__redis_watch *watch, redisContext *context) {
  bool pinged = false;
  if (!subscribe(context, watch->channel)) return false;
  for (;;) {
    switch (wait_for_event(watch, context->fd, PING_MS)) {
    case EVENT_STOP: return true;
    case EVENT_DATA:
      pinged = false;
      if (!hear_all(watch, context)) return false;
      break;
    case EVENT_NONE:
      if (pinged || !ping(context)) return false;
      pinged = true;
    }
  }
}

static void *run(void *argument) {
  struct nx__redis_watch *watch = argument;
  bool stop = false;
  while (!stop) {
    redisContext *context = nx__redis_connect(nx__redis_link_address(watch->link), NULL);
    if (context) {
      stop = listen_to(watch, context);
      atomic_store(&watch->is_subscribed, false);
      redisFree(context);
    }
    if (!stop) stop = wait_for_event(watch, -1, RECONNECT_MS) == EVENT_STOP;
  }
  return NULL;
}

int nx__redis_watch_start(struct nx__redis_watch **out, struct nx__redis_link *link, const char *channel,
                          struct nx_error *err) {
  struct nx__redis_watch *watch = calloc(1, sizeof *watch);
  if (!watch) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the subscriber to Redis");
  *watch = (struct nx__redis_watch){.link = link, .channel = channel, .stop_fd = eventfd(0, EFD_CLOEXEC)};
  int status = watch->stop_fd < 0 ? nx_error_sys(err, "cannot make an eventfd")
                                  : nx_thread_start(&watch->thread, "redis-watch", run, watch, err);
  if (status) {
    nx_fs_close(&watch->stop_fd);
    free(watch);
    return status;
  }
  *out = watch;
  return 0;
}

void nx__redis_watch_stop(struct nx__redis_watch *watch) {
  eventfd_write(watch->stop_fd, 1);
  pthread_join(watch->thread, NULL);
  nx_fs_close(&watch->stop_fd);
  free(watch);
}
