/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/plan.h"

#include "base/number.h"

static uint64_t mib_up(uint64_t bytes) { return (bytes + NX_MIB - 1) / NX_MIB * NX_MIB; }

static bool has_limit(const struct nx_plan_input *in) { return nx_reading_is_value(in->container_limit_bytes); }

/* ---- The autoscaler ------------------------------------------------------------------------------------------------------ */

uint64_t nx_plan_add_above_bytes(uint64_t request_bytes, unsigned percent) {
  return nx_part_u64(request_bytes, percent * (100 + NX_PLAN_TOLERANCE_PERCENT), 100 * 100);
}

uint64_t nx_plan_scale_in_bytes(uint64_t request_bytes, unsigned percent, unsigned pods) {
  /* ceil(pods × ratio) ≤ pods − 1 holds up to this ratio, itself included… */
  uint64_t by_count = nx_part_u64(request_bytes, (uint64_t)percent * (pods - 1), (uint64_t)100 * pods);
  /* …and the tolerance is left only below that one, itself excluded. */
  uint64_t unscaled = percent * (100 - NX_PLAN_TOLERANCE_PERCENT);
  uint64_t tolerance = nx_part_u64(request_bytes, unscaled, 100 * 100);
  bool exact = request_bytes % (100 * 100) * unscaled % (100 * 100) == 0;
  return nx_min_u64(by_count, exact ? nx_minus_u64(tolerance, 1) : tolerance);
}

/* Each step down needs a lower average than the one before it, so it stops at the first that an idle pod is above. */
static unsigned idle_pods(const struct nx_plan_input *in, const struct nx_plan *plan) {
  unsigned pods = in->pods_max;
  while (pods > in->pods_min &&
         plan->idle_bytes <= nx_plan_scale_in_bytes(plan->request_bytes, in->autoscaler_percent, pods))
    pods--;
  return pods;
}

static void plan_autoscaler(const struct nx_plan_input *in, struct nx_plan *plan) {
  plan->autoscales = in->autoscaler_percent && plan->request_bytes;
  if (!plan->autoscales) return;
  plan->target_bytes = nx_part_u64(plan->request_bytes, in->autoscaler_percent, 100);
  plan->add_above_bytes = nx_plan_add_above_bytes(plan->request_bytes, in->autoscaler_percent);
  plan->idle_pods = idle_pods(in, plan);
}

/* ---- Findings ------------------------------------------------------------------------------------------------------------ */

static struct nx_plan_finding *add_finding(struct nx_plan *plan, enum nx_plan_finding_kind kind) {
  struct nx_plan_finding *finding = &plan->findings[plan->finding_count++];
  *finding = (struct nx_plan_finding){.kind = kind};
  return finding;
}

/* A value of 0 is none that would help. */
static void add_change(struct nx_plan_finding *finding, enum nx_plan_variable variable, uint64_t value) {
  if (value) finding->changes[finding->change_count++] = (struct nx_plan_change){variable, value};
}

/* A nexus that was told to keep to less than it has is told otherwise, as far as that goes. */
static void add_limit(struct nx_plan_finding *finding, const struct nx_plan_input *in, uint64_t instances) {
  uint64_t limit = nx_config_fit_limit_bytes(&in->fit, instances);
  bool told = has_limit(in) && in->fit.limit_bytes < limit && limit <= in->container_limit_bytes.value;
  add_change(finding, told ? NX_PLAN_SET_CONTAINER_MEMORY_LIMIT : NX_PLAN_SET_MEMORY_LIMIT, limit);
}

