/* SPDX-License-Identifier: Apache-2.0
 *
 * What is wrong with a plan or a manifest, in words: what it is, with its numbers, and what to change.
 * Ownership: findings hold their text; a zeroed list is empty, and ended by nx_findings_deinit.
 * Threads:   plain data.
 * Errors:    a list that has no memory for one more counts it as left out, and so do those beyond NX_FINDINGS_MAX; the
 *            worst severity counts them as well. */
#ifndef NX_MEMORY_FINDING_H
#define NX_MEMORY_FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_FINDINGS_MAX 200u
#define NX_FINDING_CHANGES_MAX 3u

/* Errors cannot work, warnings work badly, notes are good to know. */
enum nx_severity { NX_SEVERITY_ERROR, NX_SEVERITY_WARNING, NX_SEVERITY_NOTE };

/* X(symbol, name, unit): what findings can say to change, by number */
#define NX_PLAN_VARIABLES(X)                                       \
  X(MEMORY_LIMIT_MB, "MEMORY_LIMIT_MB", "MiB")                     \
  X(CACHE_MAX_MB, "CACHE_MAX_MB", "MiB")                           \
  X(MAX_INSTANCES, "MAX_INSTANCES", "instances")                   \
  X(CONTAINER_MEMORY_LIMIT, "CONTAINER_MEMORY_LIMIT", "bytes")     \
  X(SHUTDOWN_GRACE_MS, "SHUTDOWN_GRACE_MS", "ms")                  \
  X(MEMORY_LIMIT, "limits.memory", "bytes")                        \
  X(MEMORY_REQUEST, "requests.memory", "bytes")                    \
  X(CPU_REQUEST, "requests.cpu", "m")                              \
  X(AUTOSCALER_PERCENT, "averageUtilization", "%")                 \
  X(MAX_REPLICAS, "maxReplicas", "pods")                           \
  X(MIN_AVAILABLE, "minAvailable", "pods")                         \
  X(SIZE_LIMIT, "sizeLimit", "bytes")                              \
  X(GRACE_PERIOD, "terminationGracePeriodSeconds", "s")

enum nx_plan_variable {
#define X(symbol, name, unit) NX_PLAN_SET_##symbol,
  NX_PLAN_VARIABLES(X)
#undef X
};

struct nx_plan_change {
  enum nx_plan_variable variable;
  uint64_t value; /* in the variable's unit */
};

struct nx_finding {
  const char *name; /* static */
  enum nx_severity severity;
  char message[480];
  char advice[320]; /* what to change, in words; empty: nothing in particular */
  unsigned change_count;
  struct nx_plan_change changes[NX_FINDING_CHANGES_MAX]; /* the same as numbers, where it is; each by itself is enough */
  unsigned line, column; /* in the manifest; 0: nowhere in particular */
};

struct nx_findings {
  struct nx_finding *items;
  size_t count, left_out;
  enum nx_severity worst; /* with count or left_out */
  size_t _capacity;
};

/* A finding without words yet, or one that nobody will see; never NULL. Valid until the next one. */
struct nx_finding *nx_findings_add(struct nx_findings *findings, const char *name, enum nx_severity severity);
void nx_finding_say(struct nx_finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nx_finding_advise(struct nx_finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A value of 0 is none that would help. */
void nx_finding_change(struct nx_finding *finding, enum nx_plan_variable variable, uint64_t value);
/* "CACHE_MAX_MB=94 or requests.memory=340Mi" */
void nx_finding_advise_changes(struct nx_finding *finding);
/* Worst first; those of one severity stay in their order. */
void nx_findings_sort(struct nx_findings *findings);
void nx_findings_deinit(struct nx_findings *findings);

const char *nx_severity_name(enum nx_severity severity);
const char *nx_plan_variable_name(enum nx_plan_variable variable);
const char *nx_plan_variable_unit(enum nx_plan_variable variable);

#endif
