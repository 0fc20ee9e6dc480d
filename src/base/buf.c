/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"

static void give_up(struct nx_buf *buf) {
  nx_account_release(buf->account, buf->capacity);
  free(buf->data);
  buf->data = NULL;
  buf->capacity = 0;
}

void nx_buf_deinit(struct nx_buf *buf) {
  give_up(buf);
  *buf = (struct nx_buf){.account = buf->account};
}

void nx_buf_reset(struct nx_buf *buf, size_t keep_bytes) {
  if (buf->capacity > keep_bytes) give_up(buf);
  buf->len = 0;
  buf->failed = false;
  buf->starved_bytes = 0;
}

static bool grow(struct nx_buf *buf, size_t capacity) {
  size_t more = capacity - buf->capacity;
  if (capacity > PTRDIFF_MAX) return false; /* no object is larger (malloc(3)) */
  if (!nx_account_charge(buf->account, more)) return false;
  char *data = realloc(buf->data, capacity);
  if (!data) {
    nx_account_release(buf->account, more);
    return false;
  }
  buf->data = data;
  buf->capacity = capacity;
  return true;
}

/* Growth ahead of need is charged, so it is bounded; the C library moves large blocks by their page tables, not by copying. */
#define SPARE_MAX_BYTES (1u << 20)

/* Room for `need` bytes in all. Grows by half, but not past what `limit` and printf's NUL can use. */
static bool ensure(struct nx_buf *buf, size_t need) {
  if (buf->data && need <= buf->capacity) return true;
  size_t capacity = need;
  if (need <= PTRDIFF_MAX / 2) {
    size_t spare = buf->capacity / 2 < SPARE_MAX_BYTES ? buf->capacity / 2 : SPARE_MAX_BYTES;
    if (capacity < buf->capacity + spare) capacity = buf->capacity + spare;
    if (capacity < 256) capacity = 256;
    if (buf->limit && buf->limit < capacity) capacity = buf->limit + 1;
    if (capacity < need) capacity = need;
  }
  if (grow(buf, capacity)) return true;
  buf->starved_bytes = capacity - buf->capacity;
  return false;
}

/* Like nx_buf_reserve, with `spare` bytes behind that do not count against the limit. */
static char *reserve(struct nx_buf *buf, size_t bytes, size_t spare) {
  size_t end, need;
  if (buf->failed) return NULL;
  bool passes = __builtin_add_overflow(buf->len, bytes, &end) || (buf->limit && end > buf->limit) ||
                __builtin_add_overflow(end, spare, &need);
  if (passes || !ensure(buf, need)) {
    buf->failed = true;
    return NULL;
  }
  return buf->data + buf->len;
}

void nx_buf_shrink(struct nx_buf *buf) {
  size_t unused = buf->capacity - buf->len;
  if (!buf->len) {
    give_up(buf);
    return;
  }
  char *data = unused ? realloc(buf->data, buf->len) : NULL;
  if (!data) return;
  buf->data = data;
  buf->capacity = buf->len;
  nx_account_release(buf->account, unused);
}

char *nx_buf_reserve(struct nx_buf *buf, size_t bytes) { return reserve(buf, bytes, 0); }

void nx_buf_add(struct nx_buf *buf, const void *data, size_t bytes) {
  if (!bytes) return;
  char *room = nx_buf_reserve(buf, bytes);
  if (!room) return;
  memcpy(room, data, bytes);
  buf->len += bytes;
}

void nx_buf_str(struct nx_buf *buf, const char *text) { nx_buf_add(buf, text, strlen(text)); }

void nx_buf_char(struct nx_buf *buf, char c) { nx_buf_add(buf, &c, 1); }

void nx_buf_printf(struct nx_buf *buf, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, args);
  va_end(args);
  char *room = n < 0 ? NULL : reserve(buf, (size_t)n, 1);
  if (room) {
    vsnprintf(room, (size_t)n + 1, format, again);
    buf->len += (size_t)n;
  } else {
    buf->failed = true;
  }
  va_end(again);
}

void nx_buf_u64(struct nx_buf *buf, uint64_t value) {
  char digits[20];
  size_t n = sizeof digits;
  do digits[--n] = (char)('0' + value % 10);
  while (value /= 10);
  nx_buf_add(buf, digits + n, sizeof digits - n);
}

static void escape(struct nx_buf *buf, unsigned char c) {
  static const char short_forms[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
  if (c == '"' || c == '\\') {
    nx_buf_char(buf, '\\');
    nx_buf_char(buf, (char)c);
  } else if (c < sizeof short_forms && short_forms[c]) {
    nx_buf_char(buf, '\\');
    nx_buf_char(buf, short_forms[c]);
  } else {
    static const char digits[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
    nx_buf_add(buf, text, sizeof text);
  }
}

void nx_buf_json_string(struct nx_buf *buf, const char *text, size_t bytes) {
  const unsigned char *s = (const unsigned char *)text;
  size_t plain = 0; /* start of the run that needs no change */
  nx_buf_char(buf, '"');
  for (size_t i = 0; i < bytes;) {
    if (s[i] >= 0x20 && s[i] < 0x7f && s[i] != '"' && s[i] != '\\') {
      i++;
      continue;
    }
    size_t sequence = s[i] < 0x80 ? 0 : nx_utf8_sequence(text + i, bytes - i);
    bool c1 = sequence == 2 && s[i] == 0xc2 && s[i + 1] < 0xa0;
    if (sequence && !c1) {
      i += sequence;
      continue;
    }
    nx_buf_add(buf, text + plain, i - plain);
    if (s[i] < 0x80 || c1)
      escape(buf, s[c1 ? i + 1 : i]);
    else
      nx_buf_lit(buf, "\xef\xbf\xbd");
    i += c1 ? 2 : 1;
    plain = i;
  }
  nx_buf_add(buf, text + plain, bytes - plain);
  nx_buf_char(buf, '"');
}
