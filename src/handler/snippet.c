/* SPDX-License-Identifier: Apache-2.0
 *
 * nx_handler_snippet: the line a compiler or a stack trace speaks of, made fit to be shown. */
#include <stdio.h>

#include "base/json_text.h"
#include "handler/handler.h"

#define SHOWN_CHARS 100u /* of a long line */

struct line {
  const char *text;
  size_t bytes;
};

/* A line ends as it does for the engine: LF, CR LF, or CR alone. */
static bool find_line(const char *source, size_t bytes, uint32_t number, struct line *out) {
  const char *at = source, *end = source + bytes;
  for (uint32_t n = 1; n <= number; n++) {
    const char *stop = at;
    while (stop < end && *stop != '\n' && *stop != '\r') stop++;
    if (n == number) {
      *out = (struct line){at, (size_t)(stop - at)};
      return true;
    }
    if (stop == end) return false;
    at = stop + (stop + 1 < end && stop[0] == '\r' && stop[1] == '\n' ? 2 : 1);
  }
  return false;
}

/* Bytes of the character at `text`; an invalid sequence counts byte by byte. */
static size_t char_bytes(const char *text, size_t left) {
  size_t sequence = (unsigned char)*text < 0x80 ? 1 : nx_utf8_sequence(text, left);
  return sequence ? sequence : 1;
}

static size_t count_chars(const char *text, size_t bytes) {
  size_t chars = 0;
  for (size_t i = 0; i < bytes; i += char_bytes(text + i, bytes - i)) chars++;
  return chars;
}

/* Which character of the line begins at or before byte `column` - 1. */
static size_t char_at_column(const struct line *line, uint32_t column) {
  size_t wanted = column - 1 < line->bytes ? column - 1 : line->bytes, chars = 0;
  for (size_t i = 0, n; i < line->bytes; i += n, chars++) {
    n = char_bytes(line->text + i, line->bytes - i);
    if (i + n > wanted) break;
  }
  return chars;
}

static void add_char(struct nx_buf *out, const char *text, size_t bytes) {
  unsigned char c = (unsigned char)*text;
  if (bytes > 1)
    nx_buf_add(out, text, bytes);
  else if (c >= 0x80)
    nx_buf_lit(out, "\xef\xbf\xbd");
  else
    nx_buf_char(out, (c < ' ' && c != '\t') || c == 0x7f ? ' ' : (char)c);
}

/* The characters `from` to `to` of the line, or in their place spaces (tabs stay tabs) for the caret's line. */
static void add_chars(struct nx_buf *out, const struct line *line, size_t from, size_t to, bool blank) {
  size_t index = 0;
  for (size_t i = 0, n; i < line->bytes && index < to; i += n, index++) {
    n = char_bytes(line->text + i, line->bytes - i);
    if (index < from) continue;
    if (!blank)
      add_char(out, line->text + i, n);
    else
      nx_buf_char(out, line->text[i] == '\t' ? '\t' : ' ');
  }
}

void nx_handler_snippet(const char *source, size_t source_bytes, uint32_t line, uint32_t column, struct nx_buf *out) {
  struct line at;
  if (!line || !find_line(source, source_bytes, line, &at)) return;
  size_t chars = count_chars(at.text, at.bytes), caret = column ? char_at_column(&at, column) : 0;
  size_t from = caret > SHOWN_CHARS / 2 && chars > SHOWN_CHARS ? caret - SHOWN_CHARS / 2 : 0;
  size_t to = chars - from > SHOWN_CHARS ? from + SHOWN_CHARS : chars;
  const char *before = from ? "..." : "", *after = to < chars ? "..." : "";
  char number[16];
  int width = snprintf(number, sizeof number, "%u", line);
  nx_buf_printf(out, "%s | %s", number, before);
  add_chars(out, &at, from, to, false);
  nx_buf_str(out, after);
  if (!column) return;
  nx_buf_printf(out, "\n%*s | %*s", width, "", from ? 3 : 0, "");
  add_chars(out, &at, from, caret, true);
  nx_buf_char(out, '^');
}
