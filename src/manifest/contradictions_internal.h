/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NX_MANIFEST_CONTRADICTIONS_INTERNAL_H
#define NX_MANIFEST_CONTRADICTIONS_INTERNAL_H

#include "base/number.h"
#include "manifest/contradictions.h"

static inline unsigned long long nx__ull(uint64_t value) { return value; }

/* What `config` has no part in. */
void nx__check_scaling(const struct nx_manifest *m, struct nx_findings *findings);
/* What it has. */
void nx__check_pod(const struct nx_manifest *m, const struct nx_config *config, struct nx_findings *findings);
void nx__check_volumes(const struct nx_manifest *m, const struct nx_config *config, struct nx_findings *findings);

#endif
