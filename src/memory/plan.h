/* SPDX-License-Identifier: Apache-2.0
 *
 * What a container of a given size can hold: how many instances fit, when the autoscaler acts, when the kubelet evicts,
 * and what to change. The arithmetic behind `nexus plan`; where the numbers come from (this container, flags, a
 * manifest) is the caller's business.
 *
 * Ownership: plain structs of the caller's; the plan refers to nothing.
 * Threads:   a pure function of its input.
 * Errors:    none: what is wrong with a plan is a finding in it.
 * Limits:    sizes below 2^56 bytes, percentages up to NX_PLAN_PERCENT_MAX, pods up to NX_PLAN_PODS_MAX.
 *
 * The autoscaler is Kubernetes' HorizontalPodAutoscaler on memory: it wants ceil(pods × average working set / target)
 * pods, where the target is a percentage of the *request*, and does nothing while the ratio is within 10 % of 1. It
 * computes in whole percents of the request, rounded down, so it may act up to one percent later on the way up. */
#ifndef NX_MEMORY_PLAN_H
#define NX_MEMORY_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/reading.h"
#include "config/config.h"
#include "memory/finding.h"

#define NX_PLAN_PERCENT_MAX 1000u
#define NX_PLAN_PODS_MAX 10000u
#define NX_PLAN_TOLERANCE_PERCENT 10u /* kube-controller-manager's default */

enum nx_plan_qos { NX_PLAN_QOS_UNKNOWN, NX_PLAN_GUARANTEED, NX_PLAN_BURSTABLE, NX_PLAN_BEST_EFFORT };

struct nx_plan_input {
  struct nx_config_fit fit;                /* its limit is the one that nexus keeps to */
  struct nx_reading container_limit_bytes; /* what the kernel enforces and Kubernetes knows */
  bool request_is_known;                   /* a container cannot see its own */
  uint64_t request_bytes;                  /* memory request; 0: none */
  bool limit_is_told;      /* only CONTAINER_MEMORY_LIMIT says it: nobody enforces it */
  enum nx_plan_qos pod_qos; /* where all containers of the pod are known */
  unsigned max_instances;
  unsigned max_connections;
  uint64_t connection_bytes; /* of one */
  uint64_t suspended_max_bytes;
  unsigned autoscaler_percent; /* averageUtilization; 0: no autoscaler */
  unsigned pods_min, pods_max; /* of the autoscaler, at least 1 */
  unsigned alert_percent;      /* of the container's limit; 0: no alert */
};

/* X(symbol, name, severity): worst first. The first finding is the verdict if it stands before NO_LIMIT. */
#define NX_PLAN_FINDINGS(X)                                                                                     \
  X(CANNOT_FIT, "cannot fit", ERROR)                  /* not even one fully grown instance */                   \
  X(REQUEST_ABOVE_LIMIT, "request above limit", ERROR) /* Kubernetes refuses the pod */                         \
  X(NEVER_SCALES_IN, "never scales in", WARNING)      /* not to pods_min: an idle pod is above the threshold */ \
  X(NEVER_SCALES_OUT, "never scales out", WARNING)    /* nexus keeps the working set below the threshold */     \
  X(OVER_COMMITTED, "over-committed", NOTE)           /* safe: the ledger refuses before the kernel kills */    \
  X(NO_LIMIT, "no limit", WARNING)                    /* planned with the machine's memory */                   \
  X(ALERT_BEFORE_SCALING, "alert before scaling", NOTE)

enum nx_plan_finding_kind {
#define X(symbol, name, severity) NX_PLAN_##symbol,
  NX_PLAN_FINDINGS(X)
#undef X
  NX_PLAN_FINDING_COUNT
};

struct nx_plan_finding {
  enum nx_plan_finding_kind kind;
  unsigned change_count;
  struct nx_plan_change changes[NX_FINDING_CHANGES_MAX]; /* each by itself is enough */
};

struct nx_plan {
  bool fits;
  uint64_t budget_bytes, reserve_bytes; /* together the limit */
  uint64_t left_bytes;                  /* of the budget, beside process and cache */
  uint64_t instance_bytes;              /* one, fully grown */
  uint64_t needed_bytes;                /* process, cache, reserve and one instance */
  uint64_t connections_bytes;           /* all of them; they and suspended executions take from what is left */
  uint64_t suspended_bytes;
  uint64_t instances_fit;
  uint64_t instances_beside_connections; /* that fit while all connections are open */
  uint64_t idle_bytes;                   /* the floor of the working set: process and a full cache */
  uint64_t loaded_bytes;                 /* all of MAX_INSTANCES fully grown, as far as the budget goes */

  enum nx_plan_qos qos;   /* without pod_qos by memory alone; Guaranteed needs CPU request and limit to be equal too */
  uint64_t request_bytes; /* Kubernetes takes the limit for a missing one; 0: none, or unknown */
  uint64_t alert_bytes;   /* 0: none */

  bool autoscales;
  uint64_t target_bytes;    /* all of the autoscaler are average working sets of its pods */
  uint64_t add_above_bytes; /* it adds pods above this */
  unsigned idle_pods;       /* what it comes down to without any load */

  enum nx_plan_finding_kind verdict; /* NX_PLAN_FINDING_COUNT: it fits and nothing is to be said */
  unsigned finding_count;
  struct nx_plan_finding findings[NX_PLAN_FINDING_COUNT]; /* worst first */
};

/* What a configuration (resolved or derived) says of it; one pod, and the rest is zeroes. */
struct nx_plan_input nx_plan_input_of(const struct nx_config *config);
void nx_plan_make(const struct nx_plan_input *input, struct nx_plan *plan);

/* The average working set above which an autoscaler adds a pod. */
uint64_t nx_plan_add_above_bytes(uint64_t request_bytes, unsigned percent);
/* The largest average working set at which an autoscaler with `pods` pods (at least 2) removes one. */
uint64_t nx_plan_scale_in_bytes(uint64_t request_bytes, unsigned percent, unsigned pods);

/* docs/sizing.md. */
int nx_plan_write_docs(FILE *file, struct nx_error *err);

/* The plan's findings in words, in its order. */
void nx_plan_describe(const struct nx_plan_input *input, const struct nx_plan *plan, struct nx_findings *findings);

/* "fits" for NX_PLAN_FINDING_COUNT. */
const char *nx_plan_finding_name(enum nx_plan_finding_kind kind);
enum nx_severity nx_plan_finding_severity(enum nx_plan_finding_kind kind);
/* NULL when unknown. */
const char *nx_plan_qos_name(enum nx_plan_qos qos);

#endif