static void find_misfit(const struct nx_plan_input *in, struct nx_plan *plan) {
  if (!plan->fits) {
    struct nx_plan_finding *f = add_finding(plan, NX_PLAN_CANNOT_FIT);
    add_change(f, NX_PLAN_SET_MEMORY_LIMIT_MB, nx_config_fit_memory_mb(&in->fit, 1));
    add_change(f, NX_PLAN_SET_CACHE_MAX_MB, nx_config_fit_cache_mb(&in->fit, 1));
    add_limit(f, in, 1);
  }
  if (has_limit(in) && in->request_bytes > in->container_limit_bytes.value)
    add_change(add_finding(plan, NX_PLAN_REQUEST_ABOVE_LIMIT), NX_PLAN_SET_MEMORY_REQUEST,
               in->container_limit_bytes.value);
}

/* The smallest request in whole MiB with which the last pod but pods_min goes when idle; 0: more than the limit. */
static uint64_t request_that_scales_in(const struct nx_plan_input *in, const struct nx_plan *plan) {
  unsigned percent = in->autoscaler_percent, pods = in->pods_min + 1;
  uint64_t request = mib_up(nx_part_u64(plan->idle_bytes, (uint64_t)100 * pods, (uint64_t)percent * in->pods_min));
  while (nx_plan_scale_in_bytes(request, percent, pods) < plan->idle_bytes) request += NX_MIB;
  return has_limit(in) && request > in->container_limit_bytes.value ? 0 : request;
}

/* The largest percentage with which pods are added before the working set reaches `bytes`. */
static unsigned percent_that_adds_below(const struct nx_plan_input *in, const struct nx_plan *plan, uint64_t bytes) {
  unsigned percent = in->autoscaler_percent;
  while (percent && nx_plan_add_above_bytes(plan->request_bytes, percent) >= bytes) percent--;
  return percent;
}

static void find_scaling(const struct nx_plan_input *in, struct nx_plan *plan) {
  if (!plan->autoscales || in->pods_max <= in->pods_min) return;
  if (plan->idle_pods > in->pods_min) {
    struct nx_plan_finding *f = add_finding(plan, NX_PLAN_NEVER_SCALES_IN);
    uint64_t most = nx_plan_scale_in_bytes(plan->request_bytes, in->autoscaler_percent, in->pods_min + 1);
    add_change(f, NX_PLAN_SET_CACHE_MAX_MB, nx_minus_u64(most, in->fit.process_bytes) / NX_MIB);
    add_change(f, NX_PLAN_SET_MEMORY_REQUEST, request_that_scales_in(in, plan));
  }
  if (plan->add_above_bytes >= plan->budget_bytes)
    add_change(add_finding(plan, NX_PLAN_NEVER_SCALES_OUT), NX_PLAN_SET_AUTOSCALER_PERCENT,
               percent_that_adds_below(in, plan, plan->budget_bytes));
}

static void find_over_commit(const struct nx_plan_input *in, struct nx_plan *plan) {
  if (!plan->fits || in->max_instances <= plan->instances_fit) return;
  struct nx_plan_finding *f = add_finding(plan, NX_PLAN_OVER_COMMITTED);
  add_change(f, NX_PLAN_SET_MAX_INSTANCES, plan->instances_fit);
  add_change(f, NX_PLAN_SET_MEMORY_LIMIT_MB, nx_config_fit_memory_mb(&in->fit, in->max_instances));
  add_limit(f, in, in->max_instances);
}

static void find_limits(const struct nx_plan_input *in, struct nx_plan *plan) {
  if (!has_limit(in))
    add_limit(add_finding(plan, NX_PLAN_NO_LIMIT), in, in->max_instances);
  bool scales_out = plan->autoscales && in->pods_max > in->pods_min && plan->add_above_bytes < plan->budget_bytes;
  if (scales_out && plan->alert_bytes && plan->add_above_bytes >= plan->alert_bytes)
    add_change(add_finding(plan, NX_PLAN_ALERT_BEFORE_SCALING), NX_PLAN_SET_AUTOSCALER_PERCENT,
               percent_that_adds_below(in, plan, plan->alert_bytes));
}

/* ---- The plan ------------------------------------------------------------------------------------------------------------- */

