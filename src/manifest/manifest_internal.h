/* SPDX-License-Identifier: Apache-2.0
 * Objects → facts, one file for each part of them. All functions fill `facts`; errors are the reader's, sticky. */
#ifndef NX_MANIFEST_INTERNAL_H
#define NX_MANIFEST_INTERNAL_H

#include "manifest/manifest.h"
#include "manifest/reader.h"

struct nx__object {
  const struct nx_yaml *root;
  const char *kind, *ns, *name; /* the namespace is "default" when there is none */
};

struct nx__gather {
  struct nx__reader reader;
  struct nx_arena *arena;
  struct nx_manifest *facts;
  const struct nx_manifest_overrides *overrides;
  struct nx__object *objects;
  size_t object_count, source_count;
  const struct nx__object *deployment;
  const struct nx_yaml *spec;       /* of the Deployment */
  const struct nx_yaml *pod;        /* its template's spec */
  const struct nx_yaml *labels;     /* its template's; NULL: none */
  const struct nx_yaml *containers;
  const struct nx_yaml *container;
};

/* objects.c */
void nx__objects_collect(struct nx__gather *g, const struct nx_yaml_set *set);
/* NULL when it is not in the file. */
const struct nx__object *nx__object_find(const struct nx__gather *g, const char *kind, const char *ns, const char *name);
/* An object of the Deployment's namespace that it refers to; `name` need not be in the file. */
const struct nx__object *nx__object_use(struct nx__gather *g, const struct nx_yaml *reference, const char *kind,
                                        const char *name, const char *use);
void nx__object_is_used(struct nx__gather *g, const struct nx__object *object, const char *use);
/* A LabelSelector, or with `plain` a map of labels as Services have it, against labels; either may be NULL. */
bool nx__selects(struct nx__gather *g, const struct nx_yaml *selector, bool plain, const struct nx_yaml *labels);

/* Text in the arena; "" when memory is short, which the reader knows then. */
const char *nx__text(struct nx__gather *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *nx__alloc(struct nx__gather *g, size_t bytes); /* NULL likewise */
static inline struct nx_manifest_place nx__place(const struct nx_yaml *node) {
  return (struct nx_manifest_place){node->line, node->column};
}

void nx__workload_find(struct nx__gather *g);    /* workload.c: which Deployment, which container */
void nx__pod_gather(struct nx__gather *g);       /* pod.c: resources, grace, mounts */
void nx__ports_gather(struct nx__gather *g);     /* pod_ports.c: ports, probes, Services */
void nx__environment_gather(struct nx__gather *g); /* environment.c: variables and arguments */
void nx__scaling_gather(struct nx__gather *g);   /* scaling.c: HPA, VPA, PDB */

/* The first word of a command that is nexus's, with or without its path. */
bool nx__is_nexus(const char *word);
/* The resource of one container. */
struct nx_manifest_resource nx__resource_read(struct nx__gather *g, const struct nx_yaml *container, const char *name,
                                              unsigned scale);
/* A reference to a ConfigMap or Secret (kind) at `place`: the object if it is there; says so when it is missing. */
const struct nx_yaml *nx__reference(struct nx__gather *g, const char *kind, const struct nx_yaml *reference,
                                    const char *name, const char *use);
void nx__add_missing(struct nx__gather *g, const struct nx_yaml *place, const char *config_map, const char *key,
                     const char *use);

#endif
