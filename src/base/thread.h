/* SPDX-License-Identifier: Apache-2.0
 *
 * Background threads of nexus: those that neither serve sockets nor enter guests. All signals are blocked in them.
 * Ownership: the caller joins the thread. `name` is at most 15 bytes, for ps and the like. */
#ifndef NX_BASE_THREAD_H
#define NX_BASE_THREAD_H

#include <pthread.h>

#include "base/error.h"

int nx_thread_start(pthread_t *thread, const char *name, void *(*run)(void *argument), void *argument,
                    struct nx_error *err);

#endif
