/* SPDX-License-Identifier: Apache-2.0
 * Contradictions between the pod and the settings that its container has. */
#include "manifest/contradictions_internal.h"

#include <stdio.h>
#include <string.h>

#include "memory/plan.h"

/* What containerd gives a container, unless told otherwise. */
#define CONTAINER_FILES 1048576u
/* Of a node that nobody knows: then only memory bounds the instances. */
#define NODE_CORES 65536u

struct nx_machine nx_manifest_machine(const struct nx_manifest *manifest) {
  return (struct nx_machine){
    .memory_limit_bytes = manifest->memory.has_limit ? nx_reading_of(manifest->memory.limit) : nx_reading_unlimited(),
    .memory_bytes = nx_reading_unknown(),
    .cores = manifest->cores ? manifest->cores : NODE_CORES,
    .max_files = CONTAINER_FILES,
  };
}

/* ---- Memory ---------------------------------------------------------------------------------------------------------- */

static void check_told_limit(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  uint64_t told = c->container_memory_limit_bytes;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_LIMIT_TOLD_WRONG, m->place);
  nx_finding_say(
      f,
      "CONTAINER_MEMORY_LIMIT says %.1f MiB and the container has %.1f: instances of MEMORY_LIMIT_MB=%llu would "
      "share a budget that the kernel does not give, so serve refuses to start",
      nx_in_mib(told), nx_in_mib(m->memory.limit), nx__ull(c->memory_limit_bytes / NX_MIB));
  nx_finding_change(f, NX_PLAN_SET_CONTAINER_MEMORY_LIMIT, m->memory.limit);
  nx_finding_change(f, NX_PLAN_SET_MEMORY_LIMIT, told);
  nx_finding_advise_changes(f);
}

/* A configuration that could not be derived: of two reasons. */
static void check_limit(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  if (c->limit_bytes) return;
  if (m->memory.has_limit) {
    check_told_limit(m, c, findings);
    return;
  }
  struct nx_finding *f =
      nx_findings_add(findings, nx_plan_finding_name(NX_PLAN_NO_LIMIT), nx_plan_finding_severity(NX_PLAN_NO_LIMIT));
  f->line = m->place.line;
  f->column = m->place.column;
  nx_finding_say(
      f, "the container has no memory limit: nexus would share out all memory of the node, which others use as well; "
         "without one there is nothing to plan with");
  nx_finding_advise(f, "set resources.limits.memory of container %.63s", m->container);
}

static void check_cores(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  if (m->cores || c->state[NX_SETTING_MAX_INSTANCES] != NX_CONFIG_DERIVED) return;
  nx_finding_say(nx_manifest_add_finding(findings, NX_MANIFEST_NO_CPU_LIMIT, m->place),
                 "MAX_INSTANCES=auto follows the cores of the node; planned with %u, as many as fit", c->max_instances);
}

/* ---- Times ----------------------------------------------------------------------------------------------------------- */

static void check_grace(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  uint64_t grace_ms = m->grace_s * 1000, needed_ms = m->pre_stop_ms + c->shutdown_grace_ms;
  if (m->pre_stop_is_unknown)
    nx_finding_say(nx_manifest_add_finding(findings, NX_MANIFEST_PRE_STOP_UNKNOWN, m->place),
                   "the preStop hook takes a time that nobody can tell; it is counted as none");
  if (grace_ms >= needed_ms) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_GRACE_TOO_SHORT, m->place);
  nx_finding_say(
      f,
      "terminationGracePeriodSeconds is %llu, and preStop (%.1f s) and SHUTDOWN_GRACE_MS (%.1f s) need %.1f s: "
      "work that is under way is killed",
      nx__ull(m->grace_s), (double)m->pre_stop_ms / 1000, (double)c->shutdown_grace_ms / 1000,
      (double)needed_ms / 1000);
  nx_finding_change(f, NX_PLAN_SET_GRACE_PERIOD, (needed_ms + 999) / 1000);
  nx_finding_change(f, NX_PLAN_SET_SHUTDOWN_GRACE_MS, nx_minus_u64(grace_ms, m->pre_stop_ms));
  nx_finding_advise_changes(f);
}

/* ---- Ports and probes ------------------------------------------------------------------------------------------------ */

static bool is_unknown(const struct nx_manifest *m, const char *name) {
  const struct nx_manifest_variable *variable = nx_manifest_find_variable(m, name);
  return variable && !variable->value;
}

static void check_ports(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  if (is_unknown(m, "PORT") || is_unknown(m, "ADMIN_PORT")) return;
  for (size_t i = 0; i < m->port_count; i++) {
    const struct nx_manifest_port *port = &m->ports[i];
    if (port->port && (port->port == c->port || port->port == c->admin_port)) continue;
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_NOBODY_LISTENS, port->place);
    char admin[32] = "none";
    if (c->admin_port) snprintf(admin, sizeof admin, "%u", c->admin_port);
    if (port->port)
      nx_finding_say(f, "%s wants port %llu; nexus listens on PORT=%u and ADMIN_PORT (%s)", port->what,
                     nx__ull(port->port), c->port, admin);
    else
      nx_finding_say(f, "%s wants port \"%.40s\", which no container of the pod has", port->what,
                     port->port_name ? port->port_name : "");
    nx_finding_advise(f, "the number or name of a port that nexus listens on, or PORT or ADMIN_PORT");
  }
}

