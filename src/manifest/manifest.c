/* SPDX-License-Identifier: Apache-2.0 */
#include "manifest/manifest_internal.h"

#include <stdlib.h>

#include "base/number.h"

struct owned {
  struct nx_manifest facts; /* first, so that one is the other */
  struct nx_yaml_set tree;
  struct nx_arena arena;
};

static int gather(struct owned *owned, const char *name, const struct nx_manifest_overrides *overrides,
                  struct nx_error *err) {
  struct nx__gather g = {.reader = {.name = name, .err = err},
                         .arena = &owned->arena,
                         .facts = &owned->facts,
                         .overrides = overrides};
  nx__objects_collect(&g, &owned->tree);
  if (!g.reader.failed) nx__workload_find(&g);
  if (g.reader.failed) return g.reader.failed;
  nx__pod_gather(&g);
  nx__environment_gather(&g);
  nx__ports_gather(&g);
  nx__scaling_gather(&g);
  return g.reader.failed;
}

int nx_manifest_read(struct nx_manifest **out, const char *name, const char *text, size_t bytes,
                     const struct nx_manifest_overrides *overrides, struct nx_error *err) {
  struct owned *owned = calloc(1, sizeof *owned);
  if (!owned) return nx_error_set(err, NX_ERR_NO_MEMORY, "%.80s: no memory", name);
  owned->facts.file = name;
  int rc = nx_yaml_parse(&owned->tree, name, text, bytes, err);
  if (!rc) rc = gather(owned, name, overrides, err);
  if (rc)
    nx_manifest_destroy(&owned->facts);
  else
    *out = &owned->facts;
  return rc;
}

void nx_manifest_destroy(struct nx_manifest *manifest) {
  struct owned *owned = (struct owned *)manifest;
  if (!owned) return;
  nx_yaml_deinit(&owned->tree);
  nx_arena_deinit(&owned->arena);
  free(owned);
}

uint64_t nx_manifest_pods_min(const struct nx_manifest *manifest) {
  return manifest->hpa.is_there ? manifest->hpa.pods_min : manifest->replicas;
}

uint64_t nx_manifest_pods_max(const struct nx_manifest *manifest) {
  return manifest->hpa.is_there ? nx_max_u64(manifest->hpa.pods_min, manifest->hpa.pods_max) : manifest->replicas;
}
