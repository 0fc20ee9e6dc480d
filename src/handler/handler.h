/* SPDX-License-Identifier: Apache-2.0
 *
 * A compiled handler: its source, and the image of a guest that has compiled it and run its top level.
 * Ownership: immutable but for the profile, and reference-counted (nx_handler_hold, nx_handler_release); it holds its
 *            image.
 * Threads:   any. */
#ifndef NX_HANDLER_HANDLER_H
#define NX_HANDLER_HANDLER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "handler/profile.h"
#include "image/image.h"

#define NX_HANDLER_NAME_MAX 128u

struct nx_handler {
  _Atomic uint32_t _refs;
  uint8_t source_hash[NX_HASH_BYTES]; /* BLAKE2b-256 of the source bytes */
  struct nx_image *image;
  const char *source; /* any bytes; a NUL follows the last */
  size_t source_bytes;
  uint64_t compile_time_us; /* what making the image cost; 0 when it came from the disk cache */
  size_t bytes;             /* heap it takes, image and source included */
  struct nx_profile profile;
};

/* Copies `source` and holds `image`, whose account is charged for the copy too. */
int nx_handler_create(struct nx_handler **out, const char *source, size_t source_bytes, struct nx_image *image,
                      uint64_t compile_time_us, struct nx_error *err);
struct nx_handler *nx_handler_hold(struct nx_handler *handler);
void nx_handler_release(struct nx_handler *handler); /* NULL is allowed */

void nx_handler_hash_source(uint8_t hash[NX_HASH_BYTES], const char *source, size_t source_bytes);
/* Lower-case hex, NUL-terminated; and back, from exactly 64 digits of either case. */
void nx_hash_to_hex(char hex[2 * NX_HASH_BYTES + 1], const uint8_t hash[NX_HASH_BYTES]);
bool nx_hash_from_hex(uint8_t hash[NX_HASH_BYTES], const char *hex, size_t bytes);

/* ^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ */
bool nx_handler_name_valid(const char *name, size_t bytes);

/* Appends the source line and a line with a caret under the column:
 *     12 | const total = itms.length;
 *        |               ^
 * Both count from 1; the column counts bytes, as the engine does; 0 means unknown: no caret. A column past the end is
 * put at the end. Tabs stay, long lines are cut around the column, control characters become spaces and invalid
 * UTF-8 becomes U+FFFD. Appends nothing when there is no such line. */
void nx_handler_snippet(const char *source, size_t source_bytes, uint32_t line, uint32_t column, struct nx_buf *out);

#endif
