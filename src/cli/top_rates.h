/* SPDX-License-Identifier: Apache-2.0
 *
 * What happened between two looks at the metrics: increases of counters, by label, and quantiles of histograms.
 *
 * Ownership: all is borrowed; keys of groups live as long as the later set.
 * Threads:   any; no state.
 * Errors:    NaN is "cannot be said": there is no earlier look, it does not have the family, or a counter went back. A series
 *            that the earlier look did not have in a family that was there began at 0, as nexus has it.
 * Limits:    of the bounds of a histogram, the first NX_TOP_BUCKETS_MAX. */
#ifndef NX_CLI_TOP_RATES_H
#define NX_CLI_TOP_RATES_H

#include "cli/top_metrics.h"

enum { NX_TOP_BUCKETS_MAX = 64 };

struct nx_top_span {
  const struct nx_top_metrics *now, *before; /* before NULL: only one look, or the process was another */
  double seconds;                            /* between the two; more than 0 when there are two */
};

/* Looks of different processes have no span: `before` becomes NULL. */
struct nx_top_span nx_top_span_of(const struct nx_top_metrics *now, const struct nx_top_metrics *before, double seconds);

/* Of all samples of that name together. */
double nx_top_increase(const struct nx_top_span *span, const char *name);

struct nx_top_group {
  const char *key; /* not to be trusted with a terminal */
  double increase;
  double failed;   /* of the increase, what has a label `status` that is neither success nor suspended */
};

/* The same by value of a label, largest first. Values past `max` are left out. */
size_t nx_top_increase_by(const struct nx_top_span *span, const char *name, const char *label,
                          struct nx_top_group *groups, size_t max);

/* Quantile `q` of what came into the histogram whose buckets have that name, interpolated in its bucket; NaN when nothing
 * came. In the last bucket, which has no end: the bound before it, and *beyond. */
double nx_top_quantile(const struct nx_top_span *span, const char *buckets, double q, bool *beyond);

#endif
