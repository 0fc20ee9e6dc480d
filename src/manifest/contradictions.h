/* SPDX-License-Identifier: Apache-2.0
 *
 * What in a manifest contradicts itself: facts → findings, each with its numbers and what to change.
 * Ownership: all is borrowed; findings are added to the caller's list.
 * Threads:   a pure function of its input.
 * Limits:    what the plan says by itself (plan.h) is not said again. */
#ifndef NX_MANIFEST_CONTRADICTIONS_H
#define NX_MANIFEST_CONTRADICTIONS_H

#include "config/config.h"
#include "manifest/manifest.h"
#include "memory/finding.h"

/* X(symbol, name, severity). Names are for programs: they stay. */
#define NX_MANIFEST_FINDINGS(X)                                                                                          \
  X(SETTINGS_REFUSED, "settings refused", ERROR)            /* what nexus config says, one finding each */               \
  X(LIMIT_TOLD_WRONG, "budget above limit", ERROR)          /* CONTAINER_MEMORY_LIMIT is more than the container has */  \
  X(PODS_REVERSED, "minReplicas above maxReplicas", ERROR)                                                               \
  X(TWO_HPAS, "two autoscalers", ERROR)                                                                                  \
  X(NO_MEMORY_REQUEST, "autoscaler without memory request", ERROR)                                                       \
  X(NO_CPU_REQUEST, "autoscaler without cpu request", ERROR)                                                             \
  X(NOBODY_LISTENS, "nobody listens", ERROR)                /* a port of probe, Service or container */                  \
  X(VOLUME_ABOVE_LIMIT, "memory volume above limit", ERROR)                                                              \
  X(PINNED, "pinned at maximum", WARNING)                   /* cpu: the least of pods can ask for the most */            \
  X(CACHE_ABOVE_VOLUME, "cache above its volume", WARNING)                                                               \
  X(CACHE_NOT_WRITABLE, "cache not writable", WARNING)                                                                   \
  X(VOLUME_WITHOUT_SIZE, "memory volume without size", WARNING)                                                          \
  X(VOLUMES_TOO_LARGE, "memory volumes too large", WARNING) /* process and an instance do not fit beside them */         \
  X(GRACE_TOO_SHORT, "grace shorter than drain", WARNING)                                                                \
  X(VPA_AND_HPA_MEMORY, "vpa and hpa on memory", WARNING)                                                                \
  X(VPA_AND_HPA_CPU, "vpa and hpa on cpu", WARNING)                                                                      \
  X(REPLICAS_RESET, "replicas beside autoscaler", WARNING)                                                               \
  X(LOST_HPA, "autoscaler without target", WARNING)                                                                      \
  X(NO_EVICTION, "never evictable", WARNING)                                                                             \
  X(LIVENESS, "liveness depends on load", WARNING)                                                                       \
  X(NOT_IN_FILE, "not in this file", WARNING)               /* a ConfigMap or its key */                                 \
  X(NOT_FILLED_IN, "reference not filled in", WARNING)      /* $(NAME) of a variable that is not set by then */          \
  X(SIDECARS_COUNT, "sidecars count", NOTE)                                                                              \
  X(LOCAL_SUSPENSIONS, "suspensions stay in their pod", NOTE)                                                            \
  X(NO_CPU_LIMIT, "no cpu limit", NOTE)                                                                                  \
  X(NOT_PLANNED, "autoscaler not planned", NOTE)            /* targets other than averageUtilization */                  \
  X(VALUE_UNKNOWN, "value unknown", NOTE)                                                                                \
  X(COMMAND_UNKNOWN, "command unknown", NOTE)                                                                            \
  X(PRE_STOP_UNKNOWN, "preStop unknown", NOTE)

enum nx_manifest_finding_kind {
#define X(symbol, name, severity) NX_MANIFEST_##symbol,
  NX_MANIFEST_FINDINGS(X)
#undef X
};

struct nx_finding *nx_manifest_add_finding(struct nx_findings *findings, enum nx_manifest_finding_kind kind,
                                           struct nx_manifest_place place);

/* The container as nx_config_derive wants it, of the manifest alone. */
struct nx_machine nx_manifest_machine(const struct nx_manifest *manifest);

/* `config` is the container's, loaded; derived unless its limit could not be (limit_bytes 0). NULL: it was refused. */
void nx_manifest_check(const struct nx_manifest *manifest, const struct nx_config *config, struct nx_findings *findings);

#endif
