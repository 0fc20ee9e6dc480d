/* SPDX-License-Identifier: Apache-2.0
 * Which Deployment it is, and the environment and arguments that its container would have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "manifest_support.h"

#define C1 OBJECT("ConfigMap", "c1", "data: {A: c1, B: c1, 'not ok': x, '1': x, E: ''}")
#define C2 OBJECT("ConfigMap", "c2", "data: {B: c2, C: c2}")
#define S1 OBJECT("Secret", "s1", "data: {A: czE=, D: 'ZGF0\nYQ=='}, stringData: {D: text}")

static const char *value(const struct nx_manifest *m, const char *name) {
  const struct nx_manifest_variable *variable = nx_manifest_find_variable(m, name);
  return !variable ? "(unset)" : variable->value ? variable->value : "(unknown)";
}

static void has(const char *text, const char *name, const char *expected) {
  struct nx_manifest *m = read_manifest(text);
  assert_string_equal(value(m, name), expected);
  nx_manifest_destroy(m);
}

static void env_from(void **state) {
#define BOTH C1 C2 CONTAINER("envFrom: [{configMapRef: {name: c1}}, {configMapRef: {name: c2}}]")
  has(BOTH, "A", "c1");
  has(BOTH, "B", "c2");
  has(BOTH, "C", "c2");
  has(BOTH, "E", "");
  has(BOTH, "not ok", "(unset)");
  has(BOTH, "1", "(unset)");
  has(C1 C2 CONTAINER("envFrom: [{configMapRef: {name: c2}}, {configMapRef: {name: c1}}]"), "B", "c1");
  has(C1 CONTAINER("envFrom: [{prefix: X_, configMapRef: {name: c1}}]"), "X_A", "c1");
  has(C1 CONTAINER("envFrom: [{prefix: X_, configMapRef: {name: c1}}]"), "A", "(unset)");
  has(C1 CONTAINER("envFrom: [{prefix: 'X', configMapRef: {name: c1}}]"), "X1", "x");
  has(S1 CONTAINER("envFrom: [{secretRef: {name: s1}}]"), "A", "s1");
  has(S1 CONTAINER("envFrom: [{secretRef: {name: s1}}]"), "D", "text");
  has(C1 CONTAINER("envFrom: [{configMapRef: {name: c1}}], env: [{name: A, value: env}, {name: A, value: last}]"), "A", "last");
  /* Applied in order, the last object of a name stays. */
  has(C1 OBJECT("ConfigMap", "c1", "data: {A: again}") CONTAINER("envFrom: [{configMapRef: {name: c1}}]"), "A", "again");
}

static void env_value_from(void **state) {
#define KEY(kind, fields) CONTAINER("env: [{name: V, valueFrom: {" kind ": {" fields "}}}]")
  has(C1 KEY("configMapKeyRef", "name: c1, key: A"), "V", "c1");
  has(C1 KEY("configMapKeyRef", "name: c1, key: Z"), "V", "(unset)");
  has(S1 KEY("secretKeyRef", "name: s1, key: A"), "V", "s1");
  has(S1 KEY("secretKeyRef", "name: s1, key: Z"), "V", "(unknown)");
  has(S1 KEY("secretKeyRef", "name: s1, key: Z, optional: true"), "V", "(unset)");
  has(KEY("secretKeyRef", "name: s2, key: Z"), "V", "(unknown)");
  has(KEY("fieldRef", "fieldPath: status.podIP"), "V", "(unknown)");
  has(C1 CONTAINER("env: [{name: V, value: '', valueFrom: {configMapKeyRef: {name: c1, key: A}}}]"), "V", "c1");
}

static void env_resources(void **state) {
#define SIZED(reference) CONTAINER("resources: {limits: {memory: 1Gi, cpu: 1500m}}, env: [{name: V, valueFrom: {resourceFieldRef: {" reference "}}}]")
  has(SIZED("resource: limits.memory"), "V", "1073741824");
  has(SIZED("resource: limits.memory, divisor: 1Mi"), "V", "1024");
  has(SIZED("resource: limits.memory, divisor: '0'"), "V", "1073741824");
  has(SIZED("resource: requests.memory, divisor: 3M"), "V", "358");
  has(SIZED("resource: limits.cpu"), "V", "2");
  has(SIZED("resource: limits.cpu, divisor: 1m"), "V", "1500");
  has(SIZED("resource: limits.ephemeral-storage"), "V", "(unknown)");
  has(CONTAINER("env: [{name: V, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]"), "V", "(unknown)");
  has(DEPLOYMENT("", "", "{name: nexus, env: [{name: V, valueFrom: {resourceFieldRef: {containerName: b, resource: limits.memory}}}]},"
                         "{name: b, resources: {limits: {memory: 64Mi}}}"), "V", "67108864");
}

