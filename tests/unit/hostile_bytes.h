/* SPDX-License-Identifier: Apache-2.0
 * Damage for decoders: every truncation, and mutations that are the same in every run. What is decoded lies in a block of
 * its very size, so that AddressSanitizer sees each byte read beyond it. */
#ifndef NX_TESTS_HOSTILE_BYTES_H
#define NX_TESTS_HOSTILE_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MUTATIONS 100000u

static uint64_t hostile_state = 0x9e3779b97f4a7c15;

static inline uint32_t hostile_below(uint32_t end) {
  hostile_state ^= hostile_state << 13;
  hostile_state ^= hostile_state >> 7;
  hostile_state ^= hostile_state << 17;
  return (uint32_t)((hostile_state >> 16) % end);
}

/* Calls `decode` with a copy of the first `size` bytes. */
static inline void decode_exactly(const void *bytes, size_t size, void (*decode)(const uint8_t *bytes, size_t size)) {
  uint8_t *copy = malloc(size ? size : 1);
  if (!copy) abort();
  if (size) memcpy(copy, bytes, size);
  decode(copy, size);
  free(copy);
}

/* A few bytes become others; a 32-bit number becomes one at some limit. */
static inline void mutate(uint8_t *bytes, size_t size) {
  static const uint32_t limits[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0};
  for (uint32_t left = 1 + hostile_below(3); left; left--) {
    size_t at = hostile_below((uint32_t)size);
    if (hostile_below(2) || size - at < sizeof *limits)
      bytes[at] = (uint8_t)hostile_below(256);
    else
      memcpy(bytes + at, &limits[hostile_below(sizeof limits / sizeof *limits)], sizeof *limits);
  }
}

static inline void decode_damaged(const void *bytes, size_t size, void (*decode)(const uint8_t *bytes, size_t size)) {
  for (size_t cut = 0; cut < size; cut++) decode_exactly(bytes, cut, decode);
  uint8_t *copy = malloc(size);
  if (!copy) abort();
  for (uint32_t i = 0; i < MUTATIONS; i++) {
    memcpy(copy, bytes, size);
    mutate(copy, size);
    decode_exactly(copy, size - hostile_below(2) * hostile_below((uint32_t)size), decode);
  }
  free(copy);
}

#endif
