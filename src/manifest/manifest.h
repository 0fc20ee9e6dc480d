/* SPDX-License-Identifier: Apache-2.0
 *
 * What a rendered Kubernetes manifest says about the Deployment that runs nexus: its container, the environment that the
 * container will have, its volumes, ports and probes, and the autoscalers and the disruption budget that act on it.
 * Facts only; what is wrong with them is contradictions.h's business.
 *
 * Ownership: nx_manifest_read makes it, nx_manifest_destroy ends it with every string in it; the name is borrowed.
 * Threads:   plain data.
 * Errors:    -NX_ERR_INVALID with file, line and column: not YAML, not an object, a field of another type than Kubernetes
 *            has there, or not exactly one Deployment that runs nexus. -NX_ERR_TOO_LARGE, -NX_ERR_NO_MEMORY.
 * Limits:    yaml.h's, NX_MANIFEST_OBJECTS_MAX objects, lists of 1000 items, NX_MANIFEST_VARIABLES_MAX variables.
 *
 * Which one: the Deployment with a container named nexus; else with a container whose image is called nexus; else the only
 * one, if it has one container. Objects belong to it as Kubernetes has it: same namespace, references, selectors. */
#ifndef NX_MANIFEST_MANIFEST_H
#define NX_MANIFEST_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/reading.h"
#include "memory/plan.h"

#define NX_MANIFEST_OBJECTS_MAX 10000u
#define NX_MANIFEST_VARIABLES_MAX 4096u

struct nx_manifest_place { unsigned line, column; };

/* An object that was used, or that is referred to and not there. */
struct nx_manifest_source {
  const char *kind, *ns, *name;
  const char *use; /* "container nexus", "envFrom", … */
  bool is_there;
  struct nx_manifest_place place;
  const struct nx_manifest_source *next;
};

/* Kubernetes takes the limit for a missing request. */
struct nx_manifest_resource {
  bool has_limit, has_request;
  uint64_t limit, request; /* bytes, or thousandths of a core */
};

struct nx_manifest_variable {
  const char *name, *value; /* NULL: only the cluster knows, or a Secret that is not in the file */
  const char *from;         /* "Secret nexus", … for values that are not known */
};

enum nx_manifest_medium {
  NX_MANIFEST_DISK,      /* emptyDir */
  NX_MANIFEST_MEMORY,    /* emptyDir with medium: Memory */
  NX_MANIFEST_READ_ONLY, /* configMap, secret, projected, downwardAPI, image */
  NX_MANIFEST_NODE,      /* hostPath, ephemeral: not lost perhaps, but not shared */
  NX_MANIFEST_SHARED,    /* whatever may be: claims, nfs, csi */
};

struct nx_manifest_mount {
  const char *path, *volume;
  enum nx_manifest_medium medium;
  bool read_only;
  struct nx_reading size_limit_bytes; /* of an emptyDir; unlimited when there is none */
};

enum nx_manifest_probe_kind { NX_MANIFEST_NO_PROBE, NX_MANIFEST_HTTP, NX_MANIFEST_TCP, NX_MANIFEST_COMMAND };

/* Something that wants to reach a port of the container. `port` 0: its name is none of the pod's. */
struct nx_manifest_port {
  const char *what; /* "livenessProbe", "containerPort http", "Service nexus" */
  uint64_t port;
  const char *port_name; /* NULL: a number */
  struct nx_manifest_place place;
};

struct nx_manifest_hpa {
  bool is_there;
  unsigned count; /* of those that want this Deployment; the first is told of */
  const char *name;
  uint64_t pods_min, pods_max;
  uint64_t memory_percent, cpu_percent; /* 0: not on it */
  bool memory_by_container, cpu_by_container; /* ContainerResource of nexus: other containers do not count */
  bool has_other_target; /* memory or cpu by value: nothing is planned for it */
};

struct nx_manifest_vpa {
  const char *name; /* of one that changes requests of the container; NULL: none */
  bool memory, cpu;
};

struct nx_manifest_pdb {
  const char *name; /* NULL: none */
  bool has_min, min_is_percent, allows_none; /* allows_none: maxUnavailable of 0 */
  uint64_t min_available;
};

/* A reference to a ConfigMap, or a key of one, that is not in the file and not optional. */
struct nx_manifest_missing {
  const char *config_map, *key; /* key NULL: all of it */
  const char *use;
  struct nx_manifest_place place;
  const struct nx_manifest_missing *next;
};

struct nx_manifest {
  const char *file, *ns, *deployment, *container;
  struct nx_manifest_place place; /* of the Deployment */
  const struct nx_manifest_source *sources;

  struct nx_manifest_resource memory, cpu;
  unsigned cores;                 /* of the cpu limit, rounded up; 0: no limit */
  enum nx_plan_qos qos;           /* of the pod: all containers, memory and cpu */
  unsigned sidecar_count;         /* containers beside it that keep running */
  const char *memory_missing_in;  /* a container without memory request; NULL: all have one */
  const char *cpu_missing_in;
  uint64_t sidecars_memory_bytes, sidecars_millicores; /* their requests */

  bool has_replicas;
  uint64_t replicas; /* 1 when it is not said */
  uint64_t grace_s;
  uint64_t pre_stop_ms;
  bool pre_stop_is_unknown; /* a hook whose time nobody can tell */
  bool read_only_root;

  struct nx_manifest_variable *variables; /* the last one of a name only */
  size_t variable_count;
  bool has_unknown_variables; /* envFrom of a Secret that is not in the file */
  char **environment; /* for nx_config_load; what only the cluster knows is something right, or left out */
  char **arguments;           /* flags of serve */
  size_t argument_count;
  bool command_is_unknown; /* not nexus serve: its flags were not seen */

  struct nx_manifest_mount *mounts;
  size_t mount_count;
  struct nx_manifest_port *ports; /* all that must be one nexus listens on */
  size_t port_count;
  enum nx_manifest_probe_kind liveness;
  const char *liveness_path;  /* HTTP */
  bool liveness_asks_health;  /* a command: nexus health */
  struct nx_manifest_place liveness_place;

  struct nx_manifest_hpa hpa;
  const char *lost_hpa, *lost_target; /* an autoscaler of something that is not in the file */
  struct nx_manifest_vpa vpa;
  struct nx_manifest_pdb pdb;
  const struct nx_manifest_missing *missing;
};

/* What is said in the place of what the manifest says; 0: nothing. */
struct nx_manifest_overrides {
  uint64_t memory_limit_bytes, memory_request_bytes;
  unsigned cores, hpa_percent, pods_min, pods_max;
};

/* `name` stands in messages. */
int nx_manifest_read(struct nx_manifest **out, const char *name, const char *text, size_t bytes,
                     const struct nx_manifest_overrides *overrides, struct nx_error *err);
void nx_manifest_destroy(struct nx_manifest *manifest);

/* NULL: not set. */
const struct nx_manifest_variable *nx_manifest_find_variable(const struct nx_manifest *manifest, const char *name);
/* Whether it is a setting that had to be left out of the environment. */
bool nx_manifest_is_left_out(const struct nx_manifest_variable *variable);
/* The mount that holds this path; NULL: it is on the container's root. */
const struct nx_manifest_mount *nx_manifest_find_mount(const struct nx_manifest *manifest, const char *path);
/* The least and the most pods there can be. */
uint64_t nx_manifest_pods_min(const struct nx_manifest *manifest);
uint64_t nx_manifest_pods_max(const struct nx_manifest *manifest);

#endif
