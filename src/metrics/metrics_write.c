/* SPDX-License-Identifier: Apache-2.0
 * Prometheus text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). */
#include <string.h>

#include "base/fs.h"
#include "metrics/metrics_internal.h"

static const struct { const char *name, *type, *labels, *help; } families[NX__FAMILY_COUNT] = {
#define X(symbol, name, type, labels, help) [NX__FAMILY_##symbol] = {name, type, labels, help},
  NX_METRIC_FAMILIES(X)
#undef X
};

#define X(symbol, label) label,
static const char *const statuses[] = {NX_METRICS_STATUSES(X)};
static const char *const routes[] = {NX_METRICS_ROUTES(X)};
static const char *const outcomes[] = {NX_METRICS_RESUME_OUTCOMES(X)};
static const char *const store_failures[] = {NX_METRICS_STORE_FAILURES(X)};
static const char *const actions[] = {NX_METRICS_RECLAIM_ACTIONS(X)};
static const char *const healths[] = {NX_METRICS_HEALTHS(X)};
#undef X

const char *nx__metrics_family_name(enum nx__family family) { return families[family].name; }

void nx__metrics_add_family(struct nx_buf *out, enum nx__family family) {
  nx_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", families[family].name, families[family].help,
                families[family].name, families[family].type);
}

/* A family with one sample and no label. */
static void add_single(struct nx_buf *out, enum nx__family family, uint64_t value) {
  nx__metrics_add_family(out, family);
  nx_buf_printf(out, "%s %llu\n", families[family].name, (unsigned long long)value);
}

/* name{label="value"} number, where value is one of ours and needs no escape. */
static void add_labelled(struct nx_buf *out, enum nx__family family, const char *value, uint64_t number) {
  nx_buf_printf(out, "%s{%s=\"%s\"} %llu\n", families[family].name, families[family].labels, value,
                (unsigned long long)number);
}

static void add_reading(struct nx_buf *out, enum nx__family family, struct nx_reading reading) {
  if (nx_reading_is_value(reading)) {
    add_single(out, family, reading.value);
  } else if (reading.kind == NX_READING_UNLIMITED) {
    nx__metrics_add_family(out, family);
    nx_buf_printf(out, "%s +Inf\n", families[family].name);
  }
}

/* Success and error of a known handler are there from the start, so that a first error is an increase; the other
 * series appear with their first count. */
static void add_executions(struct nx_buf *out, const uint64_t *cells) {
  nx__metrics_add_family(out, NX__FAMILY_EXECUTIONS);
  for (unsigned label = 0; label < NX_METRICS_HANDLER_LABELS; label++) {
    const char *name = nx__metrics_handler_name(label);
    if (!name) break;
    for (size_t status = 0; status < NX_METRICS_STATUS_COUNT; status++) {
      uint64_t n = cells[NX__CELL_EXECUTIONS + label * NX_METRICS_STATUS_COUNT + status];
      bool always = label != NX_METRICS_HANDLER_OTHER && status <= NX_METRICS_STATUS_ERROR;
      if (!n && !always) continue;
      nx_buf_printf(out, "%s{handler=\"%s\",status=\"%s\"} %llu\n", families[NX__FAMILY_EXECUTIONS].name, name,
                    statuses[status], (unsigned long long)n);
    }
  }
}

static void add_http(struct nx_buf *out, const uint64_t *cells) {
  nx__metrics_add_family(out, NX__FAMILY_HTTP_REQUESTS);
  for (size_t route = 0; route < NX_METRICS_ROUTE_COUNT; route++)
    for (size_t code = 0; code < NX__CODES; code++) {
      uint64_t n = cells[NX__CELL_HTTP + route * NX__CODES + code];
      bool always = route == NX_METRICS_ROUTE_EXECUTE && nx__metrics_codes[code] == 200;
      if (!n && !always) continue;
      nx_buf_printf(out, "%s{route=\"%s\",code=\"", families[NX__FAMILY_HTTP_REQUESTS].name, routes[route]);
      if (nx__metrics_codes[code])
        nx_buf_u64(out, nx__metrics_codes[code]);
      else
        nx_buf_lit(out, "other");
      nx_buf_printf(out, "\"} %llu\n", (unsigned long long)n);
    }
}

