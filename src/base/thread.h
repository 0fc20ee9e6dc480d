/* SPDX-License-Identifier: Apache-2.0
 *
 * Background threads of nexus, and what any of its threads may take of the processor. */
#ifndef NX_BASE_THREAD_H
#define NX_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* For those that neither serve sockets nor enter guests: all signals are blocked in them, and their slice is the normal
 * one, whoever begins them. The caller joins the thread. `name` is at most 15 bytes, for ps and the like. */
int nx_thread_start(pthread_t *thread, const char *name, void *(*run)(void *argument), void *argument,
                    struct nx_error *err);

/* How the kernel shares processors between a thread and others: `nice` as in setpriority(2), and `slice_ns`, for how
 * long it computes before others get their turn. Who wakes up interrupts a thread with a longer slice at once, and else
 * may have to wait for the end of that slice and the kernel's next tick, 4 ms with HZ=250 (PREEMPT_SHORT and
 * RUN_TO_PARITY in kernel/sched/features.h). Linux before 6.12 ignores slices. Threads inherit both from the one that
 * begins them. False, and nothing is changed, when the priority may not be raised. */
#define NX_THREAD_SLICE_NORMAL 0 /* the kernel's own */
bool nx_thread_set_share(int tid, int nice, uint64_t slice_ns);
/* The slice of the calling thread alone. */
void nx_thread_set_slice(uint64_t slice_ns);

#endif
