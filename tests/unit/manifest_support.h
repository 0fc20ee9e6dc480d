/* SPDX-License-Identifier: Apache-2.0
 * Small manifests for tests: a Deployment around what a test wants to say. */
#ifndef NX_TESTS_MANIFEST_SUPPORT_H
#define NX_TESTS_MANIFEST_SUPPORT_H

#include <stdio.h>
#include <string.h>

#include "manifest/manifest.h"

/* Fields of the container, in flow style: "envFrom: […], env: […]". */
#define CONTAINER(fields) DEPLOYMENT("", "", "{name: nexus, " fields "}")
/* Fields of the Deployment's spec and of the pod, each ending in a comma; containers. */
#define DEPLOYMENT(spec, pod, containers)                                                                       \
  "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: nexus, namespace: ns}, spec: {" spec            \
  "template: {metadata: {labels: {app: nexus}}, spec: {" pod "containers: [" containers "]}}}}\n"
#define OBJECT(kind, name, fields) \
  "---\n{apiVersion: v1, kind: " kind ", metadata: {name: " name ", namespace: ns}, " fields "}\n"

static struct nx_manifest *read_manifest_with(const char *text, const struct nx_manifest_overrides *overrides) {
  struct nx_manifest *manifest = NULL;
  struct nx_error err = {0};
  if (nx_manifest_read(&manifest, "m.yaml", text, strlen(text), overrides, &err)) fail_msg("%s", err.text);
  return manifest;
}

static __attribute__((unused)) struct nx_manifest *read_manifest(const char *text) {
  const struct nx_manifest_overrides none = {0};
  return read_manifest_with(text, &none);
}

static __attribute__((unused)) void refuses_manifest(const char *text, const char *message) {
  const struct nx_manifest_overrides none = {0};
  struct nx_manifest *manifest = NULL;
  struct nx_error err = {0};
  assert_int_equal(nx_manifest_read(&manifest, "m.yaml", text, strlen(text), &none, &err), -NX_ERR_INVALID);
  if (!strstr(err.text, message)) fail_msg("\"%s\" is not in \"%s\"", message, err.text);
}

#endif
