/* SPDX-License-Identifier: Apache-2.0
 *
 * The run-time functions that wasm2c's generated code calls: growing memory, traps, and what instantiation needs.
 * Every byte a guest can ever touch is granted here first. */
#include "sandbox/wasm-rt.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sandbox/instance.h"
#include "sandbox/thread.h"

bool wasm_rt_is_initialized(void) { return true; }

static const char *const trap_texts[] = {
  [WASM_RT_TRAP_NONE] = "no trap",
  [WASM_RT_TRAP_OOB] = "memory access out of bounds",
  [WASM_RT_TRAP_INT_OVERFLOW] = "integer overflow",
  [WASM_RT_TRAP_DIV_BY_ZERO] = "integer division by zero",
  [WASM_RT_TRAP_INVALID_CONVERSION] = "invalid conversion to integer",
  [WASM_RT_TRAP_UNREACHABLE] = "unreachable instruction",
  [WASM_RT_TRAP_CALL_INDIRECT] = "bad indirect call",
  [WASM_RT_TRAP_UNCAUGHT_EXCEPTION] = "uncaught exception",
  [WASM_RT_TRAP_EXHAUSTION] = "call stack exhausted",
};

void wasm_rt_trap(wasm_rt_trap_t code) {
  nx__thread_leave_guest(nx__thread_self(), NX_GUEST_TRAPPED, trap_texts[code]);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------- */

/* The window is reserved by the instance (instance.c); the template calls this once. It needs memory only to boot. */
void wasm_rt_allocate_memory(wasm_rt_memory_t *memory, uint32_t initial_pages, uint32_t max_pages) {
  size_t bytes = (size_t)initial_pages * NX_WASM_PAGE_BYTES;
  if (!nx__sandbox.boots) return;
  if (mprotect(memory->data, bytes, PROT_READ | PROT_WRITE)) abort(); /* start-up */
  memory->pages = initial_pages;
  memory->max_pages = max_pages;
  memory->size = bytes;
}

void wasm_rt_free_memory(wasm_rt_memory_t *memory) { (void)memory; }

/* memory.grow: the old size in pages, or -1 when the grant is refused. */
uint32_t wasm_rt_grow_memory(wasm_rt_memory_t *memory, uint32_t delta_pages) {
  struct nx_guest_thread *self = nx__thread_host_begin();
  const struct nx_guest_call *call = self->call;
  uint32_t old_pages = memory->pages;
  uint64_t bytes = (uint64_t)delta_pages * NX_WASM_PAGE_BYTES;
  uint32_t result = UINT32_MAX;
  if (memory->size + bytes > call->memory_limit_bytes) {
    self->memory_refused = true;
  } else if (bytes && (mprotect(memory->data + memory->size, bytes, PROT_READ | PROT_WRITE) ||
                       !call->grant(call->budget, bytes))) {
    mprotect(memory->data + memory->size, bytes, PROT_NONE); /* accessible for a moment, untouched */
    self->budget_refused = true;
  } else {
    memory->pages += delta_pages;
    memory->size += bytes;
    result = old_pages;
  }
  if (result == UINT32_MAX && bytes > self->refused_bytes) self->refused_bytes = bytes;
  nx__thread_host_end(self);
  return result;
}

/* ---- Function types and the table --------------------------------------------------------------------------------- */

/* Called while the base image is made, by one thread. Types are equal when their signatures are. */
#define MAX_TYPES 512
#define MAX_TYPE_VALUES 24

static struct {
  uint32_t params, results;
  wasm_rt_type_t values[MAX_TYPE_VALUES];
} types[MAX_TYPES];
static uint32_t type_count;

uint32_t wasm_rt_register_func_type(uint32_t params, uint32_t results, ...) {
  if (type_count == MAX_TYPES || params + results > MAX_TYPE_VALUES) abort(); /* start-up: the guest outgrew this */
  types[type_count].params = params;
  types[type_count].results = results;
  va_list args;
  va_start(args, results);
  for (uint32_t i = 0; i < params + results; i++) types[type_count].values[i] = va_arg(args, wasm_rt_type_t);
  va_end(args);
  uint32_t same = 0;
  while (same < type_count && memcmp(&types[same], &types[type_count], sizeof types[0])) same++;
  if (same == type_count) type_count++;
  return same + 1; /* 0 is the type of an empty table entry */
}

static size_t table_bytes(uint32_t elements) {
  size_t bytes = elements * sizeof(wasm_rt_funcref_t);
  return (bytes + 4095) & ~(size_t)4095;
}

void wasm_rt_allocate_funcref_table(wasm_rt_funcref_table_t *table, uint32_t elements, uint32_t max_elements) {
  void *data = mmap(NULL, table_bytes(elements), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) abort(); /* start-up */
  *table = (wasm_rt_funcref_table_t){.data = data, .size = elements, .max_size = max_elements};
}

void wasm_rt_free_funcref_table(wasm_rt_funcref_table_t *table) { munmap(table->data, table_bytes(table->size)); }
