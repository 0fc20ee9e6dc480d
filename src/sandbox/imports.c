/* SPDX-License-Identifier: Apache-2.0
 *
 * What the guest may call: three imports. The guest is hostile and may call each with any arguments, at any time. */
#include <string.h>

#include "abi.h"
#include "base/clock.h"
#include "sandbox/guest_binding.h"
#include "sandbox/guest_mem.h"
#include "sandbox/random.h"
#include "sandbox/thread.h"

static wasm_rt_memory_t *memory_of(const struct nx_guest_thread *self) {
  return (wasm_rt_memory_t *)(uintptr_t)self->memory;
}

NX_WASM_IMPORT_CALL(op, a, a_bytes, b, b_bytes) {
  (void)unused;
  struct nx_guest_thread *self = nx__thread_host_begin();
  wasm_rt_memory_t *memory = memory_of(self);
  const char *a_text = (const char *)nx_guest_mem(memory, a, a_bytes);
  const char *b_text = (const char *)nx_guest_mem(memory, b, b_bytes);
  int32_t reply = NX_REPLY_BAD_CALL;
  if (a_text && b_text) reply = self->call->host_call(self->call->opaque, op, a_text, a_bytes, b_text, b_bytes);
  nx__thread_host_end(self);
  return (uint32_t)reply;
}

NX_WASM_IMPORT_CLOCK(which) {
  (void)unused;
  struct nx_guest_thread *self = nx__thread_host_begin();
  uint64_t now = 0;
  if (!self->call->frozen)
    now = which == NX_CLOCK_REALTIME ? nx_clock_realtime_ns() : self->call->age_ns + (nx_clock_ns() - self->began_ns);
  nx__thread_host_end(self);
  return now;
}

/* The fixed sequence for images: any would do, as long as it is the same on every machine. */
static void frozen_random(struct nx_guest_thread *self, uint8_t *out, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i++) {
    uint32_t x = ++self->frozen_random * UINT32_C(0x9e3779b1);
    out[i] = (uint8_t)((x ^ (x >> 15)) >> 8);
  }
}

/* Time in the host is not cut by a deadline, so one call must be short: crypto.getRandomValues has the same bound. */
#define RANDOM_MAX_BYTES 65536u

NX_WASM_IMPORT_RANDOM(out, bytes) {
  (void)unused;
  struct nx_guest_thread *self = nx__thread_host_begin();
  uint8_t *target = bytes <= RANDOM_MAX_BYTES ? nx_guest_mem(memory_of(self), out, bytes) : NULL;
  if (target && self->call->frozen)
    frozen_random(self, target, bytes);
  else if (target)
    nx_random_bytes(target, bytes);
  nx__thread_host_end(self);
}
