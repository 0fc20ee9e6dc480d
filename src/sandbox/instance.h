/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to src/sandbox: what sandbox.c (base image, life of the process), instance.c, capture.c and wasm_rt.c share. */
#ifndef NX_SANDBOX_INSTANCE_H
#define NX_SANDBOX_INSTANCE_H

#include "image/dirty.h"
#include "image/image.h"
#include "sandbox/guest_binding.h"
#include "sandbox/sandbox.h"

/* Set once by nx_sandbox_init, then constant. */
struct nx_sandbox {
  enum nx_reset_method method;
  bool boots;                    /* the template; else it is there for the table only, and has no memory */
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

struct nx_instance {
  nx_wasm *wasm;
  struct nx_image *image;
  struct nx_page_list pages; /* private pages, valid while list_valid */
  bool list_valid;
  bool settled;              /* the image's own pages are mapped, not copied */
  uint64_t list_thread;      /* serial of the thread that made the list … */
  long list_faults;          /* … and its fault count then */
  uint32_t resets;           /* since the image is shown */
  uint32_t dirty_pages;
};

static inline struct nx_abi_call *nx__instance_call_area(const struct nx_instance *instance) {
  return (struct nx_abi_call *)(nx_wasm_memory(instance->wasm)->data + nx__sandbox.call_area);
}
/* Changes the accessible size. Pages past it are dropped and made inaccessible again. */
bool nx__instance_fit_size(struct nx_instance *instance, uint32_t bytes);
/* Before this thread, or the guest on it, changes the memory of an instance that another thread may have reset: the faults
 * will not show in that one's counter. */
void nx__instance_begin_writing(struct nx_instance *instance);
/* Makes instance->pages the private pages, by the cheapest proof there is. Not with NX_RESET_REMAP. */
void nx__instance_find_private_pages(struct nx_instance *instance);

#endif
