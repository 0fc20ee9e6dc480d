/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-1 and SHA-2 (FIPS 180-4) for crypto.subtle, inside the sandbox. */
#ifndef NX_GUEST_SHA_H
#define NX_GUEST_SHA_H

#include <stddef.h>
#include <stdint.h>

#define NX_SHA_MAX_BYTES 64

/* `bits`: 256, 384, 512, or 1 for SHA-1. Returns the digest's length; 0 when there is no such hash. */
size_t nx_sha(int32_t bits, const uint8_t *data, size_t bytes, uint8_t digest[NX_SHA_MAX_BYTES]);

#endif
