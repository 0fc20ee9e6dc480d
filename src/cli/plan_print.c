/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_print.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static double in_mib(uint64_t bytes) { return (double)bytes / (double)MIB; }
static unsigned long long ull(uint64_t value) { return value; }

/* ---- Lines of text ------------------------------------------------------------------------------------------------------- */

/* What a terminal shows of UTF-8: everything but continuation bytes. */
static size_t columns(const char *text, size_t bytes) {
  size_t count = 0;
  for (size_t i = 0; i < bytes; i++) count += ((unsigned char)text[i] & 0xc0) != 0x80;
  return count;
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
    nx_buf_add(out, word, bytes);
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
  snprintf(head, sizeof head, "  %-20s %9.1f%s", what, in_mib(bytes), note[0] ? "  " : "");
  add_words(out, head, note[0] ? 34 : 0, note);
}

/* ---- Findings: the same sentences in text and JSON ------------------------------------------------------------------------ */

static void describe(const struct nx_plan_input *in, const struct nx_plan *plan, enum nx_plan_finding_kind kind,
                     char *text, size_t size) {
  double limit = in_mib(in->fit.limit_bytes), idle = in_mib(plan->idle_bytes);
  unsigned last = in->pods_min + 1;
  switch (kind) {
  case NX_PLAN_CANNOT_FIT:
    snprintf(text, size,
             "process, cache, reserve and one fully grown instance need %.1f MiB of %.1f; serve refuses to start",
             in_mib(plan->needed_bytes), limit);
    break;
  case NX_PLAN_REQUEST_ABOVE_LIMIT:
    snprintf(text, size, "Kubernetes refuses a pod whose request (%.1f MiB) is above its limit (%.1f)",
             in_mib(in->request_bytes), in_mib(in->container_limit_bytes.value));
    break;
  case NX_PLAN_NEVER_SCALES_IN:
    snprintf(text, size, "an idle pod holds up to %.1f MiB, and %u pods become %u only at %.1f or less; without load %s %u",
             idle, last, in->pods_min,
             in_mib(nx_plan_scale_in_bytes(plan->request_bytes, in->autoscaler_percent, last)),
             plan->idle_bytes > plan->add_above_bytes ? "they grow to" : "it stays at", plan->idle_pods);
    break;
  case NX_PLAN_NEVER_SCALES_OUT:
    snprintf(text, size,
             "pods are added above %.1f MiB, which the working set does not reach: nexus keeps it within %.1f",
             in_mib(plan->add_above_bytes), in_mib(plan->budget_bytes));
    break;
  case NX_PLAN_OVER_COMMITTED:
    snprintf(text, size,
             "MAX_INSTANCES is %u and %llu fit fully grown; safe, because the ledger refuses memory to a handler "
             "before the kernel would kill the container",
             in->max_instances, ull(plan->instances_fit));
    break;
  case NX_PLAN_NO_LIMIT:
    snprintf(text, size, "%s; planned with %.1f MiB of the machine, which others use as well",
             in->container_limit_bytes.kind == NX_READING_UNLIMITED ? "the container has no memory limit"
                                                                    : "the container's memory limit cannot be read",
             limit);
    break;
  case NX_PLAN_ALERT_BEFORE_SCALING:
    snprintf(text, size, "the alert line (%.1f MiB) is passed before pods are added (%.1f)", in_mib(plan->alert_bytes),
             in_mib(plan->add_above_bytes));
    break;
  case NX_PLAN_FINDING_COUNT: text[0] = 0; break;
  }
}

static bool is_size(enum nx_plan_variable variable) { return !strcmp(nx_plan_variable_unit(variable), "bytes"); }

/* "CACHE_MAX_MB=94 or requests.memory=340Mi" */
static void list_changes(const struct nx_plan_finding *finding, char *text, size_t size) {
  size_t used = 0;
  text[0] = 0;
  for (unsigned i = 0; i < finding->change_count && used < size; i++) {
    const struct nx_plan_change *change = &finding->changes[i];
    bool whole = is_size(change->variable) && change->value % MIB == 0;
    used += (size_t)snprintf(text + used, size - used, "%s%s=%llu%s", i ? " or " : "",
                             nx_plan_variable_name(change->variable), ull(whole ? change->value / MIB : change->value),
                             whole ? "Mi" : "");
  }
}

/* ---- Text ----------------------------------------------------------------------------------------------------------------- */

static void print_limit(const struct nx_plan_input *in, struct nx_buf *out) {
  struct nx_reading limit = in->container_limit_bytes;
  uint64_t bytes = in->fit.limit_bytes;
  if (limit.kind == NX_READING_UNLIMITED)
    add_size(out, "limit", bytes, "none: the machine's memory");
  else if (limit.kind == NX_READING_UNKNOWN)
    add_size(out, "limit", bytes, "unknown: the machine's memory");
  else if (limit.value != bytes)
    add_size(out, "limit", bytes, "CONTAINER_MEMORY_LIMIT, of %.1f", in_mib(limit.value));
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
           in_mib(fit->memory_bytes), in_mib(fit->native_stack_bytes), in_mib(fit->page_tables_bytes));
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
           in->max_instances == 1 ? "" : "s", in_mib(plan->budget_bytes));
}

