/* SPDX-License-Identifier: Apache-2.0
 *
 * The only way to touch guest memory by an address that the guest gave. Every call checks offset and length against
 * the current size; the pointer is good until the guest runs again, and must not be kept longer. The guest cannot
 * change the bytes meanwhile: an instance is entered by one thread at a time. */
#ifndef NX_SANDBOX_GUEST_MEM_H
#define NX_SANDBOX_GUEST_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "sandbox/wasm-rt.h"

static inline uint8_t *nx_guest_mem(wasm_rt_memory_t *memory, uint32_t offset, uint32_t bytes) {
  if ((uint64_t)offset + bytes > memory->size) return NULL;
  return memory->data + offset;
}

#endif
