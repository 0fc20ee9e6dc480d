/* SPDX-License-Identifier: Apache-2.0
 *
 * Arithmetic on sizes that cannot wrap around, and their unit. */
#ifndef NX_BASE_NUMBER_H
#define NX_BASE_NUMBER_H

#include <stdint.h>

#define NX_MIB (UINT64_C(1) << 20)

static inline double nx_in_mib(uint64_t bytes) { return (double)bytes / (double)NX_MIB; }
static inline uint64_t nx_min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t nx_max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }
/* a − b, at least 0. */
static inline uint64_t nx_minus_u64(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }
/* bytes × numerator / denominator, rounded down; nothing overflows in between while numerator × denominator does not. */
static inline uint64_t nx_part_u64(uint64_t bytes, uint64_t numerator, uint64_t denominator) {
  return bytes / denominator * numerator + bytes % denominator * numerator / denominator;
}

#endif
