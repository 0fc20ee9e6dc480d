/* SPDX-License-Identifier: Apache-2.0
 *
 * What the governor makes of what it read: a pure function of figures, so that every case is in a table of tests.
 *
 *            use over 70 % of the limit, or pressure           use over the budget, or much pressure
 *   NORMAL ────────────────────────────────────▶ RECLAIMING ─────────────────────────────────────▶ SHEDDING
 *          ◀──────────────────────────────────── ▲          ◀─────────────────────────────────────
 *            use under 60 %, no pressure                      use under 90 % of the budget, little pressure, 1 s
 *
 *   One look may take both steps in a row.
 *
 *   NORMAL      nothing to do
 *   RECLAIMING  what is kept only for speed is given back
 *   SHEDDING    and no execution begins but those that are known to be short and small
 *
 * The budget. The ledger bounds what is charged; the kernel kills for what is used. When more is used than charged, for
 * a while, the difference is taken off the budget, so that charges and the unknown together stay below the limit. */
#ifndef NX_MEMORY_DECIDE_H
#define NX_MEMORY_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/reading.h"

#define NX_GOVERNOR_STATES(X)    \
  X(NORMAL, "normal")            \
  X(RECLAIMING, "reclaiming")    \
  X(SHEDDING, "shedding")

enum nx_governor_state {
#define X(symbol, name) NX_GOVERNOR_##symbol,
  NX_GOVERNOR_STATES(X)
#undef X
  NX_GOVERNOR_STATE_COUNT
};
const char *nx_governor_state_name(enum nx_governor_state state);

/* What was read. */
struct nx_view {
  uint64_t now_ns;
  uint64_t limit_bytes;
  uint64_t reserve_bytes;
  uint64_t accounted_bytes;      /* the ledger's sum */
  struct nx_reading used_bytes;  /* what the kernel counts and cannot drop; unknown without a cgroup limit */
  struct nx_reading pressure_bp; /* PSI some avg10, hundredths of a percent */
};

#define NX_DECIDE_LOOKS 4 /* an excess that did not last so many looks is a race between two counters */

/* What is remembered from look to look; zeroed at first. */
struct nx_decider {
  enum nx_governor_state state;
  uint64_t since_ns;
  uint64_t excess_bytes[NX_DECIDE_LOOKS];
  unsigned next;
};

struct nx_decision {
  enum nx_governor_state state;
  uint64_t budget_bytes;      /* what may be charged in all */
  uint64_t unaccounted_bytes; /* used but not charged, for some looks now */
  uint64_t give_back_bytes;   /* wanted from reclaimers; 0: nothing */
};

void nx_decide(struct nx_decider *decider, const struct nx_view *view, struct nx_decision *out);

#endif
