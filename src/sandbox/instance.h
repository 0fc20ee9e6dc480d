/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to src/sandbox: what sandbox.c (base image, life of the process) and instance.c share. */
#ifndef NX_SANDBOX_INSTANCE_H
#define NX_SANDBOX_INSTANCE_H

#include "image/image.h"
#include "sandbox/guest_binding.h"
#include "sandbox/sandbox.h"

/* Set once by nx_sandbox_init, then constant. */
struct nx_sandbox {
  enum nx_reset_method method;
  struct nx_image *base;
  wasm_rt_funcref_table_t table; /* read-only, shared by all instances */
  uint32_t call_area;            /* guest address of struct nx_abi_call */
  uint32_t inline_input;         /* guest address and size of the input buffer that needs no allocation */
  uint32_t inline_input_bytes;
  char guest_id[2 * NX_HASH_BYTES + 1];
};
extern struct nx_sandbox nx__sandbox;

/* Address space for one instance, inaccessible but for the header; NULL when there is none. */
nx_wasm *nx__wasm_reserve(struct nx_error *err);
void nx__wasm_unreserve(nx_wasm *wasm);

#endif
