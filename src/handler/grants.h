/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operator grants a named handler, kept apart from its untrusted source:
 * {"capabilities": [..], "extensions": {name: [methods]}, "timeoutMs": n, "memoryLimitMb": n}, every field optional.
 * Ownership: immutable and reference-counted (nx_grants_hold, nx_grants_release).
 * Threads:   any.
 * Errors:    NX_ERR_INVALID naming the field; nothing is ignored: an unknown field is an error.
 * Limits:    NX_GRANTS_MAX_BYTES of JSON; those of capability.h; the constants below. */
#ifndef NX_HANDLER_GRANTS_H
#define NX_HANDLER_GRANTS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "handler/capability.h"

#define NX_GRANTS_MAX_BYTES ((size_t)256 * 1024)
#define NX_GRANTS_MAX_TIMEOUT_MS 86400000u
#define NX_GRANTS_MAX_MEMORY_MB 1024u

struct nx_grants {
  _Atomic uint32_t _refs;
  struct nx_capabilities capabilities;
  uint32_t timeout_ms;      /* 0: not given. It can only lower the configured one. */
  uint32_t memory_limit_mb; /* 0: not given. It can only lower the configured one. */
};

/* `json` is borrowed. The caller owns the result. */
int nx_grants_parse(struct nx_grants **out, const char *json, size_t bytes, struct nx_error *err);
/* One JSON object with the fields that were given; nx_grants_parse takes it back. */
void nx_grants_write(const struct nx_grants *grants, struct nx_buf *out);

struct nx_grants *nx_grants_hold(struct nx_grants *grants); /* NULL is allowed */
void nx_grants_release(struct nx_grants *grants);           /* NULL is allowed */

#endif
