/* SPDX-License-Identifier: Apache-2.0 */
#include "base/timers.h"

#include <assert.h>

/* Slots count from 1 on: the parent of slot n is n / 2, its children are 2n and 2n + 1. */
static void put(struct nx_timers *timers, struct nx_timer *timer, uint32_t slot) {
  timers->heap[slot - 1] = timer;
  timer->slot = slot;
}

static struct nx_timer *at(const struct nx_timers *timers, uint32_t slot) { return timers->heap[slot - 1]; }

/* The slot is free: moves parents down into it as long as they are later than `timer`, which takes the last. */
static void rise(struct nx_timers *timers, struct nx_timer *timer, uint32_t slot) {
  for (; slot > 1 && at(timers, slot / 2)->at > timer->at; slot /= 2) put(timers, at(timers, slot / 2), slot);
  put(timers, timer, slot);
}

/* The same with the earlier child, downwards. */
static void sink(struct nx_timers *timers, struct nx_timer *timer, uint32_t slot) {
  for (uint32_t child; (child = 2 * slot) <= timers->count; slot = child) {
    if (child < timers->count && at(timers, child + 1)->at < at(timers, child)->at) child++;
    if (at(timers, child)->at >= timer->at) break;
    put(timers, at(timers, child), slot);
  }
  put(timers, timer, slot);
}

static void settle(struct nx_timers *timers, struct nx_timer *timer, uint32_t slot) {
  if (slot > 1 && at(timers, slot / 2)->at > timer->at)
    rise(timers, timer, slot);
  else
    sink(timers, timer, slot);
}

void nx_timers_add(struct nx_timers *timers, struct nx_timer *timer) {
  assert(timers->count < timers->capacity);
  rise(timers, timer, ++timers->count);
}

void nx_timers_remove(struct nx_timers *timers, struct nx_timer *timer) {
  uint32_t slot = timer->slot;
  if (!slot) return;
  timer->slot = 0;
  struct nx_timer *last = at(timers, timers->count--);
  if (last != timer) settle(timers, last, slot);
}

void nx_timers_set(struct nx_timers *timers, struct nx_timer *timer, uint64_t at) {
  timer->at = at;
  settle(timers, timer, timer->slot);
}

struct nx_timer *nx_timers_first(const struct nx_timers *timers, uint64_t until_ms) {
  return timers->count && timers->heap[0]->at <= until_ms ? timers->heap[0] : NULL;
}
