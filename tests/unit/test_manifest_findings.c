/* SPDX-License-Identifier: Apache-2.0
 * Contradictions, one by one, over small manifests. The good one has none; tests/integration/test_plan_manifest.py has the
 * same over a whole file, through the command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "manifest/contradictions.h"
#include "manifest_support.h"

#define SIZES "resources: {requests: {memory: 256Mi, cpu: 500m}, limits: {memory: 1Gi, cpu: '1'}}, "
#define HPA(spec, metrics) \
  OBJECT("HorizontalPodAutoscaler", "hpa", "spec: {scaleTargetRef: {kind: Deployment, name: nexus}, " spec "metrics: [" metrics "]}")
#define METRIC(name, percent) "{type: Resource, resource: {name: " name ", target: {type: Utilization, averageUtilization: " #percent "}}}"
#define OWN_METRIC(name, percent) \
  "{type: ContainerResource, containerResource: {name: " name ", container: nexus, target: {type: Utilization, averageUtilization: " #percent "}}}"
#define PODS "minReplicas: 2, maxReplicas: 10, "
#define SEALED "env: [{name: SUSPEND_STORE, value: sealed}, {name: SUSPEND_KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}], "
#define MOUNTED(fields, volume, path) \
  DEPLOYMENT("", "volumes: [{name: v, " volume "}], ", "{name: nexus, " SIZES fields "volumeMounts: [{name: v, mountPath: " path "}]}")

static struct nx_findings findings_of(const char *text) {
  struct nx_manifest *m = read_manifest(text);
  struct nx_findings findings = {0};
  struct nx_config config;
  struct nx_machine machine = nx_manifest_machine(m);
  struct nx_buf problems = {0};
  struct nx_error err = {0};
  if (nx_config_load(&config, m->environment, (int)m->argument_count, m->arguments, &problems, &err))
    fail_msg("%.*s", (int)problems.len, problems.data);
  nx_config_derive(&config, &machine, &err);
  nx_manifest_check(m, &config, &findings);
  nx_findings_sort(&findings);
  nx_manifest_destroy(m);
  return findings;
}

static bool includes(const struct nx_findings *findings, const char *name, const char *words) {
  for (size_t i = 0; i < findings->count; i++) {
    const struct nx_finding *f = &findings->items[i];
    if (!strcmp(f->name, name) && (strstr(f->message, words) || strstr(f->advice, words))) return true;
  }
  return false;
}

static void print_all(const struct nx_findings *findings) {
  for (size_t i = 0; i < findings->count; i++)
    print_message("%s: %s. Change: %s\n", findings->items[i].name, findings->items[i].message, findings->items[i].advice);
}

struct row {
  const char *text, *name, *words; /* name NULL: nothing at all is found */
};

static void check_rows(const struct row *rows, size_t count) {
  for (size_t i = 0; i < count; i++) {
    struct nx_findings findings = findings_of(rows[i].text);
    bool right = rows[i].name ? includes(&findings, rows[i].name, rows[i].words) : !findings.count;
    if (!right) {
      print_all(&findings);
      fail_msg("row %zu: not %s (%s)", i, rows[i].name ? rows[i].name : "nothing", rows[i].words ? rows[i].words : "");
    }
    nx_findings_deinit(&findings);
  }
}
#define CHECK(rows) check_rows(rows, sizeof(rows) / sizeof *(rows))

