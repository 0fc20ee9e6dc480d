/* SPDX-License-Identifier: Apache-2.0
 *
 * On whose behalf something is done, as executions and their suspensions carry it. Zeroes: nobody's in particular; that
 * is everyone where there are no access tokens. */
#ifndef NX_BASE_TENANT_H
#define NX_BASE_TENANT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct nx_tenant {
  uint8_t bytes[16];
};

static inline bool nx_tenant_is_nobody(const struct nx_tenant *tenant) {
  static const struct nx_tenant nobody;
  return !memcmp(tenant, &nobody, sizeof nobody);
}

/* May who asks for `asks` touch what is `owner`'s? */
static inline bool nx_tenant_may(const struct nx_tenant *asks, const struct nx_tenant *owner) {
  return nx_tenant_is_nobody(asks) || nx_tenant_is_nobody(owner) || !memcmp(asks, owner, sizeof *asks);
}

#endif