static void expansion(void **state) {
#define EXPANDED(text) C1 CONTAINER("envFrom: [{configMapRef: {name: c1}}], env: [{name: F, value: f}, {name: V, value: '" text "'}, {name: L, value: l}]")
  has(EXPANDED("x$(F)y$(A)z"), "V", "xfyc1z");
  has(EXPANDED("$(L) $(NONE) $(V)"), "V", "$(L) $(NONE) $(V)");
  has(EXPANDED("$$(F) $$$(F) $F $( $(F"), "V", "$(F) $f $F $( $(F");
  has(EXPANDED("$"), "V", "$");
  has(EXPANDED("$()"), "V", "$()");
  has(CONTAINER("env: [{name: S, valueFrom: {fieldRef: {}}}, {name: V, value: 'a$(S)'}]"), "V", "(unknown)");
  has(OBJECT("ConfigMap", "c3", "data: {V: $(F)}") CONTAINER("env: [{name: F, value: f}, {name: V, valueFrom: {configMapKeyRef: {name: c3, key: V}}}]"), "V", "$(F)");
}

static void an_expansion_bomb(void **state) {
  char text[4096];
  size_t used = (size_t)snprintf(text, sizeof text, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {"
                                 "containers: [{name: nexus, env: [{name: V0, value: xxxxxxxxxx}");
  for (unsigned i = 1; i < 40; i++)
    used += (size_t)snprintf(text + used, sizeof text - used, ", {name: V%u, value: $(V%u)$(V%u)$(V%u)$(V%u)}", i, i - 1, i - 1, i - 1, i - 1);
  snprintf(text + used, sizeof text - used, "]}]}}}}\n");
  refuses_manifest(text, "at most 128 KiB after");
}

static void arguments(void **state) {
  static const struct { const char *fields, *expected; } cases[] = {
    {"", ""}, {"args: [--port=1, --log-level, info]", "--port=1 --log-level info "}, {"args: [serve, --port=1]", "--port=1 "},
    {"command: [/usr/bin/nexus, serve], args: [--port=1]", "--port=1 "}, {"command: [nexus], args: [serve]", ""},
    {"env: [{name: P, value: '5'}], args: ['--port=$(P)']", "--port=5 "}, {"command: [sh, -c, 'nexus serve --port=1']", "?"},
    {"env: [{name: P, valueFrom: {fieldRef: {}}}], args: ['--port=$(P)']", "?"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[600], found[200] = "";
    snprintf(text, sizeof text, CONTAINER("%s"), cases[i].fields);
    struct nx_manifest *m = read_manifest(text);
    for (size_t j = 0; j < m->argument_count; j++) strcat(strcat(found, m->arguments[j]), " ");
    assert_string_equal(m->command_is_unknown ? "?" : found, cases[i].expected);
    nx_manifest_destroy(m);
  }
}

static void what_nobody_knows_is_right(void **state) {
  struct nx_manifest *m = read_manifest(CONTAINER("envFrom: [{secretRef: {name: s}}], env: [{name: SUSPEND_STORE, valueFrom: {secretKeyRef: {name: s, key: a}}},"
                                                  "{name: PORT, valueFrom: {secretKeyRef: {name: s, key: b}}}, {name: OTHER, valueFrom: {secretKeyRef: {name: s, key: c}}}]"));
  assert_string_equal(m->environment[0], "SUSPEND_STORE=redis://secret");
  assert_int_equal(strncmp(m->environment[1], "SUSPEND_KEY=0000", 16), 0);
  assert_null(m->environment[2]);
  assert_false(nx_manifest_is_left_out(nx_manifest_find_variable(m, "SUSPEND_STORE")));
  assert_true(nx_manifest_is_left_out(nx_manifest_find_variable(m, "PORT")));
  assert_false(nx_manifest_is_left_out(nx_manifest_find_variable(m, "OTHER")));
  nx_manifest_destroy(m);
}

/* A few lines whose aliases say a billion things. */
static void aliases_that_multiply(void **state) {
  char *text = malloc(1 << 20);
  size_t used = (size_t)sprintf(text, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {containers: [{name: nexus}], x: &i [");
  for (unsigned i = 0; i < 1000; i++) used += (size_t)sprintf(text + used, "{key: k}, ");
  used += (size_t)sprintf(text + used, "], y: &s [");
  for (unsigned i = 0; i < 400; i++) used += (size_t)sprintf(text + used, "{configMap: {name: c, items: *i}}, ");
  used += (size_t)sprintf(text + used, "], volumes: [");
  for (unsigned i = 0; i < 500; i++) used += (size_t)sprintf(text + used, "{name: v, projected: {sources: *s}}, ");
  sprintf(text + used, "]}}}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n");
  refuses_manifest(text, "a file that says less, over and over");
  free(text);
}

/* References are looked up one by one: few of them among many objects, or variables, are as many steps. */
static void references_that_multiply(void **state) {
  char *text = malloc(4 << 20);
  size_t used = (size_t)sprintf(text, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {containers: [{name: nexus}], x: &s [");
  for (unsigned i = 0; i < 100; i++) used += (size_t)sprintf(text + used, "{configMap: {name: c, optional: true}}, ");
  used += (size_t)sprintf(text + used, "], volumes: [");
  for (unsigned i = 0; i < 100; i++) used += (size_t)sprintf(text + used, "{name: v, projected: {sources: *s}}, ");
  used += (size_t)sprintf(text + used, "]}}}}\n");
  for (unsigned i = 0; i < 5000; i++)
    used += (size_t)sprintf(text + used, "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c%u}}\n", i);
  refuses_manifest(text, "a file that says less, over and over");

  used = (size_t)sprintf(text, OBJECT("ConfigMap", "c", "data: {"));
  used -= sizeof "}\n" - 1;
  for (unsigned i = 0; i < 4000; i++) used += (size_t)sprintf(text + used, "V%u: '', ", i);
  used += (size_t)sprintf(text + used, "}}\n" DEPLOYMENT("", "", "{name: nexus, envFrom: ["));
  used -= strlen("]}}}}\n");
  for (unsigned i = 0; i < 100; i++) used += (size_t)sprintf(text + used, "{configMapRef: {name: c}}, ");
  sprintf(text + used, "]}]}}}}\n");
  refuses_manifest(text, "a file that says less, over and over");
  free(text);
}

/* Each "$(" could look for its ')' to the end. */
static void references_that_do_not_end(void **state) {
  enum { COUNT = 1 << 20 };
  char *text = malloc(2 * COUNT + 1000);
  size_t used = (size_t)sprintf(text, DEPLOYMENT("", "", "{name: nexus, env: [{name: V, value: '"));
  used -= strlen("]}}}}\n");
  for (unsigned i = 0; i < COUNT; i++) used += (size_t)sprintf(text + used, "$(");
  sprintf(text + used, "'}]}]}}}}\n");
  refuses_manifest(text, "at most 128 KiB after");
  free(text);
}

/* ---- Which Deployment -------------------------------------------------------------------------------------------------------------- */

#define NAMED(ns, name, containers) \
  "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: " name ", namespace: " ns "}, spec: {template: {spec: {containers: [" containers "]}}}}\n"

static void finds(const char *text, const char *ns, const char *deployment, const char *container) {
  struct nx_manifest *m = read_manifest(text);
  assert_string_equal(m->ns, ns);
  assert_string_equal(m->deployment, deployment);
  assert_string_equal(m->container, container);
  nx_manifest_destroy(m);
}

static void which_one(void **state) {
  finds(NAMED("a", "x", "{name: web, image: web}") NAMED("b", "x", "{name: log}, {name: nexus}"), "b", "x", "nexus");
  finds(NAMED("a", "nexus", "{name: web, image: 'r:5000/t/nexus:1@sha256:ab'}, {name: log, image: nexus-log}"), "a", "nexus", "web");
  finds(NAMED("a", "x", "{name: web, image: nexus}") NAMED("a", "z", "{name: nexus, image: web}"), "a", "z", "nexus");
  finds(NAMED("a", "x", "{name: web, image: runtime}"), "a", "x", "web");
  finds("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: q}}, {apiVersion: apps/v1, kind: Deployment, metadata: {name: x},"
        " spec: {template: {spec: {containers: [{name: nexus}]}}}}]}", "default", "x", "nexus");
}

static void none_or_too_many(void **state) {
  refuses_manifest("", "no Deployment that runs nexus");
  refuses_manifest(NAMED("a", "x", "{name: web, image: web}, {name: log, image: log}"), "no Deployment that runs nexus");
  refuses_manifest(NAMED("a", "x", "{name: nexus}") NAMED("b", "x", "{name: nexus}"), "more than one container could be nexus; leave one of them in the file: a/x (line 2), b/x (line 4)");
  refuses_manifest(NAMED("a", "x", "{name: m, image: nexus}, {name: o, image: x/nexus}"), "a/x (line 2), a/x (line 2)");
  refuses_manifest(NAMED("a", "x", "{name: m, image: p}") NAMED("a", "z", "{name: o, image: q}"), "a/x (line 2), a/z (line 4)");
}

static void wrong_types(void **state) {
  refuses_manifest("hello", "m.yaml:1:1: \"document\": expected an object of Kubernetes");
  refuses_manifest("- 1\n- 2\n", "found a list");
  refuses_manifest("a: b\n", "apiVersion and kind");
  refuses_manifest("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: []}]}", "no further List");
  refuses_manifest("{apiVersion: v1, kind: List, items: {}}", "expected a list, found a map");
  refuses_manifest("apiVersion: v1\nkind: Secret\nmetadata: {name: \"a\\e[31m\"}\n", "names in ASCII");
  refuses_manifest(OBJECT("ConfigMap", "c", "data: {PORT: 3000}") CONTAINER("envFrom: [{configMapRef: {name: c}}]"),
                   "m.yaml:2:84: \"PORT\": expected a string (numbers and booleans need quotes), found the number \"3000\"");
  refuses_manifest(OBJECT("Secret", "c", "data: {PORT: '!!'}") CONTAINER("envFrom: [{secretRef: {name: c}}]"), "expected text in base64");
  refuses_manifest(CONTAINER("env: {A: b}"), "\"env\": expected a list, found a map");
  refuses_manifest(CONTAINER("env: [A]"), "expected a map, found \"A\"");
  refuses_manifest(CONTAINER("env: [{value: x}]"), "\"env\": expected a name");
  refuses_manifest(CONTAINER("env: [{name: A, value: true}]"), "\"value\": expected a string");
  refuses_manifest(CONTAINER("resources: {limits: {memory: 1GB}}"), "\"memory\": expected a quantity of bytes, such as 256Mi, 1G or 1e9, found \"1GB\"");
  refuses_manifest(CONTAINER("resources: {requests: {cpu: -1}}"), "\"cpu\": expected a quantity of cores");
  refuses_manifest(CONTAINER("resources: []"), "\"resources\": expected a map");
  refuses_manifest(CONTAINER("volumeMounts: [{name: x, mountPath: /x}]"), "the name of one of the pod's volumes");
  refuses_manifest(CONTAINER("securityContext: {readOnlyRootFilesystem: 'true'}"), "expected true or false");
  refuses_manifest(DEPLOYMENT("replicas: two, ", "", "{name: nexus}"), "a whole number from 0 to 1000000, found \"two\"");
  refuses_manifest(DEPLOYMENT("", "terminationGracePeriodSeconds: 1.5, ", "{name: nexus}"), "found the number \"1.5\"");
  refuses_manifest(CONTAINER("livenessProbe: {httpGet: {port: 70000}}"), "from 0 to 65535");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(env_from),          cmocka_unit_test(env_value_from), cmocka_unit_test(env_resources),
    cmocka_unit_test(expansion),         cmocka_unit_test(an_expansion_bomb), cmocka_unit_test(arguments),
    cmocka_unit_test(what_nobody_knows_is_right), cmocka_unit_test(which_one), cmocka_unit_test(none_or_too_many),
    cmocka_unit_test(wrong_types),       cmocka_unit_test(aliases_that_multiply),
    cmocka_unit_test(references_that_multiply), cmocka_unit_test(references_that_do_not_end)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
