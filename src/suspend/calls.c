/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/calls.h"

#include <assert.h>
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

bool nx_calls_find(const struct nx_calls *calls, uint32_t id, struct nx_call *out) {
  for (size_t at = 0; nx_calls_next(calls, &at, out);)
    if (out->id == id) return true;
  return false;
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

static bool has_id(void *id, const struct nx_call *call) { return call->id == *(uint32_t *)id; }

bool nx_calls_close(struct nx_calls *calls, uint32_t id) {
  uint32_t before = calls->count;
  nx_calls_close_if(calls, has_id, &id);
  return calls->count < before;
}

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
  for (; nx_calls_next(calls, &at, &call) && call.id > last; last = call.id) {
    calls->count++;
    calls->callers += call.kind == NX_CALL_CALLER;
  }
  return at == bytes && !calls->block.failed;
}
