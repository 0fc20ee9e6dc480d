/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens at a time, the earliest first: a binary heap of pointers. Nothing runs by itself: the owner asks what is
 * due. Times are of whatever unit and clock the owner uses.
 * Ownership: timers are embedded in the caller's things, which know their slot and so leave from anywhere; the caller
 *            gives the heap's array its room (heap, capacity) before it adds.
 * Threads:   none of its own: the caller's lock covers it. */
#ifndef NX_BASE_TIMERS_H
#define NX_BASE_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_timer {
  uint64_t at;
  uint32_t slot; /* in the heap, from 1 on; 0: it is in none */
};

struct nx_timers {
  struct nx_timer **heap;
  uint32_t count, capacity;
};

void nx_timers_add(struct nx_timers *timers, struct nx_timer *timer);
/* Nothing when it is in none. */
void nx_timers_remove(struct nx_timers *timers, struct nx_timer *timer);
/* For a time that changes while the timer runs. */
void nx_timers_set(struct nx_timers *timers, struct nx_timer *timer, uint64_t at);
/* NULL when there is none that early. */
struct nx_timer *nx_timers_first(const struct nx_timers *timers, uint64_t until_ms);

#endif