static void autoscalers(void **state) {
  static const struct row rows[] = {
    {CONTAINER(SIZES SEALED), NULL, NULL},
    {CONTAINER(SIZES SEALED) HPA(PODS, METRIC("memory", 80) "," METRIC("cpu", 70)), NULL, NULL},
    {CONTAINER(SIZES SEALED) HPA("minReplicas: 3, maxReplicas: 2, ", METRIC("memory", 80)), "minReplicas above maxReplicas", "maxReplicas=3"},
    {DEPLOYMENT("replicas: 3, ", "", "{name: nexus, " SIZES SEALED "}") HPA(PODS, METRIC("memory", 80)), "replicas beside autoscaler", "replicas: 3"},
    {CONTAINER(SIZES SEALED) HPA(PODS, METRIC("memory", 80)) HPA(PODS, METRIC("cpu", 80)), "two autoscalers", "2 autoscalers"},
    {CONTAINER("resources: {limits: {cpu: 1}}") HPA(PODS, METRIC("memory", 80)), "autoscaler without memory request", "container nexus"},
    {CONTAINER("resources: {limits: {memory: 1Gi}}") HPA(PODS, METRIC("cpu", 70)), "autoscaler without cpu request", "container nexus"},
    {DEPLOYMENT("", "", "{name: nexus, " SIZES "}, {name: log}") HPA(PODS, METRIC("cpu", 70)), "autoscaler without cpu request", "container log"},
    {DEPLOYMENT("", "", "{name: nexus, " SIZES "}, {name: log, resources: {requests: {memory: 64Mi, cpu: 50m}}}") HPA(PODS, METRIC("memory", 80)),
     "sidecars count", "1 beside nexus request 64.0 MiB and 50m"},
    {DEPLOYMENT("", "", "{name: nexus, " SIZES SEALED "}, {name: log}") HPA(PODS, OWN_METRIC("memory", 80) "," OWN_METRIC("cpu", 70)), NULL, NULL},
    {DEPLOYMENT("", "initContainers: [{name: log, restartPolicy: Always}], ", "{name: nexus, " SIZES "}") HPA(PODS, METRIC("memory", 80)),
     "autoscaler without memory request", "container log"},
    {DEPLOYMENT("", "initContainers: [{name: once}], ", "{name: nexus, " SIZES SEALED "}") HPA(PODS, METRIC("memory", 80)), NULL, NULL},
    {CONTAINER(SIZES SEALED) "---\n{apiVersion: v1, kind: HorizontalPodAutoscaler, metadata: {name: h, namespace: other}, spec: {maxReplicas: 2, scaleTargetRef: {kind: Deployment, name: nexus}}}",
     "autoscaler without target", "Deployment other/nexus"},
    {CONTAINER(SIZES SEALED) OBJECT("HorizontalPodAutoscaler", "h", "spec: {maxReplicas: 2, scaleTargetRef: {kind: Deployment, name: nexuss}}"),
     "autoscaler without target", "ns/nexuss"},
    {CONTAINER(SIZES SEALED) HPA(PODS, "{type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 200Mi}}}"),
     "autoscaler not planned", "averageUtilization"},
  };
  CHECK(rows);
}

/* Sums and products beyond 64 bits do not begin at 0 again. */
static void large_numbers(void **state) {
  static const struct row pinned[] = {
    {CONTAINER("resources: {requests: {memory: 1Gi, cpu: 1m}, limits: {memory: 1Gi, cpu: 5764607523034235m}}, ")
       HPA("minReplicas: 32, maxReplicas: 10000, ", METRIC("cpu", 1)), "pinned at maximum", ""}};
  CHECK(pinned);
  enum { COUNT = 300, EACH_BYTES = 100 };
  char *text = malloc((COUNT + 20) * EACH_BYTES);
  size_t used = (size_t)sprintf(text, HPA(PODS, METRIC("memory", 80)) DEPLOYMENT("", "", "{name: nexus, " SIZES "}"));
  used -= strlen("]}}}}\n");
  for (unsigned i = 0; i < COUNT; i++)
    used += (size_t)sprintf(text + used, ", {name: s%u, resources: {requests: {memory: 65535Ti, cpu: 50m}}}", i);
  sprintf(text + used, "]}}}}\n");
  struct nx_manifest *m = read_manifest(text);
  assert_true(m->sidecars_memory_bytes > UINT64_C(1) << 62);
  assert_int_equal(m->sidecars_millicores, COUNT * 50);
  nx_manifest_destroy(m);
  free(text);
}

