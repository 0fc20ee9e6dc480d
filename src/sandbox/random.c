/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/random.h"

#include <string.h>

#include <sodium.h>

#define BATCH_BYTES 1024

/* Bytes are wiped when they are handed out: what one execution got is nowhere when the next one runs. */
static _Thread_local unsigned char batch[BATCH_BYTES];
static _Thread_local size_t left;

void nx_random_bytes(void *out, size_t bytes) {
  if (bytes > BATCH_BYTES / 4) {
    randombytes_buf(out, bytes);
    return;
  }
  if (left < bytes) {
    randombytes_buf(batch, sizeof batch);
    left = sizeof batch;
  }
  left -= bytes;
  memcpy(out, batch + left, bytes);
  sodium_memzero(batch + left, bytes);
}
