/* SPDX-License-Identifier: Apache-2.0
 * Order that keeps `_total` ≥ sum of the layers: growth is added to the total first, shrinking is taken from it last.
 * All operations are relaxed: the numbers guard no other data, and each is one atomic variable. */
#include "memory/ledger.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

const char *nx_layer_name(enum nx_layer layer) {
  static const char *const names[] = {
#define X(symbol, name) [NX_LAYER_##symbol] = name,
    NX_LAYERS(X)
#undef X
  };
  return names[layer];
}

static uint64_t load(const _Atomic uint64_t *value) { return atomic_load_explicit(value, memory_order_relaxed); }

static void add(_Atomic uint64_t *value, uint64_t bytes) {
  atomic_fetch_add_explicit(value, bytes, memory_order_relaxed);
}

static bool swap(_Atomic uint64_t *value, uint64_t *expected, uint64_t desired) {
  return atomic_compare_exchange_weak_explicit(value, expected, desired, memory_order_relaxed, memory_order_relaxed);
}

static void raise_peak(_Atomic uint64_t *peak, uint64_t value) {
  uint64_t seen = load(peak);
  while (seen < value && !swap(peak, &seen, value)) continue;
}

static _Noreturn void released_too_much(enum nx_layer layer, uint64_t bytes, uint64_t charged) {
  char had[24], released[24];
  snprintf(had, sizeof had, "%llu", (unsigned long long)charged);
  snprintf(released, sizeof released, "%llu", (unsigned long long)bytes);
  nx_log(NX_LOG_ERROR, "bug: more memory released than charged", "layer", nx_layer_name(layer), "chargedBytes", had,
         "releasedBytes", released, NULL);
  abort();
}

/* Takes bytes from a sum that must have them. */
static void take(_Atomic uint64_t *sum, enum nx_layer layer, uint64_t bytes) {
  uint64_t before = atomic_fetch_sub_explicit(sum, bytes, memory_order_relaxed);
  if (before < bytes) released_too_much(layer, bytes, before);
}

void nx_ledger_set_budget(struct nx_ledger *ledger, uint64_t bytes) {
  atomic_store_explicit(&ledger->_budget, bytes, memory_order_relaxed);
}

bool nx_ledger_charge(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes) {
  return nx_ledger_charge_sparing(ledger, layer, bytes, 0);
}

bool nx_ledger_charge_sparing(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes, uint64_t spare_bytes) {
  if (!bytes) return true;
  uint64_t budget = load(&ledger->_budget), total = load(&ledger->_total), sum;
  budget = budget > spare_bytes ? budget - spare_bytes : 0;
  do {
    if (__builtin_add_overflow(total, bytes, &sum) || sum > budget) {
      add(&ledger->_layers[layer].refusals, 1);
      return false;
    }
  } while (!swap(&ledger->_total, &total, sum));
  raise_peak(&ledger->_peak, sum);
  uint64_t before = atomic_fetch_add_explicit(&ledger->_layers[layer].current, bytes, memory_order_relaxed);
  raise_peak(&ledger->_layers[layer].peak, before + bytes);
  return true;
}

void nx_ledger_release(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes) {
  take(&ledger->_layers[layer].current, layer, bytes);
  take(&ledger->_total, layer, bytes);
}

void nx_ledger_set(struct nx_ledger *ledger, enum nx_layer layer, uint64_t bytes) {
  _Atomic uint64_t *current = &ledger->_layers[layer].current;
  uint64_t before = load(current);
  for (;;) {
    uint64_t growth = bytes > before ? bytes - before : 0;
    uint64_t total = atomic_fetch_add_explicit(&ledger->_total, growth, memory_order_relaxed) + growth;
    bool done = swap(current, &before, bytes);
    if (done) {
      if (before > bytes) take(&ledger->_total, layer, before - bytes);
      if (growth) raise_peak(&ledger->_peak, total);
      break;
    }
    take(&ledger->_total, layer, growth); /* another thread set it meanwhile, or the swap failed for nothing */
  }
  raise_peak(&ledger->_layers[layer].peak, bytes);
}

uint64_t nx_ledger_budget(const struct nx_ledger *ledger) { return load(&ledger->_budget); }

uint64_t nx_ledger_available(const struct nx_ledger *ledger) {
  uint64_t budget = load(&ledger->_budget), total = load(&ledger->_total);
  return budget > total ? budget - total : 0;
}

void nx_ledger_snapshot(const struct nx_ledger *ledger, struct nx_ledger_snapshot *out) {
  out->budget = load(&ledger->_budget);
  out->total = load(&ledger->_total);
  out->peak = load(&ledger->_peak);
  for (int i = 0; i < NX_LAYER_COUNT; i++) {
    out->layers[i].current = load(&ledger->_layers[i].current);
    out->layers[i].peak = load(&ledger->_layers[i].peak);
    out->layers[i].refusals = load(&ledger->_layers[i].refusals);
  }
}

void nx_ledger_count_refusal(struct nx_ledger *ledger, enum nx_layer layer) {
  atomic_fetch_add_explicit(&ledger->_layers[layer].refusals, 1, memory_order_relaxed);
}

uint64_t nx_ledger_current(const struct nx_ledger *ledger, enum nx_layer layer) {
  return atomic_load_explicit(&ledger->_layers[layer].current, memory_order_relaxed);
}

uint64_t nx_ledger_total(const struct nx_ledger *ledger) {
  return atomic_load_explicit(&ledger->_total, memory_order_relaxed);
}
