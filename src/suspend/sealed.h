/* SPDX-License-Identifier: Apache-2.0
 *
 * Sealed continuations (SUSPEND_STORE=sealed): the suspension's id is the record itself, sealed and in base64url, and the
 * server keeps nothing. So it can be replayed until it expires, and its length is bounded. Nothing in it is readable. That
 * of an inline handler carries its source, compressed.
 *
 * Threads: any. Errors: NX_ERR_TOO_LARGE past NX_SEALED_NAME_MAX; NX_ERR_INVALID for what we did not seal. */
#ifndef NX_SUSPEND_SEALED_H
#define NX_SUSPEND_SEALED_H

#include "suspend/record.h"
#include "suspend/seal.h"

/* Appends the name of the record to `name`. */
int nx_sealed_write(const struct nx_sealer *sealer, const void *record, size_t bytes, struct nx_buf *name,
                    struct nx_error *err);
/* Appends the record to `out`. */
int nx_sealed_read(const struct nx_sealer *sealer, const char *name, size_t bytes, struct nx_buf *out,
                   struct nx_error *err);

/* Appends; failure is the buffer's. */
void nx_sealed_pack_source(struct nx_bytes source, struct nx_buf *out);
int nx_sealed_unpack_source(struct nx_bytes packed, struct nx_buf *out, struct nx_error *err);

#endif