static void print_scale_in(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  unsigned percent = in->autoscaler_percent, first = in->pods_min + 1;
  char what[40], more[40] = "", last[40] = "";
  if (first > in->pods_max) return;
  snprintf(what, sizeof what, "%u to %u pods at", first, first - 1);
  if (first + 1 < in->pods_max)
    snprintf(more, sizeof more, ", %u to %u: %.1f", first + 1, first,
             in_mib(nx_plan_scale_in_bytes(plan->request_bytes, percent, first + 1)));
  if (first < in->pods_max)
    snprintf(last, sizeof last, ", %u to %u: %.1f", in->pods_max, in->pods_max - 1,
             in_mib(nx_plan_scale_in_bytes(plan->request_bytes, percent, in->pods_max)));
  add_size(out, what, nx_plan_scale_in_bytes(plan->request_bytes, percent, first), "or less%s%s", more, last);
}

static void print_autoscaler(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  if (!plan->autoscales) {
    nx_buf_str(out, in->request_is_known && in->autoscaler_percent ? "\nautoscaler: none; it needs a memory request\n"
                                                                   : "\nautoscaler: not planned; give --request\n");
    return;
  }
  nx_buf_printf(out, "\nautoscaler: %u %% of the request of %.1f MiB%s, %u to %u pods\n", in->autoscaler_percent,
                in_mib(plan->request_bytes), in->request_bytes ? "" : " (= limit)", in->pods_min, in->pods_max);
  add_size(out, "target", plan->target_bytes, "it wants ceil(pods x average / target) pods");
  add_size(out, "adds a pod above", plan->add_above_bytes, "tolerance of %u %%", NX_PLAN_TOLERANCE_PERCENT);
  print_scale_in(in, plan, out);
  add_size(out, "without load", plan->idle_bytes, "comes to %u pod%s", plan->idle_pods,
           plan->idle_pods == 1 ? "" : "s");
}

static void print_qos(const struct nx_plan_input *in, const struct nx_plan *plan, struct nx_buf *out) {
  double request = in_mib(plan->request_bytes), loaded = in_mib(plan->loaded_bytes), idle = in_mib(plan->idle_bytes);
  const char *qos = nx_plan_qos_name(plan->qos);
  if (!qos) {
    nx_buf_lit(out, "  QoS and eviction follow from the memory request: give --request\n");
    return;
  }
  nx_buf_printf(out, "  QoS %s, by memory alone (CPU requests and limits count as well)\n", qos);
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

void nx_plan_print_text(const struct nx_plan_input *input, const struct nx_plan *plan, struct nx_buf *out) {
  nx_buf_printf(out, "verdict: %s%s\n", nx_plan_finding_name(plan->verdict),
                plan->verdict == NX_PLAN_OVER_COMMITTED ? " (safe)" : "");
  for (unsigned i = 0; i < plan->finding_count; i++) {
    char text[400], changes[200];
    const struct nx_plan_finding *finding = &plan->findings[i];
    describe(input, plan, finding->kind, text, sizeof text);
    list_changes(finding, changes, sizeof changes);
    add_wrapped(out, "  -", 4, "%s: %s.", nx_plan_finding_name(finding->kind), text);
    if (finding->change_count) add_wrapped(out, "", 4, "Change: %s", changes);
  }
  print_budget(input, plan, out);
  print_instances(input, plan, out);
  print_autoscaler(input, plan, out);
  print_node(input, plan, out);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------- */

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
  nx_buf_printf(out, "\"qosClass\":%s%s%s,\"qosBasis\":\"memory\"},", qos ? "\"" : "", qos ? qos : "null", qos ? "\"" : "");
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

static void json_finding(const struct nx_plan_input *in, const struct nx_plan *plan,
                         const struct nx_plan_finding *finding, struct nx_buf *out) {
  static const char *const severities[] = {"error", "warning", "note"};
  char text[400];
  describe(in, plan, finding->kind, text, sizeof text);
  nx_buf_printf(out, "{\"finding\":\"%s\",\"severity\":\"%s\",\"message\":", nx_plan_finding_name(finding->kind),
                severities[nx_plan_finding_severity(finding->kind)]);
  nx_buf_json_string(out, text, strlen(text));
  nx_buf_lit(out, ",\"changes\":[");
  for (unsigned i = 0; i < finding->change_count; i++)
    nx_buf_printf(out, "%s{\"variable\":\"%s\",\"value\":%llu,\"unit\":\"%s\"}", i ? "," : "",
                  nx_plan_variable_name(finding->changes[i].variable), ull(finding->changes[i].value),
                  nx_plan_variable_unit(finding->changes[i].variable));
  nx_buf_lit(out, "]}");
}

void nx_plan_print_json(const struct nx_plan_input *input, const struct nx_plan *plan, struct nx_buf *out) {
  nx_buf_printf(out, "{\"verdict\":\"%s\",\"fits\":%s,", nx_plan_finding_name(plan->verdict),
                plan->fits ? "true" : "false");
  json_budget(input, plan, out);
  json_autoscaler(input, plan, out);
  nx_buf_lit(out, "\"findings\":[");
  for (unsigned i = 0; i < plan->finding_count; i++) {
    if (i) nx_buf_char(out, ',');
    json_finding(input, plan, &plan->findings[i], out);
  }
  nx_buf_lit(out, "]}\n");
}