/* ceil(2 × 1000 ÷ (70 % × 250)) = 12; with 318m it is 9. */
static void pinned_by_cpu(void **state) {
#define CPU(request, limit) "resources: {requests: {memory: 256Mi, cpu: " request "}, limits: {memory: 1Gi, cpu: " limit "}}, " SEALED
  static const struct row rows[] = {
    {CONTAINER(CPU("250m", "1000m")) HPA(PODS, METRIC("cpu", 70)), "pinned at maximum", "want 12 at once (70 % of a request of 250m each), and maxReplicas is 10"},
    {CONTAINER(CPU("250m", "1000m")) HPA(PODS, METRIC("cpu", 70)), "pinned at maximum", "requests.cpu=318m or maxReplicas=13"},
    {CONTAINER(CPU("317m", "1000m")) HPA(PODS, METRIC("cpu", 70)), "pinned at maximum", "want 10 at once"},
    {CONTAINER(CPU("318m", "1000m")) HPA(PODS, METRIC("cpu", 70)), NULL, NULL},
    {CONTAINER(CPU("250m", "1000m")) HPA("minReplicas: 2, maxReplicas: 13, ", METRIC("cpu", 70)), NULL, NULL},
    {CONTAINER(CPU("500m", "1000m")) HPA("minReplicas: 9, maxReplicas: 10, ", METRIC("cpu", 70)), "pinned at maximum", "maxReplicas=27"},
    {CONTAINER(CPU("250m", "1000m")) HPA("minReplicas: 10, maxReplicas: 10, ", METRIC("cpu", 70)), NULL, NULL},
    {CONTAINER(CPU("250m", "1000m")) HPA(PODS, OWN_METRIC("cpu", 70)), "pinned at maximum", "want 12"},
  };
  CHECK(rows);
}

static void vertical(void **state) {
#define VPA(fields) OBJECT("VerticalPodAutoscaler", "vpa", "spec: {targetRef: {kind: Deployment, name: nexus}, " fields "}")
#define BOTH CONTAINER(SIZES SEALED) HPA(PODS, METRIC("memory", 80) "," METRIC("cpu", 70))
#define POLICY(fields) "resourcePolicy: {containerPolicies: [" fields "]}"
  static const struct row rows[] = {
    {BOTH VPA(""), "vpa and hpa on memory", "VerticalPodAutoscaler vpa"},
    {BOTH VPA(""), "vpa and hpa on cpu", "requests.cpu"},
    {BOTH VPA("updatePolicy: {updateMode: 'Off'}"), NULL, NULL},
    {BOTH VPA("updatePolicy: {updateMode: Initial}"), "vpa and hpa on memory", ""},
    {BOTH VPA(POLICY("{containerName: nexus, mode: 'Off'}, {containerName: '*'}")), NULL, NULL},
    {BOTH VPA(POLICY("{containerName: '*', controlledResources: [memory]}")), "vpa and hpa on memory", ""},
    {CONTAINER(SIZES SEALED) HPA(PODS, METRIC("cpu", 70)) VPA(POLICY("{containerName: '*', controlledResources: [memory]}")), NULL, NULL},
    {CONTAINER(SIZES SEALED) VPA(""), NULL, NULL},
    {BOTH OBJECT("VerticalPodAutoscaler", "vpa", "spec: {targetRef: {kind: Deployment, name: web}}"), NULL, NULL},
  };
  CHECK(rows);
}

