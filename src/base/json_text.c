/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json_text.h"

#include <stdint.h>
#include <string.h>

size_t nx_utf8_sequence(const char *text, size_t left) {
  static const struct {
    unsigned char mask, lead;
    uint32_t least;
  } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
  const unsigned char *s = (const unsigned char *)text;
  for (size_t extra = 0; extra < 4; extra++) {
    if ((s[0] & forms[extra].mask) != forms[extra].lead) continue;
    if (left <= extra) return 0;
    uint32_t code = s[0] & (unsigned char)~forms[extra].mask;
    for (size_t i = 1; i <= extra; i++) {
      if ((s[i] & 0xc0) != 0x80) return 0;
      code = code << 6 | (s[i] & 0x3fu);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < forms[extra].least || surrogate || code > 0x10ffff ? 0 : extra + 1;
  }
  return 0;
}

struct reader {
  const char *at, *end;
  const char *reason;
  size_t depth;
  uint8_t is_object[NX_JSON_MAX_DEPTH / 8 + 1]; /* one bit per level */
};

static bool fail(struct reader *r, const char *reason) {
  r->reason = reason;
  return false;
}

static void skip_space(struct reader *r) {
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
}

static bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool read_escape(struct reader *r) {
  if (r->end - r->at < 2) return fail(r, "unfinished escape");
  char kind = r->at[1];
  r->at += 2;
  if (kind != 'u') return strchr("\"\\/bfnrt", kind) && kind ? true : fail(r, "unknown escape");
  for (int i = 0; i < 4; i++, r->at++)
    if (r->at == r->end || !is_hex(*r->at)) return fail(r, "bad \\u escape");
  return true;
}

static bool read_string(struct reader *r) {
  r->at++;
  while (r->at < r->end) {
    unsigned char c = (unsigned char)*r->at;
    if (c == '"') {
      r->at++;
      return true;
    }
    if (c == '\\') {
      if (!read_escape(r)) return false;
    } else if (c < 0x20) {
      return fail(r, "control character in a string");
    } else if (c < 0x80) {
      r->at++;
    } else {
      size_t sequence = nx_utf8_sequence(r->at, (size_t)(r->end - r->at));
      if (!sequence) return fail(r, "invalid UTF-8");
      r->at += sequence;
    }
  }
  return fail(r, "unfinished string");
}

static bool read_digits(struct reader *r) {
  const char *from = r->at;
  while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
  return r->at > from ? true : fail(r, "bad number");
}

static bool read_number(struct reader *r) {
  if (*r->at == '-') r->at++;
  if (r->at < r->end && *r->at == '0')
    r->at++;
  else if (!read_digits(r))
    return false;
  if (r->at < r->end && *r->at == '.') {
    r->at++;
    if (!read_digits(r)) return false;
  }
  if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
    r->at++;
    if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
    if (!read_digits(r)) return false;
  }
  return true;
}

static bool read_word(struct reader *r, const char *word) {
  size_t bytes = strlen(word);
  if ((size_t)(r->end - r->at) < bytes || memcmp(r->at, word, bytes)) return fail(r, "unexpected character");
  r->at += bytes;
  return true;
}

static bool read_scalar(struct reader *r) {
  switch (*r->at) {
  case '"': return read_string(r);
  case 't': return read_word(r, "true");
  case 'f': return read_word(r, "false");
  case 'n': return read_word(r, "null");
  default:
    if (*r->at != '-' && (*r->at < '0' || *r->at > '9')) return fail(r, "unexpected character");
    return read_number(r);
  }
}

static bool open_level(struct reader *r, bool object) {
  if (r->depth == NX_JSON_MAX_DEPTH) return fail(r, "nested too deep");
  uint8_t bit = (uint8_t)(1u << (r->depth % 8));
  r->is_object[r->depth / 8] = (uint8_t)(object ? r->is_object[r->depth / 8] | bit : r->is_object[r->depth / 8] & ~bit);
  r->depth++;
  r->at++;
  return true;
}

static bool in_object(const struct reader *r) {
  return r->is_object[(r->depth - 1) / 8] >> ((r->depth - 1) % 8) & 1;
}

static bool read_key(struct reader *r) {
  skip_space(r);
  if (r->at == r->end || *r->at != '"') return fail(r, "expected a member name");
  if (!read_string(r)) return false;
  skip_space(r);
  if (r->at == r->end || *r->at != ':') return fail(r, "expected ':'");
  r->at++;
  return true;
}

/* After a value: closes levels that end here. True with *more when another value must follow. */
static bool after_value(struct reader *r, bool *more) {
  *more = false;
  while (r->depth) {
    skip_space(r);
    if (r->at == r->end) return fail(r, "unfinished");
    if (*r->at == ',') {
      r->at++;
      *more = true;
      return in_object(r) ? read_key(r) : true;
    }
    if (*r->at != (in_object(r) ? '}' : ']')) return fail(r, "expected ',' or the end of the list");
    r->at++;
    r->depth--;
  }
  return true;
}

static bool read_text(struct reader *r) {
  for (bool more = true; more;) {
    skip_space(r);
    if (r->at == r->end) return fail(r, "unfinished");
    if (*r->at == '{' || *r->at == '[') {
      bool object = *r->at == '{';
      if (!open_level(r, object)) return false;
      skip_space(r);
      bool empty = r->at < r->end && *r->at == (object ? '}' : ']');
      if (!empty) {
        if (object && !read_key(r)) return false;
        continue;
      }
      /* after_value closes it */
    } else if (!read_scalar(r)) {
      return false;
    }
    if (!after_value(r, &more)) return false;
  }
  skip_space(r);
  return r->at == r->end ? true : fail(r, "more text after the value");
}

bool nx_json_is_valid(const char *text, size_t bytes, struct nx_json_fault *fault) {
  struct reader r = {.at = text, .end = text + bytes};
  if (read_text(&r)) return true;
  if (fault) *fault = (struct nx_json_fault){.offset = (size_t)(r.at - text), .reason = r.reason};
  return false;
}