static void plan_budget(const struct nx_plan_input *in, struct nx_plan *plan) {
  const struct nx_config_fit *fit = &in->fit;
  plan->budget_bytes = nx_config_fit_budget_bytes(fit);
  plan->reserve_bytes = fit->limit_bytes - plan->budget_bytes;
  plan->left_bytes = nx_config_fit_left_bytes(fit);
  plan->instance_bytes = nx_config_fit_instance_bytes(fit);
  plan->idle_bytes = fit->process_bytes + fit->cache_bytes;
  plan->needed_bytes = plan->idle_bytes + plan->reserve_bytes + plan->instance_bytes;
  plan->connections_bytes = in->max_connections * in->connection_bytes;
  plan->suspended_bytes = in->suspended_max_bytes;
  plan->instances_fit = nx_config_fit_instances(fit);
  plan->instances_beside_connections = nx_minus_u64(plan->left_bytes, plan->connections_bytes) / plan->instance_bytes;
  plan->loaded_bytes = nx_min_u64(plan->idle_bytes + in->max_instances * plan->instance_bytes, plan->budget_bytes);
  plan->fits = plan->instances_fit > 0;
}

static void plan_node(const struct nx_plan_input *in, struct nx_plan *plan) {
  uint64_t limit = has_limit(in) ? in->container_limit_bytes.value : 0;
  plan->alert_bytes = nx_part_u64(limit, in->alert_percent, 100);
  if (!in->request_is_known) return;
  plan->request_bytes = in->request_bytes ? in->request_bytes : limit;
  if (in->pod_qos != NX_PLAN_QOS_UNKNOWN)
    plan->qos = in->pod_qos;
  else if (!plan->request_bytes)
    plan->qos = NX_PLAN_BEST_EFFORT;
  else
    plan->qos = plan->request_bytes == limit ? NX_PLAN_GUARANTEED : NX_PLAN_BURSTABLE;
}

struct nx_plan_input nx_plan_input_of(const struct nx_config *config) {
  return (struct nx_plan_input){
    .fit = nx_config_get_fit(config),
    .max_instances = config->max_instances,
    .max_connections = config->max_connections,
    .connection_bytes = NX_CONFIG_CONNECTION_BYTES,
    .suspended_max_bytes = config->suspend_max_bytes,
    .pods_min = 1,
    .pods_max = 1,
  };
}

void nx_plan_make(const struct nx_plan_input *input, struct nx_plan *plan) {
  *plan = (struct nx_plan){0};
  plan_budget(input, plan);
  plan_node(input, plan);
  plan_autoscaler(input, plan);
  find_misfit(input, plan);
  find_scaling(input, plan);
  find_over_commit(input, plan);
  find_limits(input, plan);
  bool decides = plan->finding_count && plan->findings[0].kind < NX_PLAN_NO_LIMIT;
  plan->verdict = decides ? plan->findings[0].kind : NX_PLAN_FINDING_COUNT;
}

/* ---- Names ----------------------------------------------------------------------------------------------------------------- */

const char *nx_plan_finding_name(enum nx_plan_finding_kind kind) {
  static const char *const names[] = {
#define X(symbol, name, severity) [NX_PLAN_##symbol] = name,
    NX_PLAN_FINDINGS(X)
#undef X
    [NX_PLAN_FINDING_COUNT] = "fits"};
  return names[kind];
}

enum nx_severity nx_plan_finding_severity(enum nx_plan_finding_kind kind) {
  static const enum nx_severity severities[NX_PLAN_FINDING_COUNT] = {
#define X(symbol, name, severity) [NX_PLAN_##symbol] = NX_SEVERITY_##severity,
    NX_PLAN_FINDINGS(X)
#undef X
  };
  return severities[kind];
}

const char *nx_plan_qos_name(enum nx_plan_qos qos) {
  static const char *const names[] = {NULL, "Guaranteed", "Burstable", "BestEffort"};
  return names[qos];
}
