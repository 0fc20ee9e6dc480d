/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to suspend/: commands to one Redis, over a few connections that are made when they are needed.
 *
 * A command that fails for the network is sent once more on a fresh connection: it must be safe to repeat. When that
 * fails too the link is broken: for half a second calls fail at once, then one of them probes. So a dead Redis costs
 * few callers their time, and nobody queues up.
 *
 * Ownership: the caller owns the link and the replies (freeReplyObject); words are borrowed during the call.
 * Threads:   any; those beyond the number of connections wait for their turn, a second at most.
 * Errors:    NX_ERR_UNAVAILABLE: the Redis does not answer or refuses to work; NX_ERR_OVERLOADED: it is full
 *            (maxmemory); NX_ERR_INVALID: under our names is something else. */
#ifndef NX_SUSPEND_REDIS_LINK_H
#define NX_SUSPEND_REDIS_LINK_H

#include "suspend/redis_wire.h"

struct nx__redis_link;

int nx__redis_link_create(struct nx__redis_link **out, const struct nx_suspend_store *address, struct nx_error *err);
void nx__redis_link_destroy(struct nx__redis_link *link);
const char *nx__redis_link_name(const struct nx__redis_link *link); /* "HOST:PORT" */
const struct nx_suspend_store *nx__redis_link_address(const struct nx__redis_link *link);

/* `reply` is never an error reply; it is set on success only. */
int nx__redis_run(struct nx__redis_link *link, struct nx__redis_command *command, redisReply **reply,
                  struct nx_error *err);

#endif
