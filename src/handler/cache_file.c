/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache file: header, then the bytes of nx_image_encode. The checksum covers the rest of the header and the image's
 * hash, which covers the image and is computed anew when it is decoded: every byte is hashed, and the pages only once
 * (a second pass over them would cost as much as compiling a small handler). */
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "base/fs.h"
#include "handler/cache_internal.h"
#include "handler/handler.h"

static const char magic[8] = "NXCACHE";

/* Little-endian on disk because every machine nexus builds for is; the guest id names the architecture. */
struct header {
  char magic[8];
  uint32_t format;
  uint32_t header_bytes;
  uint8_t key[NX__CACHE_KEY_BYTES];
  uint64_t image_bytes;
  uint8_t checksum[NX_HASH_BYTES]; /* of the header up to here, then the image's hash */
};
static_assert(sizeof(struct header) == 56 + NX_HASH_BYTES, "written to disk");

void nx__cache_key(uint8_t key[NX__CACHE_KEY_BYTES], const uint8_t source_hash[NX_HASH_BYTES],
                   const struct nx_image *base, const char *guest_id) {
  crypto_generichash_state state;
  const uint32_t format = NX__CACHE_FORMAT;
  crypto_generichash_init(&state, NULL, 0, NX__CACHE_KEY_BYTES);
  crypto_generichash_update(&state, source_hash, NX_HASH_BYTES);
  crypto_generichash_update(&state, base->hash, NX_HASH_BYTES);
  crypto_generichash_update(&state, (const uint8_t *)&format, sizeof format);
  crypto_generichash_update(&state, (const uint8_t *)guest_id, strlen(guest_id));
  crypto_generichash_final(&state, key, NX__CACHE_KEY_BYTES);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

void nx__cache_name(char name[NX__CACHE_NAME_BYTES], const uint8_t key[NX__CACHE_KEY_BYTES]) {
  nx_hash_to_hex(name, key);
  strcpy(name + 2 * NX__CACHE_KEY_BYTES, ".nxi");
}

bool nx__cache_name_parse(uint8_t key[NX__CACHE_KEY_BYTES], const char *name) {
  char again[NX__CACHE_NAME_BYTES];
  if (strlen(name) != NX__CACHE_NAME_BYTES - 1 || !nx_hash_from_hex(key, name, 2 * NX__CACHE_KEY_BYTES)) return false;
  nx__cache_name(again, key);
  return !strcmp(name, again);
}

bool nx__cache_is_temp(const char *name) { return !strncmp(name, NX_FS_TEMP_PREFIX, sizeof NX_FS_TEMP_PREFIX - 1); }

/* ---- Content ---------------------------------------------------------------------------------------------------- */

const char *nx__cache_stat_fault(const struct stat *st) {
  if (!S_ISREG(st->st_mode)) return "not a regular file";
  if (st->st_uid != geteuid()) return "owned by another user";
  if (st->st_mode & (S_IWGRP | S_IWOTH)) return "others may write to it";
  if ((uint64_t)st->st_size < sizeof(struct header) || (uint64_t)st->st_size > NX__CACHE_MAX_FILE)
    return "impossible size";
  return NULL;
}

static void checksum(uint8_t out[NX_HASH_BYTES], const struct header *header, const struct nx_image *image) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, NULL, 0, NX_HASH_BYTES);
  crypto_generichash_update(&state, (const uint8_t *)header, offsetof(struct header, checksum));
  crypto_generichash_update(&state, image->hash, NX_HASH_BYTES);
  crypto_generichash_final(&state, out, NX_HASH_BYTES);
}

void nx__cache_file_encode(struct nx_buf *out, const uint8_t key[NX__CACHE_KEY_BYTES], const struct nx_image *image) {
  struct header header = {.format = NX__CACHE_FORMAT, .header_bytes = sizeof header};
  nx_buf_reserve(out, sizeof header + nx_image_bytes(image) + 4 * NX_HASH_BYTES); /* one allocation, usually */
  nx_buf_add(out, &header, sizeof header);
  nx_image_encode(image, out);
  if (out->failed) return;
  memcpy(header.magic, magic, sizeof magic);
  memcpy(header.key, key, NX__CACHE_KEY_BYTES);
  header.image_bytes = out->len - sizeof header;
  checksum(header.checksum, &header, image);
  memcpy(out->data, &header, sizeof header);
}

static const char *header_fault(const struct header *header, const uint8_t *key, size_t size) {
  if (memcmp(header->magic, magic, sizeof magic)) return "not a cache file";
  if (header->format != NX__CACHE_FORMAT || header->header_bytes != sizeof *header) return "another format";
  if (memcmp(header->key, key, NX__CACHE_KEY_BYTES)) return "not under its own name";
  if (header->image_bytes != size - sizeof *header) return "not of its own size";
  return NULL;
}

int nx__cache_file_decode(struct nx_image **out, const uint8_t key[NX__CACHE_KEY_BYTES], struct nx_image *base,
                          struct nx_account *account, struct nx_image_source source, struct nx_error *err) {
  struct header header;
  struct nx_image *image = NULL;
  uint8_t sum[NX_HASH_BYTES];
  if (source.bytes < sizeof header) return nx_error_set(err, NX_ERR_INVALID, "cut short");
  int status = source.read(source.self, &header, sizeof header, err);
  if (status) return status;
  const char *fault = header_fault(&header, key, source.bytes);
  if (fault) return nx_error_set(err, NX_ERR_INVALID, "%s", fault);
  source.bytes -= sizeof header;
  status = nx_image_decode(&image, base, account, source, err);
  if (status) return status;
  checksum(sum, &header, image);
  if (sodium_memcmp(sum, header.checksum, sizeof sum)) {
    nx_image_release(image);
    return nx_error_set(err, NX_ERR_INVALID, "checksum mismatch");
  }
  *out = image;
  return 0;
}
