/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers set by PUT, over replicas. One is kept as "SOURCE VERSION BYTES". A change is published on a channel; whoever
 * made it waits for a moment until all who listen have heard it, and what another replica is asked next shows it. */
#include "suspend/store_redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "handler/handler.h"

#define HEARD_TIMEOUT_MS 200u
#define HEAD_CHARS (NX__REDIS_HASH_CHARS + 1 + NX__REDIS_TOKEN_CHARS + 1)

static int no_such_handler(const char *name, struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NOT_FOUND, "there is no handler \"%.64s\"", name);
}

/* Waits until one more has heard; false when that takes longer than the time left. */
static bool await_one(struct nx__redis_store *store, const char *list, uint64_t left_ns) {
  struct nx__redis_command command = {0};
  redisReply *reply;
  char seconds[24];
  snprintf(seconds, sizeof seconds, "%.3f", (double)left_ns / (double)NX_NS_PER_S);
  nx__redis_add_text(&command, "BLPOP");
  nx__redis_add_text(&command, list);
  nx__redis_add_text(&command, seconds);
  if (nx__redis_run(store->link, &command, &reply, NULL)) return false;
  bool heard = reply->type == REDIS_REPLY_ARRAY;
  freeReplyObject(reply);
  return heard;
}

/* Those that do not hear it now are lost or slow: they find it out when they are connected again, or soon. */
static void await_hearers(struct nx__redis_store *store, const char *token, uint64_t hearers) {
  char list[sizeof NX__REDIS_ROOT + 32];
  snprintf(list, sizeof list, NX__REDIS_ROOT "heard:%s", token);
  uint64_t end_ns = nx_clock_ns() + HEARD_TIMEOUT_MS * NX_NS_PER_MS;
  for (; hearers; hearers--) {
    uint64_t now_ns = nx_clock_ns();
    if (now_ns + NX_NS_PER_MS > end_ns || !await_one(store, list, end_ns - now_ns)) return; /* BLPOP 0 waits for ever */
  }
}

/* Ends the command with channel and token, runs it, and has the change heard. */
static int change(struct nx__redis_store *store, struct nx__redis_command *command, struct nx_error *err) {
  const struct nx__redis_token token = nx__redis_token_of(nx__redis_random_number());
  redisReply *reply;
  uint64_t hearers = 0;
  nx__redis_add_text(command, store->channel);
  nx__redis_add_text(command, token.text);
  int status = nx__redis_ask(store, command, 2, &reply, err);
  nx__redis_watch_raise(store->watch); /* also when it failed: it may have happened, and the answer be lost */
  if (status) return status;
  if (nx__redis_parse_number(reply->element[1], &hearers)) await_hearers(store, token.text, hearers);
  freeReplyObject(reply);
  return 0;
}

/* Never one of the two that mean no version. */
static uint64_t draw_version(void) { return nx__redis_random_number() >> 1 | 1; }

static void add_expected(struct nx__redis_command *command, uint64_t expected, struct nx__redis_token *room) {
  *room = nx__redis_token_of(expected);
  nx__redis_add_text(command, expected == NX_HANDLER_ANY ? "any" : expected == NX_HANDLER_NONE ? "" : room->text);
}

int nx__redis_put_handler(struct nx_store *base, const char *name, const struct nx_stored_handler *handler,
                          uint64_t expected, struct nx_error *err) {
  struct nx__redis_command command;
  struct nx__redis_token room;
  char hash[NX__REDIS_HASH_CHARS + 1];
  NX_BUF_AUTO value = {0};
  nx_buf_printf(&value, "%s %s ", sodium_bin2hex(hash, sizeof hash, handler->source_name, NX_HASH_BYTES),
                nx__redis_token_of(draw_version()).text);
  nx_buf_add(&value, handler->bytes.data, handler->bytes.len);
  if (value.failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the handler \"%.64s\"", name);
  nx__redis_begin(&command, "put_handler");
  nx__redis_add_text(&command, name);
  nx__redis_add(&command, value.data, value.len);
  add_expected(&command, expected, &room);
  int status = change(nx__redis_store_of(base), &command, err);
  if (status == -NX_ERR_NOT_FOUND)
    return nx_error_set(err, NX_ERR_NOT_FOUND, "the source of the handler \"%.64s\" is not kept", name);
  return status;
}

static bool parse_version(const char *text, uint64_t *out) {
  if (strspn(text, "0123456789abcdef") < NX__REDIS_TOKEN_CHARS) return false;
  *out = strtoull(text, NULL, 16);
  return true;
}

static bool parse_handler(const redisReply *text, struct nx_stored_handler *out) {
  size_t bytes;
  if (text->len < HEAD_CHARS) return false;
  if (text->str[NX__REDIS_HASH_CHARS] != ' ' || text->str[HEAD_CHARS - 1] != ' ') return false;
  if (!parse_version(text->str + NX__REDIS_HASH_CHARS + 1, &out->version)) return false;
  return !sodium_hex2bin(out->source_name, NX_HASH_BYTES, text->str, NX__REDIS_HASH_CHARS, NULL, &bytes, NULL) &&
         bytes == NX_HASH_BYTES;
}

int nx__redis_get_handler(struct nx_store *base, const char *name, struct nx_stored_handler *out,
                          struct nx_error *err) {
  struct nx__redis_store *store = nx__redis_store_of(base);
  struct nx__redis_command command;
  redisReply *reply;
  nx__redis_begin(&command, "get_handler");
  nx__redis_add_text(&command, name);
  int status = nx__redis_ask(store, &command, 2, &reply, err);
  if (status == -NX_ERR_NOT_FOUND) return no_such_handler(name, err);
  if (status) return status;
  const redisReply *text = reply->element[1];
  if (!parse_handler(text, out)) {
    status = nx__redis_damaged(store, "a handler", err);
  } else {
    nx_buf_add(&out->bytes, text->str + HEAD_CHARS, text->len - HEAD_CHARS);
    if (out->bytes.failed) status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the handler \"%.64s\"", name);
  }
  freeReplyObject(reply);
  return status;
}

int nx__redis_remove_handler(struct nx_store *base, const char *name, uint64_t expected, struct nx_error *err) {
  struct nx__redis_command command;
  struct nx__redis_token room;
  nx__redis_begin(&command, "remove_handler");
  nx__redis_add_text(&command, name);
  add_expected(&command, expected, &room);
  int status = change(nx__redis_store_of(base), &command, err);
  return status == -NX_ERR_NOT_FOUND ? no_such_handler(name, err) : status;
}

/* ["ok", name, version, …]; without a version what is damaged. */
int nx__redis_list_handlers(struct nx_store *base, nx_visit_handler_fn *visit, void *self, struct nx_error *err) {
  struct nx__redis_command command;
  redisReply *reply;
  nx__redis_begin(&command, "list_handlers");
  int status = nx__redis_ask(nx__redis_store_of(base), &command, 1, &reply, err);
  if (status) return status;
  for (size_t i = 1; i + 1 < reply->elements; i += 2) {
    const redisReply *name = reply->element[i];
    uint64_t version = NX_HANDLER_NONE;
    parse_version(reply->element[i + 1]->str, &version);
    if (nx_handler_name_valid(name->str, name->len)) visit(self, name->str, version);
  }
  freeReplyObject(reply);
  return 0;
}

uint64_t nx__redis_handlers_version(struct nx_store *base) {
  return nx__redis_watch_version(nx__redis_store_of(base)->watch);
}
