/* SPDX-License-Identifier: Apache-2.0
 * Contradictions of autoscalers and the disruption budget, and the list of all. */
#include "manifest/contradictions_internal.h"

static const struct nx_manifest_place nowhere;

/* ---- The list -------------------------------------------------------------------------------------------------------- */

struct nx_finding *nx_manifest_add_finding(struct nx_findings *findings, enum nx_manifest_finding_kind kind,
                                           struct nx_manifest_place place) {
  static const struct {
    const char *name;
    enum nx_severity severity;
  } all[] = {
#define X(symbol, name, severity) {name, NX_SEVERITY_##severity},
    NX_MANIFEST_FINDINGS(X)
#undef X
  };
  struct nx_finding *f = nx_findings_add(findings, all[kind].name, all[kind].severity);
  f->line = place.line;
  f->column = place.column;
  return f;
}

/* ---- HPA ------------------------------------------------------------------------------------------------------------- */

static void check_hpa_pods(const struct nx_manifest *m, struct nx_findings *findings) {
  const struct nx_manifest_hpa *hpa = &m->hpa;
  if (hpa->pods_min > hpa->pods_max) {
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_PODS_REVERSED, nowhere);
    nx_finding_say(f, "minReplicas is %llu and maxReplicas %llu; Kubernetes refuses that", nx__ull(hpa->pods_min),
                   nx__ull(hpa->pods_max));
    nx_finding_change(f, NX_PLAN_SET_MAX_REPLICAS, hpa->pods_min);
    nx_finding_advise_changes(f);
  }
  if (hpa->count > 1) {
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_TWO_HPAS, nowhere);
    nx_finding_say(f, "%u autoscalers want to scale Deployment %.63s; they work against each other", hpa->count,
                   m->deployment);
    nx_finding_advise(f, "put the metrics of all into one HorizontalPodAutoscaler");
  }
  if (m->has_replicas) {
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_REPLICAS_RESET, m->place);
    nx_finding_say(
        f, "the Deployment says replicas: %llu, and each time it is applied takes the autoscaler's pods back to that",
        nx__ull(m->replicas));
    nx_finding_advise(f, "remove replicas from the Deployment");
  }
}

static void check_request(const struct nx_manifest *m, const char *what, bool by_container,
                          const struct nx_manifest_resource *own, const char *missing_in,
                          enum nx_manifest_finding_kind kind, struct nx_findings *findings) {
  const char *container = by_container ? (own->has_request ? NULL : m->container) : missing_in;
  if (!container) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, kind, m->place);
  nx_finding_say(f, "the autoscaler's percentage is of requests.%s, and container %.63s has none; it never acts", what,
                 container);
  nx_finding_advise(f, "set resources.requests.%s of container %.63s", what, container);
}

static void check_sidecars(const struct nx_manifest *m, struct nx_findings *findings) {
  const struct nx_manifest_hpa *hpa = &m->hpa;
  bool memory = hpa->memory_percent && !hpa->memory_by_container, cpu = hpa->cpu_percent && !hpa->cpu_by_container;
  if (!m->sidecar_count || (!memory && !cpu)) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_SIDECARS_COUNT, m->place);
  nx_finding_say(
      f,
      "the autoscaler takes use and requests of all containers together: %u beside nexus request %.1f MiB and "
      "%llum; the figures below are of nexus alone",
      m->sidecar_count, nx_in_mib(m->sidecars_memory_bytes), nx__ull(m->sidecars_millicores));
  nx_finding_advise(f, "use a metric of type ContainerResource for container %.63s", m->container);
}

/* a / b, rounded up. */
static uint64_t ceil_part(unsigned __int128 a, unsigned __int128 b) {
  unsigned __int128 part = (a + b - 1) / b;
  return part < UINT64_MAX ? (uint64_t)part : UINT64_MAX;
}

