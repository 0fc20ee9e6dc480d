/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_print.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"

static unsigned long long ull(uint64_t value) { return value; }

/* ---- Lines of text --------------------------------------------------------------------------------------------------- */

/* What a terminal shows of UTF-8: everything but continuation bytes. */
static size_t columns(const char *text, size_t bytes) {
  size_t count = 0;
  for (size_t i = 0; i < bytes; i++) count += ((unsigned char)text[i] & 0xc0) != 0x80;
  return count;
}

/* Names and values of manifests reach a terminal: without what it would obey (C0, DEL, C1). */
static void add_visible(struct nx_buf *out, const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    unsigned char c = (unsigned char)text[i], next = i + 1 < bytes ? (unsigned char)text[i + 1] : 0;
    bool obeyed = c < ' ' || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0);
    nx_buf_char(out, obeyed ? '?' : (char)c);
  }
}

/* `head`, blanks up to `indent`, then words broken before column 80, with `indent` blanks before each further line. */
static void add_words(struct nx_buf *out, const char *head, int indent, const char *words) {
  nx_buf_printf(out, "%-*s", indent, head);
  size_t start = (size_t)indent, column = strlen(head) > start ? strlen(head) : start;
  bool first = true;
  for (const char *word = words; *word; first = false) {
    size_t bytes = strcspn(word, " "), width = columns(word, bytes);
    if (!first && column + 1 + width > 80) {
      nx_buf_printf(out, "\n%*s", indent, "");
      column = start;
    } else if (!first) {
      nx_buf_char(out, ' ');
      column++;
    }
    add_visible(out, word, bytes);
    column += width;
    word += bytes + (word[bytes] == ' ');
  }
  nx_buf_char(out, '\n');
}

static void add_wrapped(struct nx_buf *out, const char *head, int indent, const char *format, ...)
  __attribute__((format(printf, 4, 5)));
