/* SPDX-License-Identifier: Apache-2.0
 *
 * Times of many rounds, and their distribution as JSON. Memory for all samples is touched before the clock starts: a page
 * fault of the measuring thread would make the next reset scan, and be measured as the product's.
 * Ownership: the caller frees `ns`. Threads: one. */
#ifndef NX_BENCH_SAMPLES_H
#define NX_BENCH_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct samples {
  uint32_t *ns;
  unsigned count, capacity;
};

static inline bool samples_init(struct samples *samples, unsigned capacity) {
  samples->ns = malloc(capacity * sizeof *samples->ns);
  if (!samples->ns) return false;
  memset(samples->ns, 0xff, capacity * sizeof *samples->ns);
  samples->capacity = capacity;
  return true;
}

static inline void samples_take(struct samples *samples, uint64_t ns) {
  if (samples->count < samples->capacity) samples->ns[samples->count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static inline int samples_by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Prints and empties them. */
static inline void samples_report(const char *name, struct samples *samples, const char *after) {
  uint64_t sum = 0;
  unsigned n = samples->count;
  qsort(samples->ns, n, sizeof *samples->ns, samples_by_value);
  for (unsigned i = 0; i < n; i++) sum += samples->ns[i];
  double p50 = n ? samples->ns[n / 2] : 0, p99 = n ? samples->ns[(uint64_t)n * 99 / 100] : 0;
  printf("\"%s\":{\"p50\":%.2f,\"p99\":%.2f,\"mean\":%.2f,\"n\":%u}%s", name, p50 / 1000, p99 / 1000,
         n ? (double)sum / n / 1000 : 0, n, after);
  samples->count = 0;
}

#endif
