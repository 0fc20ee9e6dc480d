/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to suspend/: a thread that hears when a handler has changed, at whatever replica, and keeps the number that
 * changes with it. It says that it has heard ("hear" in store_redis.lua) once the number has changed, so that whoever
 * made the change may wait for it. While it is not connected the number is 0, and then another one than before.
 *
 * Ownership: the caller owns the watch; it borrows link and channel.
 * Threads:   any for version and raise; its own thread subscribes. */
#ifndef NX_SUSPEND_REDIS_WATCH_H
#define NX_SUSPEND_REDIS_WATCH_H

#include <stdint.h>

#include "base/error.h"
#include "suspend/redis_link.h"

#define NX__REDIS_TOKEN_CHARS 16 /* hexadecimal */

struct nx__redis_watch;

int nx__redis_watch_start(struct nx__redis_watch **out, struct nx__redis_link *link, const char *channel,
                          struct nx_error *err);
void nx__redis_watch_stop(struct nx__redis_watch *watch);
uint64_t nx__redis_watch_version(const struct nx__redis_watch *watch);
void nx__redis_watch_raise(struct nx__redis_watch *watch);

#endif
