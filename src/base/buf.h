/* SPDX-License-Identifier: Apache-2.0
 *
 * A growable byte buffer, and JSON written into it.
 * Ownership: the buffer owns its bytes; nx_buf_deinit or the NX_BUF_AUTO attribute frees them.
 * Threads:   a buffer belongs to one thread at a time.
 * Errors:    sticky: when memory runs out or `limit` is passed, `failed` is set and later appends do nothing, so a
 *            caller builds a whole text and checks once; `starved_bytes` tells the former from the latter. */
#ifndef NX_BASE_BUF_H
#define NX_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/account.h"

struct nx_buf {
  char *data;   /* NULL while empty; not NUL-terminated */
  size_t len;
  size_t capacity;
  size_t limit; /* 0: none */
  bool failed;
  size_t starved_bytes; /* failed, because it could not grow by so many: no memory, or the account refused; 0: not so */
  struct nx_account *account; /* charged for the capacity; borrowed, set before the first append; NULL: nobody */
};

void nx_buf_deinit(struct nx_buf *buf);
#define NX_BUF_AUTO __attribute__((cleanup(nx_buf_deinit))) struct nx_buf

/* Gives back capacity that is not used. */
void nx_buf_shrink(struct nx_buf *buf);
/* Empties the buffer and keeps its memory, unless that is more than `keep_bytes`. */
void nx_buf_reset(struct nx_buf *buf, size_t keep_bytes);
/* Room for `bytes` more; NULL on failure. The caller adds what it used to `len`. */
char *nx_buf_reserve(struct nx_buf *buf, size_t bytes);
void nx_buf_add(struct nx_buf *buf, const void *data, size_t bytes);
void nx_buf_str(struct nx_buf *buf, const char *text);
#define nx_buf_lit(buf, literal) nx_buf_add((buf), "" literal, sizeof(literal) - 1)
void nx_buf_char(struct nx_buf *buf, char c);
void nx_buf_printf(struct nx_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nx_buf_u64(struct nx_buf *buf, uint64_t value);
/* A JSON string, quotes included. Bytes that are not valid UTF-8 become U+FFFD, so the text is always valid JSON;
 * DEL and the C1 controls are escaped too, because terminals obey them. */
void nx_buf_json_string(struct nx_buf *buf, const char *text, size_t bytes);

#endif
