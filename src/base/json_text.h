/* SPDX-License-Identifier: Apache-2.0
 *
 * Is this text one JSON value (RFC 8259, UTF-8)? Answered in one pass without allocating: what a hostile guest returns
 * may be megabytes of "[0,0,0,…", and a parsed tree of it would be many times as large.
 * Limits: nesting deeper than NX_JSON_MAX_DEPTH is refused. */
#ifndef NX_BASE_JSON_TEXT_H
#define NX_BASE_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#define NX_JSON_MAX_DEPTH 1000

struct nx_json_fault {
  size_t offset;      /* of the byte that does not fit */
  const char *reason; /* static text */
};

/* `fault` may be NULL. */
bool nx_json_is_valid(const char *text, size_t bytes, struct nx_json_fault *fault);

/* Length of the valid UTF-8 sequence at `text` (RFC 3629: no overlong forms, no surrogates), 0 when it is not one. */
size_t nx_utf8_sequence(const char *text, size_t left);

#endif
