/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus plan --manifest FILE: the plan of what a rendered Kubernetes manifest would run, and what in it contradicts itself.
 * Nothing of this process's environment, cgroup or machine is in it. Exit status 0: nothing but notes; 1: an error or
 * a warning; 2: not usable as a manifest. */
#ifndef NX_CLI_PLAN_MANIFEST_H
#define NX_CLI_PLAN_MANIFEST_H

#include "cli/plan_options.h"

int nx_plan_of_manifest(const struct nx_plan_options *options);

#endif