static bool is_path(const char *text, const char *path) {
  size_t bytes = strlen(path);
  return text && !strncmp(text, path, bytes) && (!text[bytes] || text[bytes] == '?' || !strcmp(text + bytes, "/"));
}

static void check_liveness(const struct nx_manifest *m, struct nx_findings *findings) {
  bool health = is_path(m->liveness_path, "/health"), ready = is_path(m->liveness_path, "/readyz");
  if (!health && !ready && !m->liveness_asks_health) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_LIVENESS, m->liveness_place);
  nx_finding_say(
      f,
      "livenessProbe asks %s, which may say no under load or memory pressure: the kubelet restarts a pod that "
      "would have recovered",
      ready                     ? "/readyz"
      : m->liveness_asks_health ? "nexus health (/health)"
                                : "/health");
  nx_finding_advise(f, "livenessProbe: httpGet of /livez");
}

/* ---- Settings -------------------------------------------------------------------------------------------------------- */

static bool is_shared(const struct nx_manifest *m, const char *dir) {
  const struct nx_manifest_mount *mount = nx_manifest_find_mount(m, dir);
  return mount && mount->medium == NX_MANIFEST_SHARED;
}

static void check_suspensions(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  const struct nx_suspend_store *store = &c->suspend_store;
  bool local = store->kind == NX_SUSPEND_MEMORY || (store->kind == NX_SUSPEND_FILE && !is_shared(m, store->dir));
  if (!local || nx_manifest_pods_max(m) < 2) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_LOCAL_SUSPENSIONS, m->place);
  nx_finding_say(
      f, "SUSPEND_STORE is %s, and there can be %llu pods: a suspended execution can be resumed by its own pod only%s",
      store->kind == NX_SUSPEND_MEMORY ? "memory" : "a directory that pods do not share",
      nx__ull(nx_manifest_pods_max(m)), store->kind == NX_SUSPEND_MEMORY ? ", and is lost with it" : "");
  nx_finding_advise(f, "SUSPEND_STORE=redis://HOST or SUSPEND_STORE=sealed, if handlers wait");
}

static void check_unknown(const struct nx_manifest *m, struct nx_findings *findings) {
  for (size_t i = 0; i < m->variable_count; i++) {
    const struct nx_manifest_variable *v = &m->variables[i];
    if (nx_manifest_is_left_out(v))
      nx_finding_say(nx_manifest_add_finding(findings, NX_MANIFEST_VALUE_UNKNOWN, m->place),
                     "%s comes from %s, and this file does not have its value; planned with its default", v->name, v->from);
  }
  if (m->command_is_unknown)
    nx_finding_say(nx_manifest_add_finding(findings, NX_MANIFEST_COMMAND_UNKNOWN, m->place),
                   "command and args are not nexus serve with flags; planned without flags");
}

static void check_missing(const struct nx_manifest *m, struct nx_findings *findings) {
  for (const struct nx_manifest_missing *missing = m->missing; missing; missing = missing->next) {
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_NOT_IN_FILE, missing->place);
    if (missing->key)
      nx_finding_say(f, "ConfigMap %.63s has no key %.63s (%s), and the pod does not start without it",
                     missing->config_map, missing->key, missing->use);
    else
      nx_finding_say(f, "ConfigMap %.63s (%s) is not in this file; planned as if it were empty", missing->config_map,
                     missing->use);
    nx_finding_advise(f, "add it, or say optional: true");
  }
}

/* The kubelet fills in what is set before it, and nothing in values of a ConfigMap or a Secret; the rest it leaves as it is. */
static void check_references(const struct nx_manifest *m, struct nx_findings *findings) {
  for (size_t i = 0; i < m->variable_count; i++) {
    const struct nx_manifest_variable *v = &m->variables[i];
    const char *begin = v->value ? strstr(v->value, "$(") : NULL, *end = begin ? strchr(begin, ')') : NULL;
    if (!end) continue;
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_NOT_FILLED_IN, m->place);
    nx_finding_say(f, "%.63s has %.*s in it as it stands: no variable of that name is set before it", v->name,
                   (int)(end + 1 - begin < 64 ? end + 1 - begin : 64), begin);
    nx_finding_advise(f, "set that variable in env, before %.63s", v->name);
  }
}

void nx__check_pod(const struct nx_manifest *m, const struct nx_config *config, struct nx_findings *findings) {
  check_limit(m, config, findings);
  check_cores(m, config, findings);
  check_grace(m, config, findings);
  check_ports(m, config, findings);
  check_suspensions(m, config, findings);
}

void nx_manifest_check(const struct nx_manifest *manifest, const struct nx_config *config, struct nx_findings *findings) {
  nx__check_scaling(manifest, findings);
  if (config) nx__check_pod(manifest, config, findings);
  if (config) nx__check_volumes(manifest, config, findings);
  check_liveness(manifest, findings);
  check_missing(manifest, findings);
  check_references(manifest, findings);
  check_unknown(manifest, findings);
}