/* The minimum of pods, each at its cpu limit, makes the autoscaler want `wanted` pods. */
static void check_pinned(const struct nx_manifest *m, struct nx_findings *findings) {
  const struct nx_manifest_hpa *hpa = &m->hpa;
  if (!hpa->cpu_percent || !m->cpu.has_limit || !m->cpu.request || hpa->pods_max <= hpa->pods_min) return;
  unsigned __int128 used = (unsigned __int128)hpa->pods_min * m->cpu.limit * 100;
  uint64_t wanted = ceil_part(used, (unsigned __int128)hpa->cpu_percent * m->cpu.request);
  if (wanted < hpa->pods_max) return;
  uint64_t request = ceil_part(used, (unsigned __int128)hpa->cpu_percent * (hpa->pods_max - 1));
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_PINNED, nowhere);
  nx_finding_say(f, "%llu pods that use their whole cpu limit of %llum make the autoscaler want %llu at once (%llu %% of a "
                 "request of %llum each), and maxReplicas is %llu: any burst takes it to the maximum",
                 nx__ull(hpa->pods_min), nx__ull(m->cpu.limit), nx__ull(wanted), nx__ull(hpa->cpu_percent),
                 nx__ull(m->cpu.request), nx__ull(hpa->pods_max));
  nx_finding_change(f, NX_PLAN_SET_CPU_REQUEST, request <= m->cpu.limit ? request : 0);
  nx_finding_change(f, NX_PLAN_SET_MAX_REPLICAS, wanted < NX_PLAN_PODS_MAX ? wanted + 1 : 0);
  nx_finding_advise_changes(f);
}

static void check_hpa(const struct nx_manifest *m, struct nx_findings *findings) {
  const struct nx_manifest_hpa *hpa = &m->hpa;
  check_hpa_pods(m, findings);
  if (hpa->memory_percent)
    check_request(m, "memory", hpa->memory_by_container, &m->memory, m->memory_missing_in,
                  NX_MANIFEST_NO_MEMORY_REQUEST, findings);
  if (hpa->cpu_percent)
    check_request(m, "cpu", hpa->cpu_by_container, &m->cpu, m->cpu_missing_in, NX_MANIFEST_NO_CPU_REQUEST, findings);
  check_pinned(m, findings);
  check_sidecars(m, findings);
  if (hpa->has_other_target)
    nx_finding_say(nx_manifest_add_finding(findings, NX_MANIFEST_NOT_PLANNED, nowhere),
                   "a metric of the autoscaler on memory or cpu has no averageUtilization; nothing is planned for it");
}

static void check_lost_hpa(const struct nx_manifest *m, struct nx_findings *findings) {
  if (!m->lost_hpa) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_LOST_HPA, nowhere);
  nx_finding_say(f, "HorizontalPodAutoscaler %s scales %s, which is not in this file", m->lost_hpa, m->lost_target);
  nx_finding_advise(f, "scaleTargetRef of a Deployment in its own namespace; nexus is %.63s/%.63s", m->ns, m->deployment);
}

/* ---- VPA and PDB ----------------------------------------------------------------------------------------------------- */

static void check_vpa(const struct nx_manifest *m, const char *what, enum nx_manifest_finding_kind kind,
                      struct nx_findings *findings) {
  struct nx_finding *f = nx_manifest_add_finding(findings, kind, nowhere);
  nx_finding_say(f, "VerticalPodAutoscaler %.63s changes requests.%s, of which the HorizontalPodAutoscaler's target is a "
                 "percentage: each undoes what the other does", m->vpa.name, what);
  nx_finding_advise(f, "controlledResources without %s, or updateMode: \"Off\", in the VerticalPodAutoscaler", what);
}

static void check_pdb(const struct nx_manifest *m, struct nx_findings *findings) {
  const struct nx_manifest_pdb *pdb = &m->pdb;
  uint64_t pods = nx_manifest_pods_min(m);
  if (!pdb->name || !pods) return;
  uint64_t kept = pdb->has_min && pdb->min_is_percent ? ceil_part((unsigned __int128)pods * pdb->min_available, 100)
                                                      : pdb->min_available;
  bool never = pdb->allows_none || (pdb->has_min && kept >= pods);
  if (!never) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_NO_EVICTION, nowhere);
  if (pdb->allows_none)
    nx_finding_say(f, "PodDisruptionBudget %.63s allows no pod to be missing: a node cannot be drained", pdb->name);
  else
    nx_finding_say(
        f,
        "PodDisruptionBudget %.63s keeps %llu pods, and there may be no more than %llu: a node cannot be drained then",
        pdb->name, nx__ull(kept), nx__ull(pods));
  nx_finding_advise(f, pods > 1 ? "maxUnavailable: 1 instead" : "maxUnavailable: 1 instead, and at least two pods");
}

void nx__check_scaling(const struct nx_manifest *m, struct nx_findings *findings) {
  if (m->hpa.is_there) check_hpa(m, findings);
  check_lost_hpa(m, findings);
  if (m->vpa.memory && m->hpa.memory_percent) check_vpa(m, "memory", NX_MANIFEST_VPA_AND_HPA_MEMORY, findings);
  if (m->vpa.cpu && m->hpa.cpu_percent) check_vpa(m, "cpu", NX_MANIFEST_VPA_AND_HPA_CPU, findings);
  check_pdb(m, findings);
}
