/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/top_rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct nx_top_span nx_top_span_of(const struct nx_top_metrics *now, const struct nx_top_metrics *before, double seconds) {
  static const char start[] = "process_start_time_seconds";
  struct nx_top_span span = {.now = now, .seconds = seconds};
  if (!now || !before || !(seconds > 0)) return span;
  double now_s = nx_top_metrics_value(now, start, NULL, NULL), before_s = nx_top_metrics_value(before, start, NULL, NULL);
  bool other_process = !isnan(now_s) && !isnan(before_s) && now_s != before_s;
  if (!other_process) span.before = before;
  return span;
}

static double increase_of(const struct nx_top_span *span, const struct nx_top_sample *sample) {
  size_t count;
  if (!span->before || !nx_top_metrics_find(span->before, sample->name, &count)) return NAN;
  const struct nx_top_sample *earlier = nx_top_metrics_same(span->before, sample);
  double increase = sample->value - (earlier ? earlier->value : 0);
  return isfinite(increase) && increase >= 0 ? increase : NAN;
}

double nx_top_increase(const struct nx_top_span *span, const char *name) {
  size_t count;
  const struct nx_top_sample *samples = nx_top_metrics_find(span->now, name, &count);
  double sum = count ? 0 : NAN;
  for (size_t i = 0; i < count; i++) sum += increase_of(span, &samples[i]);
  return sum;
}

/* ---- By label ---------------------------------------------------------------------------------------------------- */

static struct nx_top_group *find_group(struct nx_top_group *groups, size_t *count, size_t max, const char *key) {
  for (size_t i = 0; i < *count; i++)
    if (!strcmp(groups[i].key, key)) return &groups[i];
  if (*count == max) return NULL;
  groups[*count] = (struct nx_top_group){.key = key};
  return &groups[(*count)++];
}

static bool has_failed(const struct nx_top_sample *sample) {
  const char *status = nx_top_sample_label(sample, "status");
  return status && strcmp(status, "success") && strcmp(status, "suspended");
}

/* What cannot be said goes last, so that the order is one. */
static int largest_first(const void *a, const void *b) {
  const struct nx_top_group *x = a, *y = b;
  double left = isnan(x->increase) ? -1 : x->increase, right = isnan(y->increase) ? -1 : y->increase;
  return left != right ? (left < right) - (left > right) : strcmp(x->key, y->key);
}

size_t nx_top_increase_by(const struct nx_top_span *span, const char *name, const char *label,
                          struct nx_top_group *groups, size_t max) {
  size_t count, found = 0;
  const struct nx_top_sample *samples = nx_top_metrics_find(span->now, name, &count);
  for (size_t i = 0; i < count; i++) {
    const char *key = nx_top_sample_label(&samples[i], label);
    struct nx_top_group *group = key ? find_group(groups, &found, max, key) : NULL;
    if (!group) continue;
    double increase = increase_of(span, &samples[i]);
    group->increase += increase;
    if (has_failed(&samples[i])) group->failed += increase;
  }
  qsort(groups, found, sizeof *groups, largest_first);
  return found;
}

/* ---- Histograms -------------------------------------------------------------------------------------------------- */

struct bucket { double bound, count; }; /* count of what is not above the bound */

static int by_bound(const void *a, const void *b) {
  const struct bucket *x = a, *y = b;
  return (x->bound > y->bound) - (x->bound < y->bound);
}

static size_t take_buckets(const struct nx_top_span *span, const char *name, struct bucket *buckets) {
  size_t count, taken = 0;
  const struct nx_top_sample *samples = nx_top_metrics_find(span->now, name, &count);
  for (size_t i = 0; i < count && taken < NX_TOP_BUCKETS_MAX; i++) {
    const char *bound = nx_top_sample_label(&samples[i], "le");
    double increase = increase_of(span, &samples[i]);
    if (!bound || isnan(strtod(bound, NULL)) || isnan(increase)) continue;
    buckets[taken++] = (struct bucket){strtod(bound, NULL), increase};
  }
  qsort(buckets, taken, sizeof *buckets, by_bound);
  return taken;
}

double nx_top_quantile(const struct nx_top_span *span, const char *name, double q, bool *beyond) {
  struct bucket buckets[NX_TOP_BUCKETS_MAX];
  size_t count = take_buckets(span, name, buckets);
  double all = count ? buckets[count - 1].count : 0, below = 0, begin = 0;
  *beyond = false;
  for (size_t i = 0; i < count && all > 0; i++) {
    if (buckets[i].count >= q * all && buckets[i].count > below) {
      *beyond = isinf(buckets[i].bound);
      if (*beyond) return begin;
      return begin + (buckets[i].bound - begin) * (q * all - below) / (buckets[i].count - below);
    }
    begin = buckets[i].bound;
    if (buckets[i].count > below) below = buckets[i].count;
  }
  return NAN;
}
