/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks in nanoseconds. Monotonic for every duration and deadline; real time only for what people or other hosts read.
 * Both are vDSO calls: they cost tens of nanoseconds and no system call. */
#ifndef NX_BASE_CLOCK_H
#define NX_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NX_NS_PER_MS UINT64_C(1000000)
#define NX_NS_PER_S UINT64_C(1000000000)

static inline uint64_t nx_clock_read_ns(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (uint64_t)t.tv_sec * NX_NS_PER_S + (uint64_t)t.tv_nsec;
}
static inline uint64_t nx_clock_ns(void) { return nx_clock_read_ns(CLOCK_MONOTONIC); }
static inline uint64_t nx_clock_realtime_ns(void) { return nx_clock_read_ns(CLOCK_REALTIME); }
/* The unit of the times in suspension stores. */
static inline uint64_t nx_clock_realtime_ms(void) { return nx_clock_realtime_ns() / NX_NS_PER_MS; }

#endif
