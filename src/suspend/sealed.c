/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/sealed.h"

#include <sodium.h>
#include <zstd.h>

#include "suspend/suspensions.h"

#define VARIANT sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define SOURCE_LEVEL 9
/* More than any request may bring. */
#define SOURCE_MAX_BYTES (64u << 20)

static const uint8_t context[] = "nexus sealed continuation";

int nx_sealed_write(const struct nx_sealer *sealer, const void *record, size_t bytes, struct nx_buf *name,
                    struct nx_error *err) {
  size_t length = sodium_base64_encoded_len(bytes + NX_SEAL_OVERHEAD_BYTES, VARIANT) - 1;
  if (length > NX_SEALED_NAME_MAX)
    return nx_error_set(err, NX_ERR_TOO_LARGE, "the suspended execution takes %zu bytes; a sealed continuation may have %u "
                        "(SUSPEND_STORE=sealed)", length, NX_SEALED_NAME_MAX);
  NX_BUF_AUTO sealed = {.account = name->account};
  int status = nx_seal(sealer, context, sizeof context, record, bytes, &sealed, err);
  if (status) return status;
  char *at = nx_buf_reserve(name, length + 1);
  if (!at) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a sealed continuation");
  sodium_bin2base64(at, length + 1, (const uint8_t *)sealed.data, sealed.len, VARIANT);
  name->len += length;
  return 0;
}

/* libsodium (1.0.18) takes some bytes from 0x80 on for digits. */
static bool is_ascii(const char *name, size_t bytes) {
  uint8_t all = 0;
  for (size_t i = 0; i < bytes; i++) all |= (uint8_t)name[i];
  return all < 0x80;
}

int nx_sealed_read(const struct nx_sealer *sealer, const char *name, size_t bytes, struct nx_buf *out,
                   struct nx_error *err) {
  NX_BUF_AUTO sealed = {.account = out->account};
  size_t got;
  if (bytes > NX_SEALED_NAME_MAX || !bytes) return nx_error_set(err, NX_ERR_INVALID, "not a sealed continuation");
  uint8_t *at = (uint8_t *)nx_buf_reserve(&sealed, bytes);
  if (!at) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a sealed continuation");
  if (!is_ascii(name, bytes) || sodium_base642bin(at, bytes, name, bytes, NULL, &got, NULL, VARIANT))
    return nx_error_set(err, NX_ERR_INVALID, "not a sealed continuation");
  return nx_unseal(sealer, context, sizeof context, at, got, out, err);
}

void nx_sealed_pack_source(struct nx_bytes source, struct nx_buf *out) {
  size_t room = ZSTD_compressBound(source.size);
  char *at = nx_buf_reserve(out, room);
  if (!at) return;
  size_t packed = ZSTD_compress(at, room, source.data, source.size, SOURCE_LEVEL);
  if (ZSTD_isError(packed))
    out->failed = true;
  else
    out->len += packed;
}

int nx_sealed_unpack_source(struct nx_bytes packed, struct nx_buf *out, struct nx_error *err) {
  unsigned long long bytes = ZSTD_getFrameContentSize(packed.data, packed.size);
  if (bytes > SOURCE_MAX_BYTES) return nx_error_set(err, NX_ERR_INVALID, "the continuation's source is damaged");
  char *at = nx_buf_reserve(out, bytes + 1);
  if (!at) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the source of a continuation");
  size_t got = ZSTD_decompress(at, bytes, packed.data, packed.size);
  if (ZSTD_isError(got)) return nx_error_set(err, NX_ERR_INVALID, "the continuation's source is damaged");
  out->len += got;
  return 0;
}
