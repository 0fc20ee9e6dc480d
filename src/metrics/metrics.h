/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters and histograms of the process, and /metrics in Prometheus text format 0.0.4.
 *
 * Ownership: one set per process; nothing to create or destroy.
 * Threads:   any. Each thread counts in a slot of its own, made on first use, so counting takes no lock and shares no
 *            cache line; readers add the slots up. A slot outlives its thread and goes to the next new one: nothing is
 *            lost and nothing is ever reset. A thread for whose slot there is no memory counts in a common one.
 * Errors:    counting cannot fail. A text that does not fit shows in the buffer's `failed`.
 * Limits:    labels are bounded: NX_METRICS_HANDLERS_MAX handler names, everything else is enumerated in
 *            metrics_list.h. A slot is 12 KiB, of which only touched pages are resident. */
#ifndef NX_METRICS_METRICS_H
#define NX_METRICS_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/reading.h"
#include "memory/decide.h"
#include "memory/ledger.h"
#include "metrics/metrics_list.h"

enum nx_metrics_status {
#define X(symbol, label) NX_METRICS_STATUS_##symbol,
  NX_METRICS_STATUSES(X)
#undef X
  NX_METRICS_STATUS_COUNT
};
enum nx_metrics_route {
#define X(symbol, label) NX_METRICS_ROUTE_##symbol,
  NX_METRICS_ROUTES(X)
#undef X
  NX_METRICS_ROUTE_COUNT
};
enum nx_metrics_resume {
#define X(symbol, label) NX_METRICS_RESUME_##symbol,
  NX_METRICS_RESUME_OUTCOMES(X)
#undef X
  NX_METRICS_RESUME_COUNT
};
enum nx_metrics_store_failure {
#define X(symbol, label) NX_METRICS_STORE_##symbol,
  NX_METRICS_STORE_FAILURES(X)
#undef X
  NX_METRICS_STORE_FAILURE_COUNT
};
enum nx_metrics_reclaim {
#define X(symbol, label) NX_METRICS_RECLAIM_##symbol,
  NX_METRICS_RECLAIM_ACTIONS(X)
#undef X
  NX_METRICS_RECLAIM_COUNT
};
enum nx_metrics_health {
#define X(symbol, label) NX_METRICS_HEALTH_##symbol,
  NX_METRICS_HEALTHS(X)
#undef X
  NX_METRICS_HEALTH_COUNT
};

/* Handler labels */

enum {
  NX_METRICS_HANDLER_INLINE, /* code that came with the request */
  NX_METRICS_HANDLER_OTHER,  /* names past the limit, or not fit for a label */
  NX_METRICS_HANDLER_FIRST,
  NX_METRICS_HANDLERS_MAX = 100,
  NX_METRICS_HANDLER_LABELS = NX_METRICS_HANDLER_FIRST + NX_METRICS_HANDLERS_MAX
};

/* The label of a registered handler: the same for the same name, for ever, so a handler that is removed and comes back
 * goes on counting. OTHER when the table is full, and for names that are not ^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ or are
 * "inline" or "other" themselves. Takes a lock: call it once when a handler is registered and keep the number. */
unsigned nx_metrics_handler_label(const char *name);

/* Counting: hot paths, a few nanoseconds each */

/* `handler`: a label of nx_metrics_handler_label or NX_METRICS_HANDLER_INLINE. */
void nx_metrics_execution(unsigned handler, enum nx_metrics_status status, uint64_t duration_ns);
void nx_metrics_queue_wait(uint64_t wait_ns);
void nx_metrics_http(enum nx_metrics_route route, int code);
void nx_metrics_cache(bool hit);
void nx_metrics_suspension(void);
/* `duration_ns` is of RESUMED only. */
void nx_metrics_resume(enum nx_metrics_resume outcome, uint64_t duration_ns);
/* Once for each thing that the suspension store could not do, also for what nobody waits for. */
void nx_metrics_store_failed(enum nx_metrics_store_failure failure);
void nx_metrics_reclaimed(enum nx_metrics_reclaim action, uint64_t bytes);

/* Reading */

/* What /health needs. */
struct nx_metrics_totals {
  uint64_t executions;
  uint64_t errors; /* all but success and suspended */
  uint64_t by_status[NX_METRICS_STATUS_COUNT];
  uint64_t cache_hits, cache_misses;
  uint64_t suspensions, resumes;
  uint64_t execution_max_ns, queue_wait_max_ns, resume_max_ns; /* longest since the start */
};
void nx_metrics_totals(struct nx_metrics_totals *out);

/* What is not counted here but true at the moment of the scrape. */
struct nx_metrics_gauges {
  unsigned instances_active, instances_max;
  uint64_t suspended_executions, suspended_foreign, suspended_bytes;
  struct nx_ledger_snapshot ledger;
  uint64_t memory_unaccounted_bytes;
  enum nx_governor_state governor_state;
  struct nx_reading memory_limit_bytes;       /* unknown: left out; unlimited: +Inf */
  struct nx_reading memory_working_set_bytes; /* unknown: left out */
  struct nx_reading memory_pressure_bp;       /* hundredths of a percent; unknown: left out */
  uint64_t cache_size_bytes;
  uint64_t queue_depth, queue_timeout_ms;
  enum nx_metrics_health health;
  const char *version, *revision, *guest; /* borrowed; any text */
};

/* Appends all families: about 10 KiB, 150 KiB with every handler, status, route and code in use. Takes some 200 µs and
 * 12 KiB of stack. */
void nx_metrics_write(struct nx_buf *out, const struct nx_metrics_gauges *gauges);
#define NX_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* docs/metrics.md. 0, or -NX_ERR_SYSTEM when it could not be written. */
int nx_metrics_write_docs(FILE *out, struct nx_error *err);

#endif