static void disruption_budgets(void **state) {
#define PDB(fields) CONTAINER(SIZES SEALED) HPA(PODS, METRIC("memory", 80)) OBJECT("PodDisruptionBudget", "pdb", "spec: {" fields "}")
#define OURS "selector: {matchLabels: {app: nexus}}, "
  static const struct row rows[] = {
    {PDB(OURS "maxUnavailable: 1"), NULL, NULL},
    {PDB(OURS "minAvailable: 1"), NULL, NULL},
    {PDB(OURS "minAvailable: 50%"), NULL, NULL},
    {PDB(OURS "minAvailable: 2"), "never evictable", "keeps 2 pods, and there may be no more than 2"},
    {PDB(OURS "minAvailable: 51%"), "never evictable", "keeps 2 pods"},
    {PDB(OURS "maxUnavailable: 0"), "never evictable", "allows no pod"},
    {PDB(OURS "maxUnavailable: 0%"), "never evictable", "maxUnavailable: 1"},
    {PDB("selector: {matchExpressions: [{key: app, operator: In, values: [web, nexus]}]}, minAvailable: 2"), "never evictable", ""},
    {PDB("selector: {matchExpressions: [{key: app, operator: NotIn, values: [nexus]}]}, minAvailable: 2"), NULL, NULL},
    {PDB("selector: {matchExpressions: [{key: other, operator: DoesNotExist}]}, minAvailable: 2"), "never evictable", ""},
    {PDB("selector: {matchExpressions: [{key: other, operator: Exists}]}, minAvailable: 2"), NULL, NULL},
    {PDB("selector: {}, minAvailable: 2"), "never evictable", ""},
    {PDB("selector: {matchLabels: {app: web}}, minAvailable: 2"), NULL, NULL},
    {PDB("minAvailable: 2"), NULL, NULL},
    {CONTAINER(SIZES SEALED) OBJECT("PodDisruptionBudget", "pdb", "spec: {" OURS "minAvailable: 1}"), "never evictable", "at least two pods"},
  };
  CHECK(rows);
}

static void volumes(void **state) {
#define EMPTY(fields) "emptyDir: {" fields "}"
#define CACHE "/tmp/nexus-cache"
#define CACHE_MB(mb) "env: [{name: CACHE_MAX_MB, value: '" #mb "'}], "
  static const struct row rows[] = {
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 128Mi"), CACHE), NULL, NULL},
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 64Mi"), CACHE), NULL, NULL},
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 63Mi"), CACHE), "cache above its volume", "CACHE_MAX_MB is 64 and the sizeLimit of volume v 63.0 MiB"},
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 63Mi"), CACHE), "cache above its volume", "CACHE_MAX_MB=63 or sizeLimit=64Mi"},
    {MOUNTED(CACHE_MB(200), EMPTY("sizeLimit: 128Mi"), "/tmp/"), "cache above its volume", "evicts the pod"},
    {MOUNTED(CACHE_MB(200), EMPTY("sizeLimit: 128Mi"), "/tmp/nexus"), NULL, NULL},
    {MOUNTED(CACHE_MB(200), EMPTY("sizeLimit: 128Mi"), "/"), "cache above its volume", ""},
    {MOUNTED("", EMPTY("medium: Memory"), CACHE), "memory volume without size", "volume v"},
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 2Gi"), "/scratch"), "memory volume above limit", "2048.0 MiB, and the memory limit is 1024.0"},
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 900Mi"), "/scratch"), "memory volumes too large", "sizeLimit=879Mi"},
    {MOUNTED("", EMPTY("medium: Memory, sizeLimit: 879Mi"), "/scratch"), NULL, NULL},
    {MOUNTED("securityContext: {readOnlyRootFilesystem: true}, ", EMPTY(""), "/data"), "cache not writable", "root, which is read-only"},
    {MOUNTED("securityContext: {readOnlyRootFilesystem: true}, ", EMPTY(""), CACHE), NULL, NULL},
    {MOUNTED("", "secret: {secretName: s}", CACHE), "cache not writable", "a volume that is read-only"},
  };
  CHECK(rows);
}

