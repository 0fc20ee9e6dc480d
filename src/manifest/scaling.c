/* SPDX-License-Identifier: Apache-2.0
 * What acts on the number and the size of the pods: HPA, VPA, PDB. */
#include "manifest/manifest_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- HorizontalPodAutoscaler ----------------------------------------------------------------------------------------- */

/* One metric; those of other kinds than memory and cpu are nobody's business here. */
static void read_metric(struct nx__gather *g, const struct nx_yaml *metric, struct nx_manifest_hpa *hpa) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *resource = nx__read_map(r, metric, "resource");
  const struct nx_yaml *by_container = nx__read_map(r, metric, "containerResource");
  const struct nx_yaml *source = by_container ? by_container : resource;
  const char *name = nx__read_text(r, source, "name"), *container = nx__read_text(r, by_container, "container");
  if (!name || (container && strcmp(container, g->facts->container))) return;
  bool memory = !strcmp(name, "memory");
  if (!memory && strcmp(name, "cpu")) return;
  uint64_t percent;
  if (!nx__read_number(r, nx__read_map(r, source, "target"), "averageUtilization", 1, NX_PLAN_PERCENT_MAX, &percent)) {
    hpa->has_other_target = true;
    return;
  }
  *(memory ? &hpa->memory_percent : &hpa->cpu_percent) = percent;
  *(memory ? &hpa->memory_by_container : &hpa->cpu_by_container) = by_container != NULL;
}

static void read_hpa(struct nx__gather *g, const struct nx__object *object, const struct nx_yaml *spec) {
  struct nx__reader *r = &g->reader;
  struct nx_manifest_hpa hpa = {.is_there = true, .name = object->name, .pods_min = 1};
  nx__read_number(r, spec, "minReplicas", 1, NX_PLAN_PODS_MAX, &hpa.pods_min);
  if (!nx__read_number(r, spec, "maxReplicas", 1, NX_PLAN_PODS_MAX, &hpa.pods_max))
    nx__read_fail(r, spec, "spec", "maxReplicas");
  nx__read_number(r, spec, "targetCPUUtilizationPercentage", 1, NX_PLAN_PERCENT_MAX, &hpa.cpu_percent);
  const struct nx_yaml *metrics = nx__read_list(r, spec, "metrics"), *metric;
  for (size_t i = 0; (metric = nx__read_item(r, metrics, i)); i++) read_metric(g, metric, &hpa);
  if (!metrics && !hpa.cpu_percent) hpa.cpu_percent = 80; /* Kubernetes' default */
  g->facts->hpa = hpa;
}

static const char *describe_hpa(struct nx__gather *g, const struct nx_manifest_hpa *hpa) {
  const char *memory = hpa->memory_percent ? nx__text(g, "memory %u %%, ", (unsigned)hpa->memory_percent) : "";
  const char *cpu = hpa->cpu_percent ? nx__text(g, "cpu %u %%, ", (unsigned)hpa->cpu_percent) : "";
  return nx__text(g, "%s%s%u to %u pods", memory, cpu, (unsigned)hpa->pods_min, (unsigned)hpa->pods_max);
}

static bool targets(struct nx__gather *g, const struct nx__object *object, const struct nx_yaml *reference,
                    const char **name) {
  const char *kind = nx__read_text(&g->reader, reference, "kind");
  *name = nx__read_text(&g->reader, reference, "name");
  return kind && *name && !strcmp(kind, "Deployment") && !strcmp(*name, g->deployment->name) &&
         !strcmp(object->ns, g->deployment->ns);
}

static void gather_hpa(struct nx__gather *g, const struct nx__object *object) {
  struct nx_manifest *facts = g->facts;
  const struct nx_yaml *spec = nx__read_map(&g->reader, object->root, "spec");
  const struct nx_yaml *reference = nx__read_map(&g->reader, spec, "scaleTargetRef");
  const char *name, *kind = nx__read_text(&g->reader, reference, "kind");
  if (targets(g, object, reference, &name)) {
    if (!facts->hpa.count) {
      read_hpa(g, object, spec);
      nx__object_is_used(g, object, describe_hpa(g, &facts->hpa));
    }
    facts->hpa.count++;
  } else if (name && kind && !facts->lost_hpa && !nx__object_find(g, kind, object->ns, name)) {
    facts->lost_hpa = nx__text(g, "%.63s/%.63s", object->ns, object->name);
    facts->lost_target = nx__text(g, "%.40s %.63s/%.63s", kind, object->ns, name);
  }
}

