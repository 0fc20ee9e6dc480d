/* SPDX-License-Identifier: Apache-2.0
 *
 * The ledger: every class of memory has a name, a current value and a peak, and their sum is bounded by the budget.
 * Charge before touch: who is refused does not allocate.
 *
 * Ownership: the caller owns the struct; a zeroed one is valid, with a budget of 0. Fields are private (`_`).
 * Threads:   any, without locks. Synchronization: atomics; `_total` is never less than the sum of the layers, so two
 *            charges that race can never pass the budget together.
 * Errors:    a refused charge is an ordinary answer, counted by layer. Releasing more than was charged is a bug that
 *            would break the promise not to be OOM-killed: it is logged and the process aborts.
 * Limits:    sums must stay below 2^64; a charge that would overflow is refused. */
#ifndef NX_MEMORY_LEDGER_H
#define NX_MEMORY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

/* X(symbol, name in metrics, /health and refusals) */
#define NX_LAYERS(X)          \
  X(PROCESS, "process")       \
  X(INSTANCES, "instances")   \
  X(HANDLERS, "handlers")     \
  X(SUSPENDED, "suspended")   \
  X(CACHE, "cache")           \
  X(HTTP, "http")             \
  X(KERNEL, "kernel")

enum nx_layer {
#define X(symbol, name) NX_LAYER_##symbol,
  NX_LAYERS(X)
#undef X
  NX_LAYER_COUNT
};

struct nx_ledger {
  /* What charges contend for, on a cache line of its own. */
  _Alignas(64) _Atomic uint64_t _total;
  _Atomic uint64_t _budget;
  _Atomic uint64_t _peak;
  struct {
    _Alignas(64) _Atomic uint64_t current;
    _Atomic uint64_t peak;
    _Atomic uint64_t refusals;
  } _layers[NX_LAYER_COUNT];
};

const char *nx_layer_name(enum nx_layer layer);

/* May be lowered below what is in use: then every charge is refused until enough was released. */
void nx_ledger_set_budget(struct nx_ledger *ledger, uint64_t bytes);

/* Takes `bytes`; false, with nothing taken, when the sum would pass the budget. 0 bytes always succeed. */
bool nx_ledger_charge(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes)
  __attribute__((warn_unused_result));
/* The same, but refused as well when less than `spare_bytes` of the budget would be left for others. */
bool nx_ledger_charge_sparing(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes, uint64_t spare_bytes)
  __attribute__((warn_unused_result));
void nx_ledger_release(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes);
/* For layers that are measured (process, cache, kernel): the value is what it is, and never refused. A layer is either
 * set or charged; setting one that others charge would lose their charges. */
void nx_ledger_set(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes);

/* A refusal that was decided before it came to a charge (a full queue). */
void nx_ledger_count_refusal(struct nx_ledger *ledger, enum nx_layer layer);
uint64_t nx_ledger_current(const struct nx_ledger *ledger, enum nx_layer layer);
uint64_t nx_ledger_total(const struct nx_ledger *ledger);
uint64_t nx_ledger_budget(const struct nx_ledger *ledger);
/* What could be charged now; by the time it is, less or more. */
uint64_t nx_ledger_available(const struct nx_ledger *ledger);

struct nx_ledger_snapshot {
  uint64_t budget, total, peak; /* bytes */
  struct {
    uint64_t current, peak; /* bytes */
    uint64_t refusals;      /* charges refused since the start */
  } layers[NX_LAYER_COUNT];
};

/* Each number is right by itself; together they may be of slightly different moments. */
void nx_ledger_snapshot(const struct nx_ledger *ledger, struct nx_ledger_snapshot *out);

#endif
