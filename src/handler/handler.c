/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/handler.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

static size_t own_bytes(size_t source_bytes) { return sizeof(struct nx_handler) + source_bytes + 1; }

int nx_handler_create(struct nx_handler **out, const char *source, size_t source_bytes, struct nx_image *image,
                      uint64_t compile_time_us, struct nx_error *err) {
  size_t bytes = own_bytes(source_bytes);
  bool charged = nx_account_charge(image->account, bytes);
  struct nx_handler *handler = charged ? malloc(bytes) : NULL;
  if (!handler && charged) nx_account_release(image->account, bytes);
  if (!handler) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a handler of %zu bytes", source_bytes);
  char *copy = (char *)(handler + 1);
  *handler = (struct nx_handler){
    ._refs = 1,
    .image = nx_image_hold(image),
    .source = copy,
    .source_bytes = source_bytes,
    .compile_time_us = compile_time_us,
    .bytes = bytes + nx_image_bytes(image),
  };
  if (source_bytes) memcpy(copy, source, source_bytes);
  copy[source_bytes] = '\0';
  nx_handler_hash_source(handler->source_hash, source, source_bytes);
  nx_profile_recall(&handler->profile, handler->source_hash);
  *out = handler;
  return 0;
}

struct nx_handler *nx_handler_hold(struct nx_handler *handler) {
  atomic_fetch_add_explicit(&handler->_refs, 1, memory_order_relaxed);
  return handler;
}

void nx_handler_release(struct nx_handler *handler) {
  if (!handler || atomic_fetch_sub_explicit(&handler->_refs, 1, memory_order_acq_rel) != 1) return;
  nx_profile_remember(&handler->profile, handler->source_hash);
  nx_account_release(handler->image->account, own_bytes(handler->source_bytes));
  nx_image_release(handler->image);
  free(handler);
}

void nx_handler_hash_source(uint8_t hash[NX_HASH_BYTES], const char *source, size_t source_bytes) {
  crypto_generichash(hash, NX_HASH_BYTES, (const unsigned char *)source, source_bytes, NULL, 0);
}

void nx_hash_to_hex(char hex[2 * NX_HASH_BYTES + 1], const uint8_t hash[NX_HASH_BYTES]) {
  sodium_bin2hex(hex, 2 * NX_HASH_BYTES + 1, hash, NX_HASH_BYTES);
}

bool nx_hash_from_hex(uint8_t hash[NX_HASH_BYTES], const char *hex, size_t bytes) {
  size_t n = 0;
  return bytes == 2 * NX_HASH_BYTES && !sodium_hex2bin(hash, NX_HASH_BYTES, hex, bytes, NULL, &n, NULL) &&
         n == NX_HASH_BYTES;
}

bool nx_handler_name_valid(const char *name, size_t bytes) {
  if (!bytes || bytes > NX_HANDLER_NAME_MAX) return false;
  for (size_t i = 0; i < bytes; i++) {
    char c = name[i];
    bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!word && (i == 0 || (c != '.' && c != '-'))) return false;
  }
  return true;
}
