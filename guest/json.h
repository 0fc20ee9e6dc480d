/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON in and out of an execution, several times faster than the engine's own. Only what is common is done here; for the
 * rest the engine's functions answer, so that every value, error and side effect is theirs. */
#ifndef NX_GUEST_JSON_H
#define NX_GUEST_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "quickjs.h"

/* Like JS_ParseJSON: `text` is followed by a NUL. */
JSValue nx_json_parse(JSContext *ctx, const char *text, size_t bytes, const char *name);

/* A text that is being written: in `small` until it does not fit any more. */
struct nx_json_text {
  char *data;
  uint32_t bytes, capacity;
  char small[488];
};

/* JSON.stringify(value) when no code of the handler has to run for it: no accessor, no toJSON, no proxy. False when the engine
 * must do it, also when memory is out; nothing has happened then. nx_json_free in either case. */
bool nx_json_write(JSContext *ctx, JSValueConst value, struct nx_json_text *out);
void nx_json_free(JSContext *ctx, struct nx_json_text *text);

#endif
