/* SPDX-License-Identifier: Apache-2.0
 *
 * The interface that wasm2c's generated C is compiled against; our own implementation is in wasm_rt.c.
 *
 * It differs from the stock header in one way that matters: linear memory is an array member, not a pointer. The
 * generated instance struct then *is* the reservation (header pages, 4 GiB window, guard), and every load compiles
 * to [instance + constant + address] without fetching a base pointer. Guest addresses are 32-bit plus a static
 * offset below NX_WASM_GUARD_BYTES (checked when the guest is built), so no address a guest can form leaves `data`.
 *
 * Included by generated code and by src/sandbox only. */
#ifndef WASM_RT_H_
#define WASM_RT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WASM_RT_MEMCHECK_SIGNAL_HANDLER 1
#define WASM_RT_USE_STACK_DEPTH_COUNT 0

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define wasm_rt_memcpy memcpy

#define NX_WASM_PAGE_BYTES 65536u
#define NX_WASM_WINDOW_BYTES (UINT64_C(1) << 32)
#define NX_WASM_GUARD_BYTES (4u << 20)

typedef enum {
  WASM_RT_TRAP_NONE,
  WASM_RT_TRAP_OOB,
  WASM_RT_TRAP_INT_OVERFLOW,
  WASM_RT_TRAP_DIV_BY_ZERO,
  WASM_RT_TRAP_INVALID_CONVERSION,
  WASM_RT_TRAP_UNREACHABLE,
  WASM_RT_TRAP_CALL_INDIRECT,
  WASM_RT_TRAP_UNCAUGHT_EXCEPTION,
  WASM_RT_TRAP_EXHAUSTION,
} wasm_rt_trap_t;

typedef enum {
  WASM_RT_I32,
  WASM_RT_I64,
  WASM_RT_F32,
  WASM_RT_F64,
  WASM_RT_FUNCREF,
  WASM_RT_EXTERNREF,
} wasm_rt_type_t;

typedef void (*wasm_rt_function_ptr_t)(void);

typedef struct {
  uint32_t func_type;
  wasm_rt_function_ptr_t func;
  void *module_instance;
} wasm_rt_funcref_t;

typedef struct {
  wasm_rt_funcref_t *data;
  uint32_t max_size;
  uint32_t size;
} wasm_rt_funcref_table_t;

/* The guest has no externref; the generated helpers still name the types. */
typedef void *wasm_rt_externref_t;
#define wasm_rt_externref_null_value NULL
typedef struct {
  wasm_rt_externref_t *data;
  uint32_t max_size;
  uint32_t size;
} wasm_rt_externref_table_t;

typedef struct {
  uint32_t pages, max_pages; /* of NX_WASM_PAGE_BYTES */
  uint64_t size;             /* bytes; bulk operations are checked against it, plain accesses by the page tables */
  uint8_t data[NX_WASM_WINDOW_BYTES + NX_WASM_GUARD_BYTES] __attribute__((aligned(4096)));
} wasm_rt_memory_t;

bool wasm_rt_is_initialized(void);
void wasm_rt_trap(wasm_rt_trap_t code) __attribute__((noreturn, cold));
uint32_t wasm_rt_register_func_type(uint32_t params, uint32_t results, ...);
void wasm_rt_allocate_memory(wasm_rt_memory_t *memory, uint32_t initial_pages, uint32_t max_pages);
uint32_t wasm_rt_grow_memory(wasm_rt_memory_t *memory, uint32_t delta_pages);
void wasm_rt_free_memory(wasm_rt_memory_t *memory);
void wasm_rt_allocate_funcref_table(wasm_rt_funcref_table_t *table, uint32_t elements, uint32_t max_elements);
void wasm_rt_free_funcref_table(wasm_rt_funcref_table_t *table);

#endif
