/* SPDX-License-Identifier: Apache-2.0
 *
 * The names of wasm2c's generated code, and nothing else. They differ between wabt versions (1.0.32: Z_guestZ_nx_boot;
 * later: w2c_guest_nx_boot), so they stand in this file only. Included by wasm_rt.c, instance.c and imports.c. */
#ifndef NX_SANDBOX_GUEST_BINDING_H
#define NX_SANDBOX_GUEST_BINDING_H

#include "sandbox/wasm-rt.h" /* first: guest.h must not find wabt's header of the same name */

#include "guest.h"

typedef Z_guest_instance_t nx_wasm;

#define nx_wasm_init_module Z_guest_init_module
#define nx_wasm_instantiate(wasm) Z_guest_instantiate((wasm), NULL)

/* Fields of the instance struct. Memory and table are its large members; the rest are globals and imports. */
#define nx_wasm_memory(wasm) (&(wasm)->w2c_memory)
#define nx_wasm_table(wasm) (&(wasm)->w2c_T0)
#define nx_wasm_stack_pointer(wasm) ((wasm)->w2c___stack_pointer)

#define nx_wasm_initialize Z_guestZ__initialize
#define nx_wasm_boot Z_guestZ_nx_boot
#define nx_wasm_reserve Z_guestZ_nx_reserve
#define nx_wasm_compile Z_guestZ_nx_compile
#define nx_wasm_invoke Z_guestZ_nx_invoke
#define nx_wasm_resume Z_guestZ_nx_resume

/* Imports, defined in imports.c. The first parameter would be the importing module's state; ours is the thread's. */
#define NX_WASM_IMPORT_CALL(op, a, a_bytes, b, b_bytes) \
  u32 Z_nexusZ_call(struct Z_nexus_instance_t *unused, u32 op, u32 a, u32 a_bytes, u32 b, u32 b_bytes)
#define NX_WASM_IMPORT_CLOCK(which) u64 Z_nexusZ_clock(struct Z_nexus_instance_t *unused, u32 which)
#define NX_WASM_IMPORT_RANDOM(out, bytes) void Z_nexusZ_random(struct Z_nexus_instance_t *unused, u32 out, u32 bytes)

#endif
