/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/calls.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What precedes the three texts of a call. */
struct packed {
  uint64_t due_ms;
  uint32_t id;
  uint32_t extension_bytes, method_bytes, args_bytes;
  uint32_t kind;
  uint32_t _unused;
};
static_assert(sizeof(struct packed) == 32, "written to stores");

void nx_calls_deinit(struct nx_calls *calls) {
  nx_buf_deinit(&calls->block);
  calls->count = calls->callers = 0;
}

static uint64_t packed_bytes(const struct packed *head) {
  return sizeof *head + (uint64_t)head->extension_bytes + head->method_bytes + head->args_bytes;
}

bool nx_calls_add(struct nx_calls *calls, const struct nx_call *call) {
  const struct packed head = {
    .due_ms = call->due_ms,
    .id = call->id,
    .extension_bytes = call->extension_bytes,
    .method_bytes = call->method_bytes,
    .args_bytes = call->args_bytes,
    .kind = call->kind,
  };
  char *at = nx_buf_reserve(&calls->block, packed_bytes(&head));
  if (!at) return false;
  memcpy(at, &head, sizeof head);
  at += sizeof head;
  memcpy(at, call->extension, call->extension_bytes);
  at += call->extension_bytes;
  memcpy(at, call->method, call->method_bytes);
  at += call->method_bytes;
  memcpy(at, call->args, call->args_bytes);
  calls->block.len += packed_bytes(&head);
  calls->count++;
  calls->callers += call->kind == NX_CALL_CALLER;
  return true;
}

/* False when no whole call lies there. */
static bool unpack(const struct nx_buf *block, size_t at, struct nx_call *out) {
  struct packed head;
  if (block->len - at < sizeof head) return false;
  memcpy(&head, block->data + at, sizeof head);
  if (packed_bytes(&head) > block->len - at || head.kind > NX_CALL_NET) return false;
  const char *text = block->data + at + sizeof head;
  *out = (struct nx_call){
    .id = head.id,
    .kind = (enum nx_call_kind)head.kind,
    .due_ms = head.due_ms,
    .extension = text,
    .method = text + head.extension_bytes,
    .args = text + head.extension_bytes + head.method_bytes,
    .extension_bytes = head.extension_bytes,
    .method_bytes = head.method_bytes,
    .args_bytes = head.args_bytes,
  };
  return true;
}

static size_t bytes_of(const struct nx_call *call) {
  return sizeof(struct packed) + call->extension_bytes + call->method_bytes + call->args_bytes;
}

bool nx_calls_next(const struct nx_calls *calls, size_t *at, struct nx_call *out) {
  if (!unpack(&calls->block, *at, out)) return false;
  *at += bytes_of(out);
  return true;
}

void nx_calls_close_if(struct nx_calls *calls, bool (*is_answered)(void *self, const struct nx_call *call), void *self) {
  struct nx_buf *block = &calls->block;
  struct nx_call call;
  size_t kept = 0, begin = 0, at = 0;
  for (; nx_calls_next(calls, &at, &call); begin = at) {
    if (is_answered(self, &call)) {
      calls->count--;
      calls->callers -= call.kind == NX_CALL_CALLER;
      continue;
    }
    if (kept != begin) memmove(block->data + kept, block->data + begin, at - begin);
    kept += at - begin;
  }
  block->len = kept;
}

bool nx_calls_close(struct nx_calls *calls, uint32_t id) {
  struct nx_buf *block = &calls->block;
  struct nx_call call;
  size_t begin = 0, end = 0;
  while (nx_calls_next(calls, &end, &call) && call.id < id) begin = end;
  if (begin == end || call.id != id) return false;
  memmove(block->data + begin, block->data + end, block->len - end);
  block->len -= end - begin;
  calls->count--;
  calls->callers -= call.kind == NX_CALL_CALLER;
  return true;
}

/* ---- Many at once ----------------------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b) {
  uint32_t first = ((const struct nx_call_mark *)a)->id, second = ((const struct nx_call_mark *)b)->id;
  return (first > second) - (first < second);
}

struct nx_call_mark *nx_call_mark_find(struct nx_call_mark *marks, size_t count, uint32_t id) {
  const struct nx_call_mark wanted = {.id = id};
  return bsearch(&wanted, marks, count, sizeof *marks, by_id);
}

void nx_calls_mark(const struct nx_calls *calls, struct nx_call_mark *marks, size_t count) {
  struct nx_call call;
  qsort(marks, count, sizeof *marks, by_id);
  for (size_t at = 0; nx_calls_next(calls, &at, &call);) {
    struct nx_call_mark *mark = nx_call_mark_find(marks, count, call.id);
    if (!mark) continue;
    mark->is_open = true;
    mark->kind = call.kind;
  }
}

struct marked {
  struct nx_call_mark *marks;
  size_t count;
};

static bool is_marked(void *self, const struct nx_call *call) {
  const struct marked *marked = self;
  return nx_call_mark_find(marked->marks, marked->count, call->id);
}

void nx_calls_close_marked(struct nx_calls *calls, struct nx_call_mark *marks, size_t count) {
  nx_calls_close_if(calls, is_marked, &(struct marked){marks, count});
}

/* ---- The whole list ---------------------------------------------------------------------------------------------------- */

bool nx_calls_have(const struct nx_calls *calls, enum nx_call_kind kind) {
  struct nx_call call;
  for (size_t at = 0; nx_calls_next(calls, &at, &call);)
    if (call.kind == kind) return true;
  return false;
}

uint64_t nx_calls_due_ms(const struct nx_calls *calls) {
  uint64_t first = UINT64_MAX;
  struct nx_call call;
  for (size_t at = 0; nx_calls_next(calls, &at, &call);)
    if (call.kind != NX_CALL_CALLER && call.due_ms < first) first = call.due_ms;
  return first;
}

bool nx_calls_load(struct nx_calls *calls, const char *block, size_t bytes) {
  nx_buf_reset(&calls->block, SIZE_MAX);
  calls->count = calls->callers = 0;
  nx_buf_add(&calls->block, block, bytes);
  struct nx_call call;
  uint32_t last = 0;
  size_t at = 0;
  while (nx_calls_next(calls, &at, &call)) {
    if (call.id <= last) return false;
    last = call.id;
    calls->count++;
    calls->callers += call.kind == NX_CALL_CALLER;
  }
  return at == bytes && !calls->block.failed;
}
