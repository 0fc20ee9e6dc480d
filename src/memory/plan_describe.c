/* SPDX-License-Identifier: Apache-2.0
 * Findings of a plan in words. */
#include "memory/plan.h"

#include "base/number.h"

static void describe_no_limit(const struct nx_plan_input *in, struct nx_finding *f) {
  double limit = nx_in_mib(in->fit.limit_bytes);
  const char *why = in->container_limit_bytes.kind == NX_READING_UNLIMITED ? "the container has no memory limit"
                                                                           : "the container's memory limit cannot be read";
  if (in->limit_is_told)
    nx_finding_say(f, "%s; nexus keeps to CONTAINER_MEMORY_LIMIT (%.1f MiB), and nothing keeps that free for it", why,
                   limit);
  else
    nx_finding_say(f, "%s; planned with %.1f MiB of the machine, which others use as well", why, limit);
}

static void describe(const struct nx_plan_input *in, const struct nx_plan *plan, enum nx_plan_finding_kind kind,
                     struct nx_finding *f) {
  double limit = nx_in_mib(in->fit.limit_bytes), idle = nx_in_mib(plan->idle_bytes), adds = nx_in_mib(plan->add_above_bytes);
  unsigned last = in->pods_min + 1;
  switch (kind) {
  case NX_PLAN_CANNOT_FIT:
    nx_finding_say(f, "process, cache, reserve and one fully grown instance need %.1f MiB of %.1f; serve refuses to start",
                   nx_in_mib(plan->needed_bytes), limit);
    break;
  case NX_PLAN_REQUEST_ABOVE_LIMIT:
    nx_finding_say(f, "Kubernetes refuses a pod whose request (%.1f MiB) is above its limit (%.1f)",
                   nx_in_mib(in->request_bytes), nx_in_mib(in->container_limit_bytes.value));
    break;
  case NX_PLAN_NEVER_SCALES_IN:
    nx_finding_say(f, "an idle pod holds up to %.1f MiB, and %u pods become %u only at %.1f or less; without load %s %u",
                   idle, last, in->pods_min,
                   nx_in_mib(nx_plan_scale_in_bytes(plan->request_bytes, in->autoscaler_percent, last)),
                   plan->idle_bytes > plan->add_above_bytes ? "they grow to" : "it stays at", plan->idle_pods);
    break;
  case NX_PLAN_NEVER_SCALES_OUT:
    nx_finding_say(f, "pods are added above %.1f MiB, which the working set does not reach: nexus keeps it within %.1f",
                   adds, nx_in_mib(plan->budget_bytes));
    break;
  case NX_PLAN_OVER_COMMITTED:
    nx_finding_say(f, "MAX_INSTANCES is %u and %llu fit fully grown; safe, because the ledger refuses memory to a handler "
                   "before the kernel would kill the container",
                   in->max_instances, (unsigned long long)plan->instances_fit);
    break;
  case NX_PLAN_NO_LIMIT: describe_no_limit(in, f); break;
  case NX_PLAN_ALERT_BEFORE_SCALING:
    nx_finding_say(f, "the alert line (%.1f MiB) is passed before pods are added (%.1f)", nx_in_mib(plan->alert_bytes), adds);
    break;
  case NX_PLAN_FINDING_COUNT: break;
  }
}

void nx_plan_describe(const struct nx_plan_input *input, const struct nx_plan *plan, struct nx_findings *findings) {
  for (unsigned i = 0; i < plan->finding_count; i++) {
    const struct nx_plan_finding *finding = &plan->findings[i];
    struct nx_finding *f =
      nx_findings_add(findings, nx_plan_finding_name(finding->kind), nx_plan_finding_severity(finding->kind));
    describe(input, plan, finding->kind, f);
    for (unsigned j = 0; j < finding->change_count; j++)
      nx_finding_change(f, finding->changes[j].variable, finding->changes[j].value);
    nx_finding_advise_changes(f);
  }
}
