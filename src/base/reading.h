/* SPDX-License-Identifier: Apache-2.0
 *
 * What was read from the kernel: a number, the news that there is none, or nothing at all. The three are never mixed:
 * a limit that could not be read is not "no limit", and neither is 0. */
#ifndef NX_BASE_READING_H
#define NX_BASE_READING_H

#include <stdbool.h>
#include <stdint.h>

enum nx_reading_kind {
  NX_READING_UNKNOWN,   /* missing, not permitted, or not understood; what a zeroed struct says */
  NX_READING_UNLIMITED, /* read, and the kernel says that there is no limit */
  NX_READING_VALUE,
};

struct nx_reading {
  enum nx_reading_kind kind;
  uint64_t value; /* only with NX_READING_VALUE; the unit is in the name of the field that holds the reading */
};

static inline struct nx_reading nx_reading_of(uint64_t value) { return (struct nx_reading){NX_READING_VALUE, value}; }
static inline struct nx_reading nx_reading_unlimited(void) { return (struct nx_reading){NX_READING_UNLIMITED, 0}; }
static inline struct nx_reading nx_reading_unknown(void) { return (struct nx_reading){NX_READING_UNKNOWN, 0}; }
static inline bool nx_reading_is_value(struct nx_reading r) { return r.kind == NX_READING_VALUE; }

#endif
