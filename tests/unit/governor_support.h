/* SPDX-License-Identifier: Apache-2.0
 * What the tests of the governor share: one on a ledger of its own, and somebody who gives back. */
#ifndef NX_TESTS_GOVERNOR_SUPPORT_H
#define NX_TESTS_GOVERNOR_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/clock.h"
#include "memory/governor.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct nx_ledger ledger;
static struct nx_governor *governor;

static inline void create(struct nx_governor_options options) {
  struct nx_error err;
  memset(&ledger, 0, sizeof ledger);
  options.ledger = &ledger;
  if (nx_governor_create(&governor, &options, &err)) fail_msg("%s", err.text);
}

static inline void create_simple(uint64_t limit_bytes, unsigned reserve_percent) {
  create((struct nx_governor_options){.limit_bytes = limit_bytes, .reserve_percent = reserve_percent});
}

/* Nothing may be left but what was measured. */
static inline void destroy(void) {
  static const enum nx_layer charged[] = {NX_LAYER_INSTANCES, NX_LAYER_HANDLERS, NX_LAYER_SUSPENDED, NX_LAYER_HTTP};
  for (size_t i = 0; i < sizeof charged / sizeof *charged; i++)
    assert_int_equal(nx_ledger_current(&ledger, charged[i]), 0);
  uint64_t measured = nx_ledger_current(&ledger, NX_LAYER_PROCESS) + nx_ledger_current(&ledger, NX_LAYER_KERNEL) +
                      nx_ledger_current(&ledger, NX_LAYER_CACHE);
  assert_int_equal(nx_ledger_total(&ledger), measured);
  nx_governor_destroy(governor);
  governor = NULL;
}

static inline uint64_t refusals(enum nx_layer layer) {
  struct nx_ledger_snapshot s;
  nx_ledger_snapshot(&ledger, &s);
  return s.layers[layer].refusals;
}

static inline void charge(enum nx_layer layer, uint64_t bytes) { assert_true(nx_ledger_charge(&ledger, layer, bytes)); }
static inline void release(enum nx_layer layer, uint64_t bytes) { nx_governor_release(governor, layer, bytes); }

static inline struct nx_governor_status status_now(void) {
  struct nx_governor_status status;
  nx_governor_read_status(governor, &status);
  return status;
}

/* Holds a charge of its own and gives it back when asked. */
struct hoard {
  uint64_t held;
  bool is_slow;      /* gives `step` and says that it is out of time */
  uint64_t step;
  unsigned calls, turn; /* turn: which of all calls the last one was */
  uint64_t wanted;
  int64_t time_ns;
};
static unsigned turns;

static inline enum nx_reclaim give_back(void *self, uint64_t want, uint64_t deadline_ns, uint64_t *freed) {
  struct hoard *h = self;
  h->calls++;
  h->turn = ++turns;
  h->wanted = want;
  h->time_ns = (int64_t)(deadline_ns - nx_clock_ns());
  uint64_t bytes = h->is_slow ? h->step : want;
  if (bytes > h->held) bytes = h->held;
  h->held -= bytes;
  release(NX_LAYER_SUSPENDED, bytes);
  *freed += bytes;
  if (h->is_slow && h->held) return NX_RECLAIM_MORE;
  return bytes >= want ? NX_RECLAIM_DONE : NX_RECLAIM_NOTHING;
}

#endif
