/* SPDX-License-Identifier: Apache-2.0
 *
 * A thread that looks again whenever something in a directory has changed.
 *
 * Changes are seen by inotify on the directory and on its parent (for swapped symbolic links, also Kubernetes' "..data"
 * in the directory), gathered for debounce_ms, and found at the latest by a look every rescan_ms, for file systems
 * that tell nothing.
 *
 * Ownership: the watch owns its thread; create, start and destroy belong to one thread.
 * Threads:   `look` is called on the own thread. nx_watch_renew: the creating one before start, then the own one. */
#ifndef NX_BASE_WATCH_H
#define NX_BASE_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct nx_watch;

struct nx_watch_opts {
  const char *setting;    /* names the directory in log lines and errors; a constant */
  const char *path;       /* of the directory, which need not be there; borrowed for the call */
  const char *thread;     /* name of the own thread, at most 15 bytes; a constant */
  uint32_t debounce_ms;   /* 0: 100 */
  uint32_t rescan_ms;     /* 0: 30000 */
  void *self;
  void (*look)(void *self);
};

int nx_watch_create(struct nx_watch **out, const struct nx_watch_opts *opts, struct nx_error *err);
/* Sees to it that changes from now on are noticed: before each look, and once more when the directory may have been
 * exchanged during the look. */
void nx_watch_renew(struct nx_watch *watch);
int nx_watch_start(struct nx_watch *watch, struct nx_error *err);
/* True once the watch is to end: a look that takes long leaves early. */
const _Atomic bool *nx_watch_is_ending(const struct nx_watch *watch);
/* Waits for a look that is under way. NULL is allowed. */
void nx_watch_destroy(struct nx_watch *watch);

#endif
