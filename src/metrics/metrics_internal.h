/* SPDX-License-Identifier: Apache-2.0
 * Shared by the files of this module: the cells of a slot, and what is written. */
#ifndef NX_METRICS_INTERNAL_H
#define NX_METRICS_INTERNAL_H

#include "metrics/metrics.h"

enum nx__family {
#define X(symbol, ...) NX__FAMILY_##symbol,
  NX_METRIC_FAMILIES(X)
#undef X
  NX__FAMILY_COUNT
};

enum nx__histogram { NX__HISTOGRAM_EXECUTION, NX__HISTOGRAM_QUEUE_WAIT, NX__HISTOGRAM_RESUME, NX__HISTOGRAM_COUNT };

enum {
#define X(ns, text) +1
  NX__BUCKETS = 0 NX_METRICS_BUCKETS(X), /* without +Inf */
#undef X
#define X(code) +1
  NX__CODES = 0 NX_METRICS_CODES(X) + 1, /* with "other", the last */
#undef X
};

/* Where each counter is in a slot. */
enum {
  NX__CELL_EXECUTIONS = 0, /* [label][status] */
  NX__CELL_HTTP = NX__CELL_EXECUTIONS + NX_METRICS_HANDLER_LABELS * NX_METRICS_STATUS_COUNT, /* [route][code] */
  NX__CELL_HISTOGRAMS = NX__CELL_HTTP + NX_METRICS_ROUTE_COUNT * NX__CODES, /* [histogram][buckets, +Inf, sum of ns] */
  NX__HISTOGRAM_CELLS = NX__BUCKETS + 2,
  NX__CELL_CACHE_HITS = NX__CELL_HISTOGRAMS + NX__HISTOGRAM_COUNT * NX__HISTOGRAM_CELLS,
  NX__CELL_CACHE_MISSES,
  NX__CELL_SUSPENSIONS,
  NX__CELL_RESUMES,
  NX__CELL_STORE_FAILURES = NX__CELL_RESUMES + NX_METRICS_RESUME_COUNT,
  NX__CELL_RECLAIMED = NX__CELL_STORE_FAILURES + NX_METRICS_STORE_FAILURE_COUNT,
  NX__CELL_COUNT = NX__CELL_RECLAIMED + NX_METRICS_RECLAIM_COUNT
};

extern const uint16_t nx__metrics_codes[NX__CODES]; /* 0: other */

/* All slots added up. */
void nx__metrics_merge(uint64_t cells[NX__CELL_COUNT]);
/* The name behind a label; NULL for one that was not given out. Valid for ever. */
const char *nx__metrics_handler_name(unsigned label);

/* "# HELP …" and "# TYPE …". */
void nx__metrics_add_family(struct nx_buf *out, enum nx__family family);
const char *nx__metrics_family_name(enum nx__family family);
/* The process_* families; what cannot be read is left out. */
void nx__metrics_add_process(struct nx_buf *out);
/* Field 22 of /proc/PID/stat, in clock ticks since boot; false when the text is not of that form. */
bool nx__metrics_parse_start_ticks(const char *stat, uint64_t *ticks);

#endif
