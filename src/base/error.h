/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors of the host: a code, the kernel's errno where there is one, and a text that says what to do.
 * Ownership: the caller owns the struct; nothing here allocates. Untouched on success.
 * Functions that can fail return 0, or the negative code with `err` filled (err may be NULL).
 * What a handler does wrong is not an error of this kind: see enum nx_outcome_code in exec/outcome.h. */
#ifndef NX_BASE_ERROR_H
#define NX_BASE_ERROR_H

#include <stdarg.h>

/* X(symbol, code in problem+json, HTTP status) */
#define NX_ERROR_LIST(X)                         \
  X(INTERNAL, "INTERNAL_ERROR", 500)             \
  X(NO_MEMORY, "OUT_OF_MEMORY", 503)             \
  X(INVALID, "INVALID_REQUEST", 400)             \
  X(NOT_FOUND, "NOT_FOUND", 404)                 \
  X(METHOD, "METHOD_NOT_ALLOWED", 405)           \
  X(REQUEST_TIMEOUT, "REQUEST_TIMEOUT", 408)     \
  X(CONFLICT, "CONFLICT", 409)                   \
  X(BUSY, "CONFLICT", 409)                       \
  X(GONE, "GONE", 410)                           \
  X(PRECONDITION, "PRECONDITION_FAILED", 412)    \
  X(TOO_LARGE, "PAYLOAD_TOO_LARGE", 413)         \
  X(UNPROCESSABLE, "COMPILATION_ERROR", 422)     \
  X(HEADERS_TOO_LARGE, "HEADERS_TOO_LARGE", 431) \
  X(OVERLOADED, "OVERLOADED", 503)               \
  X(UNAVAILABLE, "STORE_UNAVAILABLE", 503)       \
  X(CONFIG, "INVALID_CONFIGURATION", 500)        \
  X(SYSTEM, "SYSTEM_ERROR", 500)

enum nx_error_code {
  NX_OK = 0,
#define X(symbol, name, status) NX_ERR_##symbol,
  NX_ERROR_LIST(X)
#undef X
};

struct nx_error {
  enum nx_error_code code;
  int sys_errno;  /* 0 when the kernel was not involved */
  char text[256];
};

/* Fills `err` and returns -code. */
int nx_error_set(struct nx_error *err, enum nx_error_code code, const char *format, ...)
  __attribute__((format(printf, 3, 4)));
/* The same for a failed system call: NX_ERR_SYSTEM, with errno's text appended. */
int nx_error_sys(struct nx_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " in front of the text on the way up; returns -err->code. */
int nx_error_wrap(struct nx_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *nx_error_name(enum nx_error_code code);
int nx_error_http_status(enum nx_error_code code);

#endif
