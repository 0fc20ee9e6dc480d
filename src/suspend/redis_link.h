/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to suspend/: commands to one Redis, over a few connections that are made when they are needed.
 *
 * A command that fails for the network is sent once more on a fresh connection: it must be safe to repeat. When that
 * fails too the link is broken: for half a second calls fail at once, then one of them probes. So a dead Redis costs few
 * callers their time, and nobody queues up.
 *
 * Ownership: the caller owns the link and the replies (freeReplyObject); words are borrowed during the call.
 * Threads:   any; those beyond the number of connections wait for their turn, a second at most. The process ignores
 *            SIGPIPE (hiredis writes to sockets that may be closed).
 * Errors:    NX_ERR_UNAVAILABLE: the Redis does not answer or refuses to work; NX_ERR_OVERLOADED: it is full
 *            (maxmemory); NX_ERR_INVALID: under our names is something else.
 * Limits:    a second for each step: to connect, and for the next bytes to go or come. Looking up HOST takes as long as
 *            the resolver does. */
#ifndef NX_SUSPEND_REDIS_LINK_H
#define NX_SUSPEND_REDIS_LINK_H

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
#define NX__REDIS_NUMBERS_MAX 2
struct nx__redis_command {
  int count;
  bool is_operation; /* of the script: the link fills in the first two words */
  const char *words[NX__REDIS_WORDS_MAX];
  size_t sizes[NX__REDIS_WORDS_MAX];
  int numbers;
  char digits[NX__REDIS_NUMBERS_MAX][21];
};

/* An operation of store_redis.lua; plain commands begin with {0}. */
void nx__redis_begin(struct nx__redis_command *command, const char *operation);
void nx__redis_add(struct nx__redis_command *command, const void *bytes, size_t size);
void nx__redis_add_text(struct nx__redis_command *command, const char *text);
/* Cut to what Lua holds exactly, 285,000 years. */
void nx__redis_add_ms(struct nx__redis_command *command, uint64_t ms);

struct nx__redis_link;

int nx__redis_link_create(struct nx__redis_link **out, const struct nx_suspend_store *address, struct nx_error *err);
void nx__redis_link_destroy(struct nx__redis_link *link);
const char *nx__redis_link_name(const struct nx__redis_link *link); /* "HOST:PORT" */

/* `reply` is never an error reply; it is set on success only. */
int nx__redis_run(struct nx__redis_link *link, struct nx__redis_command *command, redisReply **reply,
                  struct nx_error *err);

/* A connection of the caller's own (redisFree), logged in and in the right database; NULL with the bare reason. */
redisContext *nx__redis_connect(const struct nx__redis_link *link, struct nx_error *err);

#endif
