/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/timers.h"

#include <assert.h>

/* Slots count from 1 on: the parent of slot n is n / 2, its children are 2n and 2n + 1. */
static void put(struct nx__timers *timers, struct nx__timer *timer, uint32_t slot) {
  timers->heap[slot - 1] = timer;
  timer->slot = slot;
}

static struct nx__timer *at(const struct nx__timers *timers, uint32_t slot) { return timers->heap[slot - 1]; }

/* The slot is free: moves parents down into it as long as they are later than `timer`, which takes the last. */
static void rise(struct nx__timers *timers, struct nx__timer *timer, uint32_t slot) {
  for (; slot > 1 && at(timers, slot / 2)->at_ms > timer->at_ms; slot /= 2) put(timers, at(timers, slot / 2), slot);
  put(timers, timer, slot);
}

/* The same with the earlier child, downwards. */
static void sink(struct nx__timers *timers, struct nx__timer *timer, uint32_t slot) {
  for (uint32_t child; (child = 2 * slot) <= timers->count; slot = child) {
    if (child < timers->count && at(timers, child + 1)->at_ms < at(timers, child)->at_ms) child++;
    if (at(timers, child)->at_ms >= timer->at_ms) break;
    put(timers, at(timers, child), slot);
  }
  put(timers, timer, slot);
}

static void settle(struct nx__timers *timers, struct nx__timer *timer, uint32_t slot) {
  if (slot > 1 && at(timers, slot / 2)->at_ms > timer->at_ms)
    rise(timers, timer, slot);
  else
    sink(timers, timer, slot);
}

void nx__timers_add(struct nx__timers *timers, struct nx__timer *timer) {
  assert(timers->count < timers->capacity);
  rise(timers, timer, ++timers->count);
}

void nx__timers_remove(struct nx__timers *timers, struct nx__timer *timer) {
  uint32_t slot = timer->slot;
  if (!slot) return;
  timer->slot = 0;
  struct nx__timer *last = at(timers, timers->count--);
  if (last != timer) settle(timers, last, slot);
}

void nx__timers_set(struct nx__timers *timers, struct nx__timer *timer, uint64_t at_ms) {
  timer->at_ms = at_ms;
  settle(timers, timer, timer->slot);
}

struct nx__timer *nx__timers_first(const struct nx__timers *timers, uint64_t until_ms) {
  return timers->count && timers->heap[0]->at_ms <= until_ms ? timers->heap[0] : NULL;
}
