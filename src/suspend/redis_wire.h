/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to suspend/: one connection to Redis, over hiredis.
 *
 * Ownership: the caller owns contexts (redisFree) and replies (freeReplyObject); words are borrowed until a command has
 *            been sent.
 * Threads:   a context belongs to one thread at a time.
 * Errors:    NX_ERR_UNAVAILABLE with the bare reason; the connection is of no use any more.
 * Limits:    a second for each step: to connect, and for the next bytes to go or come. Looking up a name takes as long
 *            as the resolver does. Besides its bytes a reply takes as much again while it comes. */
#ifndef NX_SUSPEND_REDIS_WIRE_H
#define NX_SUSPEND_REDIS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

#include "base/error.h"
#include "config/config.h"

/* What all names in Redis begin with (store_redis.lua). */
#define NX__REDIS_ROOT "nexus:{store}:"
/* The largest value that Redis takes. */
#define NX__REDIS_VALUE_MAX_BYTES (512u << 20)

/* A command, word by word. */
#define NX__REDIS_WORDS_MAX 16
#define NX__REDIS_NUMBERS_MAX 3
struct nx__redis_command {
  int count;
  bool is_operation; /* of the script: redis_link.c fills in the first two words */
  const char *words[NX__REDIS_WORDS_MAX];
  size_t sizes[NX__REDIS_WORDS_MAX];
  int numbers;
  char digits[NX__REDIS_NUMBERS_MAX][21];
};

/* An operation of store_redis.lua; plain commands begin with {0}. */
void nx__redis_begin(struct nx__redis_command *command, const char *operation);
void nx__redis_add(struct nx__redis_command *command, const void *bytes, size_t size);
void nx__redis_add_text(struct nx__redis_command *command, const char *text);
/* Cut to what Lua holds exactly: 285,000 years, if they are milliseconds. */
void nx__redis_add_number(struct nx__redis_command *command, uint64_t number);

/* Logged in and in the right database; NULL: it could not be. */
redisContext *nx__redis_connect(const struct nx_suspend_store *address, struct nx_error *why);
/* False with errno. */
bool nx__redis_send(redisContext *context, const struct nx__redis_command *command);
/* Sends the command and reads its reply, which may be an error's; NULL on failure. */
redisReply *nx__redis_exchange(redisContext *context, const struct nx__redis_command *command, struct nx_error *why);
/* The same for the first commands of a connection: an error's reply is a failure. Only its code is told: Redis repeats
 * a command that it does not know, password and all. `out` may be NULL. */
int nx__redis_introduce(redisContext *context, const struct nx__redis_command *command, redisReply **out,
                        struct nx_error *why);

#endif
