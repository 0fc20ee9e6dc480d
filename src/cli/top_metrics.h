/* SPDX-License-Identifier: Apache-2.0
 *
 * Reader of the Prometheus text format 0.0.4, for `nexus top`. The text is not trusted: a name is made of the letters of
 * the format, a label value may be any text without NUL, and a number any double, NaN and infinities included.
 *
 * Ownership: a parsed set owns a copy of its text; samples and strings are borrowed from it until nx_top_metrics_deinit.
 * Threads:   plain data.
 * Errors:    one line that is not of the format, the last one without its line feed among them, refuses the whole text:
 *            -NX_ERR_INVALID with the number of the line, never with what stands there. -NX_ERR_TOO_LARGE, NO_MEMORY.
 * Limits:    NX_TOP_SAMPLES_MAX samples of NX_TOP_LABELS_MAX labels. nexus has at most some 1500, of 3. */
#ifndef NX_CLI_TOP_METRICS_H
#define NX_CLI_TOP_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { NX_TOP_LABELS_MAX = 4, NX_TOP_SAMPLES_MAX = 4096 };

struct nx_top_label { const char *name, *value; };

struct nx_top_sample {
  const char *name;
  double value;
  unsigned label_count;
  struct nx_top_label labels[NX_TOP_LABELS_MAX];
};

struct nx_top_metrics {
  struct nx_top_sample *samples; /* by name; those of one name in the order of the text */
  size_t count;
  char *_text;
};

/* A zeroed set is empty. On failure `out` is empty. */
int nx_top_metrics_parse(struct nx_top_metrics *out, const char *text, size_t bytes, struct nx_error *err);
void nx_top_metrics_deinit(struct nx_top_metrics *metrics);

/* All samples of that name; NULL and 0 when there are none. */
const struct nx_top_sample *nx_top_metrics_find(const struct nx_top_metrics *metrics, const char *name, size_t *count);
/* The first sample of that name, with that value of the label unless `label` is NULL. NaN when there is none. */
double nx_top_metrics_value(const struct nx_top_metrics *metrics, const char *name, const char *label, const char *value);
/* The sample of the same name and labels; NULL when there is none. */
const struct nx_top_sample *nx_top_metrics_same(const struct nx_top_metrics *metrics, const struct nx_top_sample *sample);
/* NULL when the sample has no such label. */
const char *nx_top_sample_label(const struct nx_top_sample *sample, const char *name);

#endif
