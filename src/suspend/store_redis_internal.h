/* SPDX-License-Identifier: Apache-2.0
 * The Redis store as its two files see it: store_redis.c has items and sources, redis_handlers.c the handlers. */
#ifndef NX_SUSPEND_STORE_REDIS_INTERNAL_H
#define NX_SUSPEND_STORE_REDIS_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "suspend/redis_link.h"
#include "suspend/redis_watch.h"
#include "suspend/store.h"

struct nx__redis_store {
  struct nx_store base;
  struct nx__redis_link *link;
  struct nx__redis_watch *watch;
  char channel[sizeof NX__REDIS_ROOT + 32]; /* of changes to handlers; all databases of a Redis share channels */
  _Atomic uint64_t waiting, foreign;        /* items, at the last sweep */
  _Atomic bool is_counted;
  _Atomic uint64_t due_offset;              /* how many that are due the next report passes over */
};

#define NX__REDIS_HASH_CHARS (2 * NX_HASH_BYTES)

static inline struct nx__redis_store *nx__redis_store_of(struct nx_store *store) {
  return (struct nx__redis_store *)store;
}

struct nx__redis_token {
  char text[NX__REDIS_TOKEN_CHARS + 1];
};
struct nx__redis_token nx__redis_token_of(uint64_t number);
uint64_t nx__redis_random_number(void);

/* An operation of the script. 0 when the answer is ["ok", …] with `count` strings at least, else the error that its
 * first word stands for. The reply is set with 0 and NX_ERR_GONE; it is the caller's (freeReplyObject). */
int nx__redis_ask(struct nx__redis_store *store, struct nx__redis_command *command, size_t count, redisReply **reply,
                  struct nx_error *err);
/* The same when nothing but its success counts. */
int nx__redis_tell(struct nx__redis_store *store, struct nx__redis_command *command, struct nx_error *err);
/* What is kept does not have the form that it must have. */
int nx__redis_damaged(const struct nx__redis_store *store, const char *what, struct nx_error *err);
/* Digits only. */
bool nx__redis_parse_number(const redisReply *text, uint64_t *number);

int nx__redis_put_handler(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                          uint64_t expected, struct nx_error *err);
int nx__redis_get_handler(struct nx_store *store, const char *name, struct nx_stored_handler *out,
                          struct nx_error *err);
int nx__redis_remove_handler(struct nx_store *store, const char *name, uint64_t expected, struct nx_error *err);
int nx__redis_list_handlers(struct nx_store *store, nx_visit_handler_fn *visit, void *self, struct nx_error *err);
uint64_t nx__redis_handlers_version(struct nx_store *store);

#endif
