/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  int http_status;
} errors[] = {
  [NX_OK] = {"OK", 200},
#define X(symbol, name, status) [NX_ERR_##symbol] = {name, status},
  NX_ERROR_LIST(X)
#undef X
};

/* Adds ": tail", cut where the text is full. */
static void append(char *text, size_t size, const char *tail) {
  const char *const parts[] = {": ", tail};
  size_t len = strlen(text);
  for (size_t i = 0; i < 2; i++) {
    size_t bytes = strnlen(parts[i], size - 1 - len);
    memcpy(text + len, parts[i], bytes);
    len += bytes;
  }
  text[len] = 0;
}

static int fill(struct nx_error *err, enum nx_error_code code, int sys_errno, const char *format, va_list args) {
  if (!err) return -(int)code;
  err->code = code;
  err->sys_errno = sys_errno;
  vsnprintf(err->text, sizeof err->text, format, args);
  if (sys_errno) {
    const char *what = strerrordesc_np(sys_errno);
    append(err->text, sizeof err->text, what ? what : "unknown system error");
  }
  return -(int)code;
}

int nx_error_set(struct nx_error *err, enum nx_error_code code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fill(err, code, 0, format, args);
  va_end(args);
  return -(int)code;
}

int nx_error_sys(struct nx_error *err, const char *format, ...) {
  int saved = errno;
  va_list args;
  va_start(args, format);
  fill(err, NX_ERR_SYSTEM, saved, format, args);
  va_end(args);
  errno = saved;
  return -NX_ERR_SYSTEM;
}

int nx_error_wrap(struct nx_error *err, const char *format, ...) {
  if (!err) return -NX_ERR_INTERNAL;
  char text[sizeof err->text];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  append(text, sizeof text, err->text);
  memcpy(err->text, text, sizeof text);
  return -(int)err->code;
}

const char *nx_error_name(enum nx_error_code code) { return errors[code].name; }
int nx_error_http_status(enum nx_error_code code) { return errors[code].http_status; }
