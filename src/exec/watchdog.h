/* SPDX-License-Identifier: Apache-2.0
 *
 * One thread that looks after executions so that they cost no system call: every millisecond while anything runs or
 * waits it ends what is overdue and reports what has become slow; otherwise it sleeps, and looks once a second.
 * Private to src/exec. */
#ifndef NX_EXEC_WATCHDOG_H
#define NX_EXEC_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct nx_watchdog;

struct nx_watchdog_work {
  void *self;
  /* Every tick; returns when the next one is due: within a millisecond while anything runs, else when the next timer is. */
  uint64_t (*tick)(void *self, uint64_t now_ns);
  /* About once a second. */
  void (*housekeeping)(void *self, uint64_t now_ns);
};

int nx_watchdog_create(struct nx_watchdog **out, const struct nx_watchdog_work *work, struct nx_error *err);
/* Its thread ends; a kick does nothing from here on. By one thread; twice does no harm, nor does NULL. */
void nx_watchdog_stop(struct nx_watchdog *watchdog);
void nx_watchdog_destroy(struct nx_watchdog *watchdog);
/* Something has begun. Any thread; a system call only when the watchdog sleeps. */
void nx_watchdog_kick(struct nx_watchdog *watchdog);

#endif