static void add_wrapped(struct nx_buf *out, const char *head, int indent, const char *format, ...) {
  char words[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  add_words(out, head, indent, words);
}

/* A line of the table; `format` is a remark. */
static void add_size(struct nx_buf *out, const char *what, uint64_t bytes, const char *format, ...)
  __attribute__((format(printf, 4, 5)));
static void add_size(struct nx_buf *out, const char *what, uint64_t bytes, const char *format, ...) {
  char head[64], note[200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(note, sizeof note, format, arguments);
  va_end(arguments);
  snprintf(head, sizeof head, "  %-20s %9.1f%s", what, nx_in_mib(bytes), note[0] ? "  " : "");
  add_words(out, head, note[0] ? 34 : 0, note);
}

/* ---- Text ------------------------------------------------------------------------------------------------------------ */

static void print_limit(const struct nx_plan_input *in, struct nx_buf *out) {
  struct nx_reading limit = in->container_limit_bytes;
  uint64_t bytes = in->fit.limit_bytes;
  if (limit.kind == NX_READING_UNLIMITED)
    add_size(out, "limit", bytes, "none: the machine's memory");
  else if (limit.kind == NX_READING_UNKNOWN)
    add_size(out, "limit", bytes, "unknown: the machine's memory");
  else if (limit.value != bytes)
    add_size(out, "limit", bytes, "CONTAINER_MEMORY_LIMIT, of %.1f", nx_in_mib(limit.value));
  else
    add_size(out, "limit", bytes, "of the container");
}

static void print_budget(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  const struct nx_config_fit *fit = &in->fit;
  nx_buf_lit(out, "\nbudget                       MiB\n");
  print_limit(in, out);
  add_size(out, "- reserve", plan->reserve_bytes, "%u %%, never given out", fit->reserve_percent);
  add_size(out, "- process", fit->process_bytes, "estimate: text, heap, threads");
  add_size(out, "- cache", fit->cache_bytes, "CACHE_MAX_MB; a tmpfs is memory");
  add_size(out, "= left", plan->left_bytes, "shared by what follows, as it comes");
  add_size(out, "one instance", plan->instance_bytes, "%.1f + native stack %.1f + page tables %.1f",
           nx_in_mib(fit->memory_bytes), nx_in_mib(fit->native_stack_bytes), nx_in_mib(fit->page_tables_bytes));
  add_size(out, "connections, up to", plan->connections_bytes, "%u x %llu KiB of socket buffers", in->max_connections,
           ull(in->connection_bytes / 1024));
  add_size(out, "suspended, up to", plan->suspended_bytes, "SUSPEND_MAX_MB");
}

static void print_instances(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  nx_buf_printf(out, "\ninstances: MAX_INSTANCES %u\n  %llu fit fully grown, %llu beside all connections\n",
                in->max_instances, ull(plan->instances_fit), ull(plan->instances_beside_connections));
  if (plan->fits)
    nx_buf_printf(out, "  over-commit begins at %llu; it is safe: the ledger refuses growth in time\n",
                  ull(plan->instances_fit + 1));
  add_size(out, "working set, idle", plan->idle_bytes, "process and a full cache");
  add_size(out, "all fully grown", plan->loaded_bytes, "%u instance%s; never above %.1f", in->max_instances,
           in->max_instances == 1 ? "" : "s", nx_in_mib(plan->budget_bytes));
}

static void print_scale_in(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  unsigned percent = in->autoscaler_percent, first = in->pods_min + 1;
  char what[40], more[40] = "", last[40] = "";
  if (first > in->pods_max) return;
  snprintf(what, sizeof what, "%u to %u pods at", first, first - 1);
  if (first + 1 < in->pods_max)
    snprintf(more, sizeof more, ", %u to %u: %.1f", first + 1, first,
             nx_in_mib(nx_plan_scale_in_bytes(plan->request_bytes, percent, first + 1)));
  if (first < in->pods_max)
    snprintf(last, sizeof last, ", %u to %u: %.1f", in->pods_max, in->pods_max - 1,
             nx_in_mib(nx_plan_scale_in_bytes(plan->request_bytes, percent, in->pods_max)));
  add_size(out, what, nx_plan_scale_in_bytes(plan->request_bytes, percent, first), "or less%s%s", more, last);
}

static const char *why_no_autoscaler(const struct nx_plan_report *report) {
  if (report->input->request_is_known && report->input->autoscaler_percent) return "none; it needs a memory request";
  return report->manifest ? "none on memory" : "not planned; give --request";
}

static void print_autoscaler(const struct nx_plan_report *report, struct nx_buf *out) {
  const struct nx_plan_input *in = report->input;
  const struct nx_plan *plan = report->plan;
  if (!plan->autoscales) {
    nx_buf_printf(out, "\nautoscaler: %s\n", why_no_autoscaler(report));
    return;
  }
  nx_buf_printf(out, "\nautoscaler: %u %% of the request of %.1f MiB%s, %u to %u pods\n", in->autoscaler_percent,
                nx_in_mib(plan->request_bytes), in->request_bytes ? "" : " (= limit)", in->pods_min, in->pods_max);
  add_size(out, "target", plan->target_bytes, "it wants ceil(pods x average / target) pods");
  add_size(out, "adds a pod above", plan->add_above_bytes, "tolerance of %u %%", NX_PLAN_TOLERANCE_PERCENT);
  print_scale_in(in, plan, out);
  add_size(out, "without load", plan->idle_bytes, "comes to %u pod%s", plan->idle_pods,
           plan->idle_pods == 1 ? "" : "s");
}

static void print_qos(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  double request = nx_in_mib(plan->request_bytes), loaded = nx_in_mib(plan->loaded_bytes), idle = nx_in_mib(plan->idle_bytes);
  const char *qos = nx_plan_qos_name(plan->qos);
  if (!qos) {
    nx_buf_lit(out, "  QoS and eviction follow from the memory request: give --request\n");
    return;
  }
  nx_buf_printf(out, "  QoS %s, %s\n", qos, in->pod_qos != NX_PLAN_QOS_UNKNOWN
                  ? "by memory and CPU of all containers" : "by memory alone (CPU requests and limits count as well)");
  if (plan->qos == NX_PLAN_GUARANTEED)
    add_wrapped(out, "", 2, "Never above its request of %.1f: evicted last when the node is short of memory.", request);
  else if (plan->qos == NX_PLAN_BEST_EFFORT)
    add_wrapped(out, "", 2, "Any use is above its request: evicted first when the node is short of memory.");
  else if (plan->loaded_bytes <= plan->request_bytes)
    add_wrapped(out, "", 2, "Pods above their request are evicted first; %s%u instances grown, this one is %.1f below.",
                in->max_instances == 1 ? "" : "all ", in->max_instances, request - loaded);
  else if (plan->idle_bytes <= plan->request_bytes)
    add_wrapped(out, "", 2, "Pods above their request are evicted first when the node is short of memory: all grown, "
                "this one is %.1f above; idle, %.1f below, and evicted later.", loaded - request, request - idle);
  else
    add_wrapped(out, "", 2, "Pods above their request are evicted first when the node is short of memory: all grown, "
                "this one is %.1f above, and idle still %.1f.", loaded - request, idle - request);
}

static void print_node(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  nx_buf_lit(out, "\nalert and eviction\n");
  if (plan->alert_bytes) add_size(out, "alert above", plan->alert_bytes, "%u %% of the limit", in->alert_percent);
  print_qos(in, plan, out);
}

/* ---- The manifest and the findings ----------------------------------------------------------------------------------- */

static void print_sources(const struct nx_manifest *m, struct nx_buf *out) {
  add_wrapped(out, "manifest: ", 10, "%s", m->file);
  for (const struct nx_manifest_source *source = m->sources; source; source = source->next) {
    char where[24] = "  not there";
    if (source->is_there) snprintf(where, sizeof where, "  line %u", source->place.line);
    add_wrapped(out, where, 13, "%s %s/%s: %s", source->kind, source->ns, source->name, source->use);
  }
}

static void print_findings(const struct nx_plan_report *report, struct nx_buf *out) {
  bool safe = report->plan && report->plan->verdict == NX_PLAN_OVER_COMMITTED &&
              !strcmp(report->verdict, nx_plan_finding_name(NX_PLAN_OVER_COMMITTED));
  nx_buf_printf(out, "verdict: %s%s\n", report->verdict, safe ? " (safe)" : "");
  for (size_t i = 0; i < report->findings->count; i++) {
    const struct nx_finding *f = &report->findings->items[i];
    const char *severity = report->manifest ? nx_severity_name(f->severity) : "";
    add_wrapped(out, "  -", 4, "%s%s%s: %s.", severity, *severity ? ": " : "", f->name, f->message);
    if (f->advice[0]) add_wrapped(out, "", 4, "Change: %s", f->advice);
  }
  if (report->findings->left_out) nx_buf_printf(out, "  - and %zu more\n", report->findings->left_out);
}

static void print_text(const struct nx_plan_report *report, struct nx_buf *out) {
  const struct nx_plan_input *input = report->input;
  const struct nx_plan *plan = report->plan;
  if (report->manifest) print_sources(report->manifest, out);
  print_findings(report, out);
  if (!plan) return;
  print_budget(input, plan, out);
  print_instances(input, plan, out);
  print_autoscaler(report, out);
  print_node(input, plan, out);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------ */

static void add_or_null(struct nx_buf *out, const char *name, bool is_there, uint64_t value) {
  if (is_there)
    nx_buf_printf(out, "\"%s\":%llu,", name, ull(value));
  else
    nx_buf_printf(out, "\"%s\":null,", name);
}

static void json_budget(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  static const char *const limits[] = {
    [NX_READING_UNKNOWN] = "unknown", [NX_READING_UNLIMITED] = "unlimited", [NX_READING_VALUE] = "limited"};
  const struct nx_config_fit *fit = &in->fit;
  struct nx_reading limit = in->container_limit_bytes;
  nx_buf_printf(out, "\"container\":{\"limit\":\"%s\",", limits[limit.kind]);
  add_or_null(out, "limitBytes", nx_reading_is_value(limit), limit.value);
  add_or_null(out, "requestBytes", in->request_bytes, in->request_bytes);
  add_or_null(out, "alertBytes", plan->alert_bytes, plan->alert_bytes);
  const char *qos = nx_plan_qos_name(plan->qos);
  nx_buf_printf(out, "\"qosClass\":%s%s%s,\"qosBasis\":\"%s\"},", qos ? "\"" : "", qos ? qos : "null", qos ? "\"" : "",
                in->pod_qos != NX_PLAN_QOS_UNKNOWN ? "pod" : "memory");
  nx_buf_printf(out, "\"budget\":{\"limitBytes\":%llu,\"reserveBytes\":%llu,\"budgetBytes\":%llu,\"processBytes\":%llu,"
                "\"cacheBytes\":%llu,\"leftBytes\":%llu,\"connectionsMaxBytes\":%llu,\"suspendedMaxBytes\":%llu,"
                "\"neededBytes\":%llu,\"idleBytes\":%llu,\"loadedBytes\":%llu},",
                ull(fit->limit_bytes), ull(plan->reserve_bytes), ull(plan->budget_bytes), ull(fit->process_bytes),
                ull(fit->cache_bytes), ull(plan->left_bytes), ull(plan->connections_bytes), ull(plan->suspended_bytes),
                ull(plan->needed_bytes), ull(plan->idle_bytes), ull(plan->loaded_bytes));
  nx_buf_printf(out, "\"instance\":{\"totalBytes\":%llu,\"memoryBytes\":%llu,\"nativeStackBytes\":%llu,"
                "\"pageTablesBytes\":%llu},",
                ull(plan->instance_bytes), ull(fit->memory_bytes), ull(fit->native_stack_bytes),
                ull(fit->page_tables_bytes));
  nx_buf_printf(out, "\"instances\":{\"max\":%u,\"fit\":%llu,\"fitBesideConnections\":%llu,\"overCommitted\":%s},",
                in->max_instances, ull(plan->instances_fit), ull(plan->instances_beside_connections),
                in->max_instances > plan->instances_fit ? "true" : "false");
}

/* From this many pods on the tolerance decides, and the threshold stays the same. */
#define PODS_OF_TOLERANCE (100 / NX_PLAN_TOLERANCE_PERCENT)

static void json_autoscaler(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  if (!plan->autoscales) {
    nx_buf_lit(out, "\"autoscaler\":null,");
    return;
  }
  nx_buf_printf(out, "\"autoscaler\":{\"requestBytes\":%llu,\"percent\":%u,\"tolerancePercent\":%u,\"podsMin\":%u,"
                "\"podsMax\":%u,\"targetBytes\":%llu,\"addsPodAboveBytes\":%llu,\"idlePods\":%u,\"scaleIn\":[",
                ull(plan->request_bytes), in->autoscaler_percent, NX_PLAN_TOLERANCE_PERCENT, in->pods_min, in->pods_max,
                ull(plan->target_bytes), ull(plan->add_above_bytes), plan->idle_pods);
  for (unsigned pods = in->pods_min + 1; pods <= in->pods_max; pods++) {
    nx_buf_printf(out, "%s{\"pods\":%u,\"toPods\":%u,\"atMostBytes\":%llu}", pods > in->pods_min + 1 ? "," : "", pods,
                  pods - 1, ull(nx_plan_scale_in_bytes(plan->request_bytes, in->autoscaler_percent, pods)));
    if (pods >= PODS_OF_TOLERANCE) break;
  }
  nx_buf_lit(out, "]},");
}

static void add_string(struct nx_buf *out, const char *name, const char *text) {
  nx_buf_printf(out, "\"%s\":", name);
  nx_buf_json_string(out, text, strlen(text));
  nx_buf_char(out, ',');
}

static void json_finding(const struct nx_finding *f, struct nx_buf *out) {
  nx_buf_printf(out, "{\"finding\":\"%s\",\"severity\":\"%s\",", f->name, nx_severity_name(f->severity));
  add_string(out, "message", f->message);
  add_string(out, "advice", f->advice);
  if (f->line) nx_buf_printf(out, "\"line\":%u,\"column\":%u,", f->line, f->column);
  nx_buf_lit(out, "\"changes\":[");
  for (unsigned i = 0; i < f->change_count; i++)
    nx_buf_printf(out, "%s{\"variable\":\"%s\",\"value\":%llu,\"unit\":\"%s\"}", i ? "," : "",
                  nx_plan_variable_name(f->changes[i].variable), ull(f->changes[i].value),
                  nx_plan_variable_unit(f->changes[i].variable));
  nx_buf_lit(out, "]}");
}

static void json_manifest(const struct nx_manifest *m, struct nx_buf *out) {
  nx_buf_lit(out, "\"manifest\":{");
  add_string(out, "file", m->file);
  add_string(out, "namespace", m->ns);
  add_string(out, "deployment", m->deployment);
  add_string(out, "container", m->container);
  nx_buf_lit(out, "\"objects\":[");
  for (const struct nx_manifest_source *source = m->sources; source; source = source->next) {
    nx_buf_str(out, source == m->sources ? "{" : ",{");
    add_string(out, "kind", source->kind);
    add_string(out, "namespace", source->ns);
    add_string(out, "name", source->name);
    add_string(out, "use", source->use);
    nx_buf_printf(out, "\"line\":%u}", source->place.line); /* 0: not in the file */
  }
  nx_buf_lit(out, "]},");
}

static void print_json(const struct nx_plan_report *report, struct nx_buf *out) {
  const struct nx_plan *plan = report->plan;
  nx_buf_printf(out, "{\"verdict\":\"%s\",\"fits\":%s,", report->verdict, !plan ? "null" : plan->fits ? "true" : "false");
  if (report->manifest) json_manifest(report->manifest, out);
  if (plan) {
    json_budget(report->input, plan, out);
    json_autoscaler(report->input, plan, out);
  }
  nx_buf_lit(out, "\"findings\":[");
  for (size_t i = 0; i < report->findings->count; i++) {
    if (i) nx_buf_char(out, ',');
    json_finding(&report->findings->items[i], out);
  }
  nx_buf_lit(out, "]}\n");
}

int nx_plan_print(const struct nx_plan_report *report, bool json) {
  NX_BUF_AUTO out = {0};
  (json ? print_json : print_text)(report, &out);
  if (!out.failed && fwrite(out.data, 1, out.len, stdout) == out.len && !fflush(stdout)) return 0;
  fprintf(stderr, "nexus plan: cannot write: %s\n", out.failed ? "no memory" : strerrordesc_np(errno));
  return -1;
}
