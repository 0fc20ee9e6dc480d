/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/seal.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#define VERSION 1u
#define KEY_ID_BYTES sizeof((struct nx_sealer *)0)->key_id
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES crypto_aead_xchacha20poly1305_ietf_ABYTES

/* As it stands before the ciphertext. */
struct head {
  uint8_t version;
  uint8_t key_id[KEY_ID_BYTES];
  uint8_t nonce[NONCE_BYTES];
};
static_assert(sizeof(struct head) + TAG_BYTES == NX_SEAL_OVERHEAD_BYTES, "layout");
static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == NX_SEAL_KEY_BYTES, "key");

/* What the tag covers beside the ciphertext. The nonce is covered by the cipher; the context by its hash, so that
 * this has one size. */
struct associated {
  uint8_t version;
  uint8_t key_id[KEY_ID_BYTES];
  uint8_t context_hash[crypto_generichash_BYTES];
};

static struct associated associate(const struct head *head, const uint8_t *context, size_t context_bytes) {
  struct associated data = {.version = head->version};
  memcpy(data.key_id, head->key_id, sizeof data.key_id);
  crypto_generichash(data.context_hash, sizeof data.context_hash, context, context_bytes, NULL, 0);
  return data;
}

void nx_sealer_hash(const uint8_t key[NX_SEAL_KEY_BYTES], const void *data, size_t bytes, uint8_t hash[32]) {
  static const uint8_t label[] = "nexus: name of what is sealed";
  crypto_generichash_state state;
  crypto_generichash_init(&state, key, NX_SEAL_KEY_BYTES, 32);
  crypto_generichash_update(&state, label, sizeof label);
  crypto_generichash_update(&state, data, bytes);
  crypto_generichash_final(&state, hash, 32);
}

static void derive_key_id(uint8_t id[KEY_ID_BYTES], const uint8_t key[NX_SEAL_KEY_BYTES]) {
  static const uint8_t label[] = "nexus: id of a sealing key";
  uint8_t hash[crypto_generichash_BYTES];
  crypto_generichash(hash, sizeof hash, label, sizeof label, key, NX_SEAL_KEY_BYTES);
  memcpy(id, hash, KEY_ID_BYTES);
}

void nx_sealer_init(struct nx_sealer *sealer, const uint8_t key[NX_SEAL_KEY_BYTES], const uint8_t *previous) {
  *sealer = (struct nx_sealer){.has_previous = previous != NULL};
  memcpy(sealer->key, key, NX_SEAL_KEY_BYTES);
  derive_key_id(sealer->key_id, key);
  if (!previous) return;
  memcpy(sealer->previous, previous, NX_SEAL_KEY_BYTES);
  derive_key_id(sealer->previous_id, previous);
}

void nx_sealer_deinit(struct nx_sealer *sealer) { sodium_memzero(sealer, sizeof *sealer); }

int nx_seal(const struct nx_sealer *sealer, const uint8_t *context, size_t context_bytes, const uint8_t *plain,
            size_t plain_bytes, struct nx_buf *out, struct nx_error *err) {
  struct head head = {.version = VERSION};
  memcpy(head.key_id, sealer->key_id, sizeof head.key_id);
  randombytes_buf(head.nonce, sizeof head.nonce);
  struct associated data = associate(&head, context, context_bytes);
  uint8_t *room = (uint8_t *)nx_buf_reserve(out, plain_bytes + NX_SEAL_OVERHEAD_BYTES);
  if (!room) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to seal %zu bytes", plain_bytes);
  memcpy(room, &head, sizeof head);
  crypto_aead_xchacha20poly1305_ietf_encrypt(room + sizeof head, NULL, plain, plain_bytes, (const uint8_t *)&data,
                                             sizeof data, NULL, head.nonce, sealer->key);
  out->len += plain_bytes + NX_SEAL_OVERHEAD_BYTES;
  return 0;
}

/* NULL: neither of ours. */
static const uint8_t *key_of(const struct nx_sealer *sealer, const uint8_t id[KEY_ID_BYTES]) {
  if (!sodium_memcmp(id, sealer->key_id, KEY_ID_BYTES)) return sealer->key;
  if (sealer->has_previous && !sodium_memcmp(id, sealer->previous_id, KEY_ID_BYTES)) return sealer->previous;
  return NULL;
}

bool nx_is_sealed_with_previous(const struct nx_sealer *sealer, const uint8_t *sealed) {
  struct head head;
  memcpy(&head, sealed, sizeof head);
  return key_of(sealer, head.key_id) == sealer->previous;
}

int nx_unseal(const struct nx_sealer *sealer, const uint8_t *context, size_t context_bytes, const uint8_t *sealed,
              size_t sealed_bytes, struct nx_buf *out, struct nx_error *err) {
  struct head head;
  if (sealed_bytes < NX_SEAL_OVERHEAD_BYTES)
    return nx_error_set(err, NX_ERR_INVALID, "%zu bytes are too few for what is sealed", sealed_bytes);
  memcpy(&head, sealed, sizeof head);
  if (head.version != VERSION)
    return nx_error_set(err, NX_ERR_INVALID, "it is not sealed, or by another version of nexus (format %u, not %u)",
                        head.version, VERSION);
  const uint8_t *key = key_of(sealer, head.key_id);
  if (!key)
    return nx_error_set(err, NX_ERR_INVALID,
                        "it is sealed with an unknown key: neither SUSPEND_KEY nor SUSPEND_KEY_PREVIOUS");
  struct associated data = associate(&head, context, context_bytes);
  size_t plain_bytes = sealed_bytes - NX_SEAL_OVERHEAD_BYTES;
  uint8_t *room = (uint8_t *)nx_buf_reserve(out, plain_bytes);
  if (!room) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to unseal %zu bytes", plain_bytes);
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(room, NULL, NULL, sealed + sizeof head, sealed_bytes - sizeof head,
                                                 (const uint8_t *)&data, sizeof data, head.nonce, key))
    return nx_error_set(err, NX_ERR_INVALID, "it has been changed since it was sealed, or belongs to another name");
  out->len += plain_bytes;
  return 0;
}
