/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to suspend/: what happens at a time, the earliest first: a binary heap of pointers.
 * Ownership: timers are embedded in the caller's things, which know their slot and so leave from anywhere; the caller
 *            gives the heap's array its room (heap, capacity) before it adds.
 * Threads:   none of its own: the caller's lock covers it. */
#ifndef NX_SUSPEND_TIMERS_H
#define NX_SUSPEND_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx__timer {
  uint64_t at_ms;
  uint32_t slot; /* in the heap, from 1 on; 0: it is in none */
};

struct nx__timers {
  struct nx__timer **heap;
  uint32_t count, capacity;
};

void nx__timers_add(struct nx__timers *timers, struct nx__timer *timer);
/* Nothing when it is in none. */
void nx__timers_remove(struct nx__timers *timers, struct nx__timer *timer);
/* For a time that changes while the timer runs. */
void nx__timers_set(struct nx__timers *timers, struct nx__timer *timer, uint64_t at_ms);
/* NULL when there is none that early. */
struct nx__timer *nx__timers_first(const struct nx__timers *timers, uint64_t until_ms);

#endif