static void add_histogram(struct nx_buf *out, enum nx__family family, enum nx__histogram histogram,
                          const uint64_t *all_cells) {
  static const char *const bounds[] = {
#define X(ns, text) text,
    NX_METRICS_BUCKETS(X)
#undef X
    "+Inf"};
  const uint64_t *cells = all_cells + NX__CELL_HISTOGRAMS + (size_t)histogram * NX__HISTOGRAM_CELLS;
  const char *name = families[family].name;
  uint64_t count = 0, sum_ns = cells[NX__BUCKETS + 1];
  nx__metrics_add_family(out, family);
  for (size_t i = 0; i <= NX__BUCKETS; i++) {
    count += cells[i];
    nx_buf_printf(out, "%s_bucket{le=\"%s\"} %llu\n", name, bounds[i], (unsigned long long)count);
  }
  nx_buf_printf(out, "%s_sum %llu.%09llu\n%s_count %llu\n", name, (unsigned long long)(sum_ns / 1000000000),
                (unsigned long long)(sum_ns % 1000000000), name, (unsigned long long)count);
}

static void add_memory(struct nx_buf *out, const struct nx_metrics_gauges *g, const uint64_t *cells) {
  nx__metrics_add_family(out, NX__FAMILY_MEMORY_USED);
  for (int i = 0; i < NX_LAYER_COUNT; i++)
    add_labelled(out, NX__FAMILY_MEMORY_USED, nx_layer_name((enum nx_layer)i), g->ledger.layers[i].current);
  add_single(out, NX__FAMILY_MEMORY_PEAK, g->ledger.peak);
  nx__metrics_add_family(out, NX__FAMILY_MEMORY_LAYER_PEAK);
  for (int i = 0; i < NX_LAYER_COUNT; i++)
    add_labelled(out, NX__FAMILY_MEMORY_LAYER_PEAK, nx_layer_name((enum nx_layer)i), g->ledger.layers[i].peak);
  add_single(out, NX__FAMILY_MEMORY_ACCOUNTED, g->ledger.total);
  add_single(out, NX__FAMILY_MEMORY_UNACCOUNTED, g->memory_unaccounted_bytes);
  add_reading(out, NX__FAMILY_MEMORY_LIMIT, g->memory_limit_bytes);
  add_single(out, NX__FAMILY_MEMORY_BUDGET, g->ledger.budget);
  add_reading(out, NX__FAMILY_MEMORY_WORKING_SET, g->memory_working_set_bytes);
  if (nx_reading_is_value(g->memory_pressure_bp)) {
    uint64_t bp = g->memory_pressure_bp.value;
    nx__metrics_add_family(out, NX__FAMILY_MEMORY_PRESSURE);
    nx_buf_printf(out, "%s %llu.%04llu\n", families[NX__FAMILY_MEMORY_PRESSURE].name,
                  (unsigned long long)(bp / 10000), (unsigned long long)(bp % 10000));
  }
  nx__metrics_add_family(out, NX__FAMILY_GOVERNOR_STATE);
  for (int i = 0; i < NX_GOVERNOR_STATE_COUNT; i++)
    add_labelled(out, NX__FAMILY_GOVERNOR_STATE, nx_governor_state_name((enum nx_governor_state)i),
                 i == (int)g->governor_state);
  nx__metrics_add_family(out, NX__FAMILY_MEMORY_REFUSALS);
  for (int i = 0; i < NX_LAYER_COUNT; i++)
    add_labelled(out, NX__FAMILY_MEMORY_REFUSALS, nx_layer_name((enum nx_layer)i), g->ledger.layers[i].refusals);
  nx__metrics_add_family(out, NX__FAMILY_MEMORY_RECLAIMED);
  for (size_t i = 0; i < NX_METRICS_RECLAIM_COUNT; i++)
    add_labelled(out, NX__FAMILY_MEMORY_RECLAIMED, actions[i], cells[NX__CELL_RECLAIMED + i]);
}

static void add_instances(struct nx_buf *out, const struct nx_metrics_gauges *g) {
  unsigned available = g->instances_max > g->instances_active ? g->instances_max - g->instances_active : 0;
  nx__metrics_add_family(out, NX__FAMILY_INSTANCES);
  add_labelled(out, NX__FAMILY_INSTANCES, "active", g->instances_active);
  add_labelled(out, NX__FAMILY_INSTANCES, "available", available);
  add_single(out, NX__FAMILY_INSTANCES_MAX, g->instances_max);
}

