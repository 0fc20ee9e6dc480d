/* SPDX-License-Identifier: Apache-2.0
 *
 * What leaves the process is sealed: XChaCha20-Poly1305 (libsodium) under SUSPEND_KEY. Whoever can read or write the
 * store, or is handed a continuation, can neither read it, nor change a bit of it, nor pass it off as another one.
 *
 *   version 1 | key id 8 | nonce 24 | ciphertext + tag 16
 *
 * Version, key id and a hash of `context` (what it must not be exchanged for: the suspension's id,
 * the handler's name) are associated data.
 * The key id is a hash made with the key, so that the right one is found without trying.
 *
 * Threads: any, after sodium_init; a sealer is constant.
 * Errors:  NX_ERR_INVALID for what was not sealed with either key or has changed. */
#ifndef NX_SUSPEND_SEAL_H
#define NX_SUSPEND_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define NX_SEAL_KEY_BYTES 32u
#define NX_SEAL_OVERHEAD_BYTES (1u + 8u + 24u + 16u)

struct nx_sealer {
  uint8_t key[NX_SEAL_KEY_BYTES], previous[NX_SEAL_KEY_BYTES];
  uint8_t key_id[8], previous_id[8];
  bool has_previous;
};

/* `previous` may be NULL. */
void nx_sealer_init(struct nx_sealer *sealer, const uint8_t key[NX_SEAL_KEY_BYTES], const uint8_t *previous);
/* A hash that only who has the key can make: a name that tells others nothing. */
void nx_sealer_hash(const uint8_t key[NX_SEAL_KEY_BYTES], const void *data, size_t bytes, uint8_t hash[32]);
/* Of what nx_unseal has accepted. */
bool nx_is_sealed_with_previous(const struct nx_sealer *sealer, const uint8_t *sealed);
/* Wipes the keys. */
void nx_sealer_deinit(struct nx_sealer *sealer);
/* Appends the sealed form to `out`, which does not hold `plain`. NX_ERR_NO_MEMORY. */
int nx_seal(const struct nx_sealer *sealer, const uint8_t *context, size_t context_bytes, const uint8_t *plain,
            size_t plain_bytes, struct nx_buf *out, struct nx_error *err);
/* Appends the plain bytes to `out`, nothing on failure. NX_ERR_NO_MEMORY too. */
int nx_unseal(const struct nx_sealer *sealer, const uint8_t *context, size_t context_bytes, const uint8_t *sealed,
              size_t sealed_bytes, struct nx_buf *out, struct nx_error *err);

#endif