static void override_hpa(struct nx__gather *g) {
  struct nx_manifest_hpa *hpa = &g->facts->hpa;
  const struct nx_manifest_overrides *o = g->overrides;
  if (o->hpa_percent && !hpa->is_there)
    *hpa = (struct nx_manifest_hpa){.is_there = true, .name = "--hpa", .pods_min = 1, .pods_max = 10};
  if (o->hpa_percent) hpa->memory_percent = o->hpa_percent;
  if (!hpa->is_there) return;
  if (o->pods_min) hpa->pods_min = o->pods_min;
  if (o->pods_max) hpa->pods_max = o->pods_max;
}

/* ---- VerticalPodAutoscaler ------------------------------------------------------------------------------------------- */

static bool controls(struct nx__gather *g, const struct nx_yaml *policy, const char *resource) {
  const struct nx_yaml *list = nx__read_list(&g->reader, policy, "controlledResources");
  for (size_t i = 0; list && i < list->count; i++) {
    const char *text = nx__read_text_of(&g->reader, list->items[i], "controlledResources");
    if (text && !strcmp(text, resource)) return true;
  }
  return !list;
}

/* The policy of the container itself goes before that of all. */
static const struct nx_yaml *policy_of(struct nx__gather *g, const struct nx_yaml *spec) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *policies = nx__read_list(r, nx__read_map(r, spec, "resourcePolicy"), "containerPolicies");
  const struct nx_yaml *policy, *of_all = NULL;
  for (size_t i = 0; (policy = nx__read_item(r, policies, i)); i++) {
    const char *name = nx__read_text(r, policy, "containerName");
    if (name && !strcmp(name, g->facts->container)) return policy;
    if (name && !strcmp(name, "*")) of_all = policy;
  }
  return of_all;
}

static void gather_vpa(struct nx__gather *g, const struct nx__object *object) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *spec = nx__read_map(r, object->root, "spec");
  const char *name;
  if (!targets(g, object, nx__read_map(r, spec, "targetRef"), &name)) return;
  const struct nx_yaml *policy = policy_of(g, spec);
  const char *update = nx__read_text(r, nx__read_map(r, spec, "updatePolicy"), "updateMode");
  const char *mode = nx__read_text(r, policy, "mode");
  bool off = (update && !strcmp(update, "Off")) || (mode && !strcmp(mode, "Off"));
  nx__object_is_used(g, object, off ? "changes nothing" : "changes requests");
  if (off) return;
  g->facts->vpa.name = object->name;
  g->facts->vpa.memory |= controls(g, policy, "memory");
  g->facts->vpa.cpu |= controls(g, policy, "cpu");
}

/* ---- PodDisruptionBudget --------------------------------------------------------------------------------------------- */

/* 3 or "50%"; false when missing or neither. */
static bool read_amount(struct nx__gather *g, const struct nx_yaml *spec, const char *key, uint64_t *amount,
                        bool *is_percent) {
  const char *text;
  if (!nx__read_number_or_text(&g->reader, spec, key, 1000000, amount, &text)) return false;
  *is_percent = text != NULL;
  if (!text) return true;
  size_t digits = strspn(text, "0123456789");
  if (!digits || digits > 6 || strcmp(text + digits, "%")) {
    nx__read_fail(&g->reader, nx_yaml_find(spec, key), key, "a whole number or a percentage such as \"50%\"");
    return false;
  }
  *amount = strtoull(text, NULL, 10);
  return true;
}

static void gather_pdb(struct nx__gather *g, const struct nx__object *object) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *spec = nx__read_map(r, object->root, "spec");
  if (strcmp(object->ns, g->deployment->ns) || !nx__selects(g, nx__read_map(r, spec, "selector"), false, g->labels)) return;
  struct nx_manifest_pdb pdb = {.name = object->name};
  uint64_t unavailable;
  bool percent;
  pdb.has_min = read_amount(g, spec, "minAvailable", &pdb.min_available, &pdb.min_is_percent);
  pdb.allows_none = read_amount(g, spec, "maxUnavailable", &unavailable, &percent) && !unavailable;
  nx__object_is_used(g, object, "evictions");
  g->facts->pdb = pdb;
}

void nx__scaling_gather(struct nx__gather *g) {
  for (size_t i = 0; i < g->object_count && !g->reader.failed; i++) {
    const struct nx__object *object = &g->objects[i];
    if (!strcmp(object->kind, "HorizontalPodAutoscaler")) gather_hpa(g, object);
    if (!strcmp(object->kind, "VerticalPodAutoscaler")) gather_vpa(g, object);
    if (!strcmp(object->kind, "PodDisruptionBudget")) gather_pdb(g, object);
  }
  override_hpa(g);
}
