/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls that an execution waits for: what the guest asked for and nobody has answered yet, in the order of their
 * ids.
 *
 * A caller's call is answered through POST /v1/resume. Calls of the built-in extensions are answered by nexus itself:
 * `time` when it is due, `net` when the response is there; a call of `net` is due, too, long after it must have ended:
 * then it was lost with the process that made it.
 *
 * The list is one packed block, the same in memory and in a stored record, so that ten thousand calls cost what their
 * texts cost. Ownership: the list owns its block (nx_calls_deinit); texts handed out point into it, until it changes.
 * Threads: one at a time. Errors: adding fails for lack of memory; bytes from outside are checked
 * by nx_calls_load. */
#ifndef NX_SUSPEND_CALLS_H
#define NX_SUSPEND_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum nx_call_kind { NX_CALL_CALLER, NX_CALL_TIME, NX_CALL_NET };

struct nx_call {
  uint32_t id; /* from 1 on, never used twice in an execution */
  enum nx_call_kind kind;
  uint64_t due_ms; /* since 1970; 0 for a caller's */
  const char *extension, *method, *args; /* args: a JSON array */
  uint32_t extension_bytes, method_bytes, args_bytes;
};

struct nx_calls {
  struct nx_buf block;
  uint32_t count;
  uint32_t callers; /* of them the caller's */
};

void nx_calls_deinit(struct nx_calls *calls);
/* Its id must be larger than all before. False: no memory. */
bool nx_calls_add(struct nx_calls *calls, const struct nx_call *call);
/* False when it is not open. */
bool nx_calls_close(struct nx_calls *calls, uint32_t id);
/* All of which `is_answered` says so, in one walk. */
void nx_calls_close_if(struct nx_calls *calls, bool (*is_answered)(void *self, const struct nx_call *call), void *self);

/* Many at once, in one walk: with ten thousand calls open, a walk for each would take seconds. */
struct nx_call_mark {
  uint32_t id;            /* the caller's */
  bool is_open;
  enum nx_call_kind kind; /* of an open one */
};
/* Sorts the marks by id, and fills them. */
void nx_calls_mark(const struct nx_calls *calls, struct nx_call_mark *marks, size_t count);
/* Of those sorted marks the one of that id, always the same if there are several; NULL: none. */
struct nx_call_mark *nx_call_mark_find(struct nx_call_mark *marks, size_t count, uint32_t id);
void nx_calls_close_marked(struct nx_calls *calls, struct nx_call_mark *marks, size_t count);

/* For walking: begin with an `at` of 0; false at the end. */
bool nx_calls_next(const struct nx_calls *calls, size_t *at, struct nx_call *out);
bool nx_calls_have(const struct nx_calls *calls, enum nx_call_kind kind);
/* When the first one is due; UINT64_MAX when there are only the caller's. */
uint64_t nx_calls_due_ms(const struct nx_calls *calls);

/* Copies a block that nx_calls made, checking it. */
bool nx_calls_load(struct nx_calls *calls, const char *block, size_t bytes);

#endif