static void add_suspension(struct nx_buf *out, const struct nx_metrics_gauges *g, const uint64_t *cells) {
  add_single(out, NX__FAMILY_SUSPENDED, g->suspended_executions);
  add_single(out, NX__FAMILY_SUSPENDED_FOREIGN, g->suspended_foreign);
  add_single(out, NX__FAMILY_SUSPENDED_BYTES, g->suspended_bytes);
  add_single(out, NX__FAMILY_SUSPENSIONS, cells[NX__CELL_SUSPENSIONS]);
  nx__metrics_add_family(out, NX__FAMILY_RESUMES);
  for (size_t i = 0; i < NX_METRICS_RESUME_COUNT; i++)
    add_labelled(out, NX__FAMILY_RESUMES, outcomes[i], cells[NX__CELL_RESUMES + i]);
  add_histogram(out, NX__FAMILY_RESUME_DURATION, NX__HISTOGRAM_RESUME, cells);
  nx__metrics_add_family(out, NX__FAMILY_STORE_FAILURES);
  for (size_t i = 0; i < NX_METRICS_STORE_FAILURE_COUNT; i++)
    add_labelled(out, NX__FAMILY_STORE_FAILURES, store_failures[i], cells[NX__CELL_STORE_FAILURES + i]);
}

static void add_escaped(struct nx_buf *out, const char *text) {
  for (; text && *text; text++) {
    if (*text == '\\' || *text == '"') nx_buf_char(out, '\\');
    if (*text == '\n')
      nx_buf_lit(out, "\\n");
    else
      nx_buf_char(out, *text);
  }
}

static void add_identity(struct nx_buf *out, const struct nx_metrics_gauges *g) {
  nx__metrics_add_family(out, NX__FAMILY_HEALTH);
  for (size_t i = 0; i < NX_METRICS_HEALTH_COUNT; i++)
    add_labelled(out, NX__FAMILY_HEALTH, healths[i], i == (size_t)g->health);
  nx__metrics_add_family(out, NX__FAMILY_BUILD_INFO);
  nx_buf_printf(out, "%s{version=\"", families[NX__FAMILY_BUILD_INFO].name);
  add_escaped(out, g->version);
  nx_buf_lit(out, "\",revision=\"");
  add_escaped(out, g->revision);
  nx_buf_lit(out, "\",guest=\"");
  add_escaped(out, g->guest);
  nx_buf_lit(out, "\"} 1\n");
}

void nx_metrics_write(struct nx_buf *out, const struct nx_metrics_gauges *gauges) {
  uint64_t cells[NX__CELL_COUNT];
  nx__metrics_merge(cells);
  add_executions(out, cells);
  add_histogram(out, NX__FAMILY_EXECUTION_DURATION, NX__HISTOGRAM_EXECUTION, cells);
  add_instances(out, gauges);
  add_suspension(out, gauges, cells);
  add_memory(out, gauges, cells);
  add_single(out, NX__FAMILY_CACHE_HITS, cells[NX__CELL_CACHE_HITS]);
  add_single(out, NX__FAMILY_CACHE_MISSES, cells[NX__CELL_CACHE_MISSES]);
  add_single(out, NX__FAMILY_CACHE_SIZE, gauges->cache_size_bytes);
  add_http(out, cells);
  add_single(out, NX__FAMILY_QUEUE_DEPTH, gauges->queue_depth);
  add_histogram(out, NX__FAMILY_QUEUE_WAIT, NX__HISTOGRAM_QUEUE_WAIT, cells);
  nx__metrics_add_family(out, NX__FAMILY_QUEUE_TIMEOUT);
  nx_buf_printf(out, "%s %llu.%03llu\n", families[NX__FAMILY_QUEUE_TIMEOUT].name,
                (unsigned long long)(gauges->queue_timeout_ms / 1000), (unsigned long long)(gauges->queue_timeout_ms % 1000));
  add_identity(out, gauges);
  nx__metrics_add_process(out);
}

int nx_metrics_write_docs(FILE *file, struct nx_error *err) {
  NX_BUF_AUTO out = {0};
  nx_buf_lit(&out,
             "# Metrics\n"
             "\n"
             "<!-- Generated from src/metrics/metrics_list.h; do not edit. -->\n"
             "\n"
             "`GET /metrics` on PORT and ADMIN_PORT, Prometheus text format. Counters never go back while the process\n"
             "lives. At most 100 handler names become labels; the others count as `other`, code that came with the\n"
             "request as `inline`.\n"
             "\n"
             "| metric | type | labels | meaning |\n"
             "|---|---|---|---|\n");
  for (size_t i = 0; i < NX__FAMILY_COUNT; i++)
    nx_buf_printf(&out, "| `%s` | %s | %s | %s |\n", families[i].name, families[i].type, families[i].labels,
                  families[i].help);
  return nx_fs_print(file, &out, "the metrics page", err);
}