static void times(void **state) {
#define TIMES(grace, hook) \
  DEPLOYMENT("", "terminationGracePeriodSeconds: " #grace ", ", "{name: nexus, " SIZES "lifecycle: {preStop: {" hook "}}}")
#define EXEC(...) "exec: {command: [" #__VA_ARGS__ "]}"
  static const struct row rows[] = {
    {CONTAINER(SIZES), NULL, NULL}, /* 30 s and 25 s */
    {TIMES(30, EXEC(sleep, "5")), NULL, NULL},
    {TIMES(29, EXEC(sleep, "5")), "grace shorter than drain", "is 29, and preStop (5.0 s) and SHUTDOWN_GRACE_MS (25.0 s) need 30.0 s"},
    {TIMES(29, EXEC(sleep, "5")), "grace shorter than drain", "terminationGracePeriodSeconds=30 or SHUTDOWN_GRACE_MS=24000"},
    {TIMES(29, "sleep: {seconds: 5}"), "grace shorter than drain", "29"},
    {TIMES(29, EXEC(/bin/sleep, 5s)), "grace shorter than drain", "29"},
    {TIMES(29, EXEC(/bin/sh, -c, "sleep 5")), "grace shorter than drain", "29"},
    {TIMES(29, EXEC(sh, -c, "touch /tmp/x; /usr/bin/sleep 5 && true")), "grace shorter than drain", "29"},
    {TIMES(40, EXEC(sh, -c, "sleep 0.5m")), "grace shorter than drain", "55.0 s"},
    {TIMES(40, EXEC(sleep, "1d")), "grace shorter than drain", "preStop (86400.0 s)"},
    {TIMES(29, EXEC(nosleep, "5")), "preStop unknown", ""},
    {TIMES(24, "httpGet: {port: 1}"), "grace shorter than drain", ""},
    {TIMES(29, "httpGet: {port: 1}"), "preStop unknown", ""},
  };
  CHECK(rows);
}

static void ports_and_probes(void **state) {
#define ADMIN "env: [{name: ADMIN_PORT, value: '3001'}], "
#define PORTS "ports: [{name: http, containerPort: 3000}, {name: admin, containerPort: 3001}], "
#define SERVICE(port) OBJECT("Service", "nexus", "spec: {selector: {app: nexus}, ports: [{" port "}]}")
  static const struct row rows[] = {
    {CONTAINER(SIZES ADMIN PORTS "livenessProbe: {httpGet: {path: /livez, port: admin}}, readinessProbe: {tcpSocket: {port: 3000}}")
     SERVICE("port: 80, targetPort: http") , NULL, NULL},
    {CONTAINER(SIZES PORTS), "nobody listens", "containerPort admin wants port 3001; nexus listens on PORT=3000 and ADMIN_PORT (none)"},
    {CONTAINER(SIZES "ports: [{name: statsd, containerPort: 3001, protocol: UDP}]"), NULL, NULL},
    {CONTAINER(SIZES ADMIN "readinessProbe: {httpGet: {port: 8080}}"), "nobody listens", "readinessProbe wants port 8080"},
    {CONTAINER(SIZES ADMIN "startupProbe: {httpGet: {port: web}}"), "nobody listens", "startupProbe wants port \"web\""},
    {CONTAINER(SIZES ADMIN) SERVICE("port: 80"), "nobody listens", "Service nexus wants port 80"},
    {CONTAINER(SIZES ADMIN) SERVICE("port: 3000"), NULL, NULL},
    {CONTAINER(SIZES ADMIN) SERVICE("port: 80, targetPort: web"), "nobody listens", "\"web\""},
    {CONTAINER(SIZES ADMIN) OBJECT("Service", "web", "spec: {selector: {app: web}, ports: [{port: 80}]}"), NULL, NULL},
    {DEPLOYMENT("", "", "{name: nexus, " SIZES "}, {name: log, ports: [{name: log, containerPort: 80}]}") SERVICE("port: 80, targetPort: log"), NULL, NULL},
    {CONTAINER(SIZES "env: [{name: PORT, valueFrom: {secretKeyRef: {name: s, key: k}}}], ports: [{containerPort: 80}]"), "value unknown", "PORT comes from Secret s"},
    {CONTAINER(SIZES "livenessProbe: {httpGet: {path: /health, port: 3000}}"), "liveness depends on load", "asks /health"},
    {CONTAINER(SIZES "livenessProbe: {httpGet: {path: '/readyz?x', port: 3000}}"), "liveness depends on load", "asks /readyz"},
    {CONTAINER(SIZES "livenessProbe: {exec: {command: [/usr/bin/nexus, health]}}"), "liveness depends on load", "nexus health"},
    {CONTAINER(SIZES "readinessProbe: {httpGet: {path: /readyz, port: 3000}}"), NULL, NULL},
  };
  CHECK(rows);
}

static void limits(void **state) {
  static const struct row rows[] = {
    {CONTAINER(""), "no limit", "limits.memory of container nexus"},
    {CONTAINER("resources: {limits: {cpu: 1}}, env: [{name: CONTAINER_MEMORY_LIMIT, value: 1Gi}]"), NULL, NULL}, /* the plan says it */
    {CONTAINER(SIZES "env: [{name: CONTAINER_MEMORY_LIMIT, value: 2Gi}]"), "budget above limit",
     "CONTAINER_MEMORY_LIMIT says 2048.0 MiB and the container has 1024.0"},
    {CONTAINER(SIZES "env: [{name: CONTAINER_MEMORY_LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]"), NULL, NULL},
    {CONTAINER("resources: {limits: {memory: 1Gi}}"), "no cpu limit", "planned with 24"},
    {CONTAINER("resources: {limits: {memory: 1Gi}}, env: [{name: MAX_INSTANCES, value: '3'}]"), NULL, NULL},
  };
  CHECK(rows);
}

static void references(void **state) {
  static const struct row rows[] = {
    {CONTAINER(SIZES "envFrom: [{configMapRef: {name: c}}]"), "not in this file", "ConfigMap c (envFrom) is not in this file"},
    {CONTAINER(SIZES "envFrom: [{configMapRef: {name: c, optional: true}}, {secretRef: {name: s}}]"), NULL, NULL},
    {CONTAINER(SIZES "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k}}}]") OBJECT("ConfigMap", "c", "data: {}"),
     "not in this file", "ConfigMap c has no key k (env)"},
    {CONTAINER(SIZES "envFrom: [{configMapRef: {name: c}}]")
     "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: other}}\n", "not in this file", ""},
    {MOUNTED("", "configMap: {name: c}", "/x"), "not in this file", "ConfigMap c (volume)"},
    {MOUNTED("", "configMap: {name: c, items: [{key: a, path: a}]}", "/x") OBJECT("ConfigMap", "c", "data: {b: ''}"), "not in this file", "no key a"},
    {MOUNTED("", "projected: {sources: [{configMap: {name: c}}, {secret: {name: s}}]}", "/x"), "not in this file", "ConfigMap c"},
    {CONTAINER(SIZES "command: [sh, -c, nexus serve]"), "command unknown", ""},
    {CONTAINER(SIZES "env: [{name: A, value: 'x$(B)y'}, {name: B, value: b}]"), "reference not filled in", "A has $(B) in it"},
    {CONTAINER(SIZES "env: [{name: B, value: b}, {name: A, value: 'x$(B)y'}]"), NULL, NULL},
    {CONTAINER(SIZES "env: [{name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: A, value: 'x$(B)y'}]"), NULL, NULL},
    {CONTAINER(SIZES "envFrom: [{configMapRef: {name: c}}]") OBJECT("ConfigMap", "c", "data: {A: '$(B)'}"), "reference not filled in", "A has $(B)"},
  };
  CHECK(rows);
}

static void suspensions(void **state) {
#define FILES "env: [{name: SUSPEND_STORE, value: 'file:/s/x'}, {name: SUSPEND_KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}], "
  static const struct row rows[] = {
    {CONTAINER(SIZES) HPA(PODS, METRIC("memory", 80)), "suspensions stay in their pod", "SUSPEND_STORE is memory, and there can be 10 pods"},
    {DEPLOYMENT("replicas: 2, ", "", "{name: nexus, " SIZES "}"), "suspensions stay in their pod", "2 pods"},
    {DEPLOYMENT("replicas: 1, ", "", "{name: nexus, " SIZES "}"), NULL, NULL},
    {MOUNTED(FILES, EMPTY(""), "/s") HPA(PODS, METRIC("memory", 80)), "suspensions stay in their pod", "a directory that pods do not share"},
    {MOUNTED(FILES, "hostPath: {path: /s}", "/s") HPA(PODS, METRIC("memory", 80)), "suspensions stay in their pod", ""},
    {MOUNTED(FILES, "persistentVolumeClaim: {claimName: s}", "/s") HPA(PODS, METRIC("memory", 80)), NULL, NULL},
    {CONTAINER(SIZES "env: [{name: SUSPEND_STORE, valueFrom: {secretKeyRef: {name: s, key: u}}}, {name: SUSPEND_KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}]")
     HPA(PODS, METRIC("memory", 80)), NULL, NULL},
  };
  CHECK(rows);
}

static void qos(void **state) {
  static const struct { const char *text; enum nx_plan_qos qos; } rows[] = {
    {CONTAINER(SIZES), NX_PLAN_BURSTABLE},
    {CONTAINER(""), NX_PLAN_BEST_EFFORT},
    {CONTAINER("resources: {limits: {memory: 1Gi, cpu: 1}}"), NX_PLAN_GUARANTEED},
    {CONTAINER("resources: {limits: {memory: 1Gi}}"), NX_PLAN_BURSTABLE},
    {CONTAINER("resources: {limits: {memory: 1Gi, cpu: 1}, requests: {memory: 1024Mi, cpu: 1000m}}"), NX_PLAN_GUARANTEED},
    {CONTAINER("resources: {limits: {memory: 1Gi, cpu: 1}, requests: {cpu: 500m}}"), NX_PLAN_BURSTABLE},
    {DEPLOYMENT("", "", "{name: nexus, resources: {limits: {memory: 1Gi, cpu: 1}}}, {name: log}"), NX_PLAN_BURSTABLE},
    {DEPLOYMENT("", "initContainers: [{name: once}], ", "{name: nexus, resources: {limits: {memory: 1Gi, cpu: 1}}}"), NX_PLAN_BURSTABLE},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct nx_manifest *m = read_manifest(rows[i].text);
    assert_int_equal(m->qos, rows[i].qos);
    nx_manifest_destroy(m);
  }
}

static void flags_win(void **state) {
  const struct nx_manifest_overrides overrides = {.memory_limit_bytes = 2 << 20, .memory_request_bytes = 1 << 20, .cores = 7,
                                                  .hpa_percent = 60, .pods_min = 3, .pods_max = 5};
  static const char *const texts[] = {CONTAINER(""), CONTAINER(SIZES) HPA(PODS, METRIC("memory", 80))};
  for (size_t i = 0; i < 2; i++) {
    struct nx_manifest *m = read_manifest_with(texts[i], &overrides);
    assert_int_equal(m->memory.limit, 2 << 20);
    assert_int_equal(m->memory.request, 1 << 20);
    assert_int_equal(m->cores, 7);
    assert_int_equal(m->hpa.memory_percent, 60);
    assert_int_equal(nx_manifest_pods_min(m), 3);
    assert_int_equal(nx_manifest_pods_max(m), 5);
    nx_manifest_destroy(m);
  }
}

static void lists_are_bounded_and_sorted(void **state) {
  struct nx_findings findings = {0};
  for (unsigned i = 0; i < NX_FINDINGS_MAX + 50; i++) {
    struct nx_finding *f = nx_findings_add(&findings, "x", i == NX_FINDINGS_MAX + 49 ? NX_SEVERITY_ERROR : i % 2 ? NX_SEVERITY_NOTE : NX_SEVERITY_WARNING);
    nx_finding_say(f, "%u", i);
  }
  assert_int_equal(findings.count, NX_FINDINGS_MAX);
  assert_int_equal(findings.left_out, 50);
  assert_int_equal(findings.worst, NX_SEVERITY_ERROR);
  nx_findings_sort(&findings);
  for (unsigned i = 0; i < NX_FINDINGS_MAX; i++) {
    unsigned half = NX_FINDINGS_MAX / 2;
    assert_int_equal(atoi(findings.items[i].message), i < half ? 2 * i : 2 * (i - half) + 1);
  }
  nx_findings_deinit(&findings);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(large_numbers),
    cmocka_unit_test(autoscalers), cmocka_unit_test(pinned_by_cpu),    cmocka_unit_test(vertical),  cmocka_unit_test(disruption_budgets),
    cmocka_unit_test(volumes),     cmocka_unit_test(times),            cmocka_unit_test(limits),    cmocka_unit_test(ports_and_probes),
    cmocka_unit_test(references),  cmocka_unit_test(suspensions),      cmocka_unit_test(qos),       cmocka_unit_test(flags_win),
    cmocka_unit_test(lists_are_bounded_and_sorted)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
