/* SPDX-License-Identifier: Apache-2.0
 *
 * What is kept of an instance's memory: a handler's image after its top level ran, a patch over that image while an
 * execution waits. */
#include <stdlib.h>
#include <string.h>

#include "image/patch.h"
#include "sandbox/instance.h"

/* All globals of the guest are then what they are in every image (struct nx_guest_globals). */
static bool stack_is_at_rest(const struct nx_instance *instance) {
  return nx_wasm_stack_pointer(instance->wasm) == nx__sandbox.base->globals.stack_pointer;
}

/* Without a scan every page is a candidate; the comparison finds those that differ. */
static int all_pages(struct nx_page_list *list, uint32_t count, struct nx_error *err) {
  list->index = malloc(count * sizeof *list->index);
  if (!list->index) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a page list");
  for (list->count = 0; list->count < count; list->count++) list->index[list->count] = list->count;
  return 0;
}

static int find_candidates(struct nx_instance *instance, struct nx_page_list *list, struct nx_error *err) {
  const wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  if (nx__sandbox.method == NX_RESET_REMAP) return all_pages(list, (uint32_t)(memory->size / NX_PAGE_BYTES), err);
  return nx_dirty_scan(memory->data, memory->size, list, err);
}

/* Frames below the stack pointer are dead; images do not carry them. */
static void clear_dead_stack(uint8_t *memory, const struct nx_page_list *pages, uint32_t stack_pointer) {
  for (uint32_t i = 0; i < pages->count && pages->index[i] < stack_pointer / NX_PAGE_BYTES; i++)
    memset(memory + (size_t)pages->index[i] * NX_PAGE_BYTES, 0, NX_PAGE_BYTES);
}

/* The host fills it at each entry, except for what the guest counts there. */
static void clear_call_area(struct nx_instance *instance) {
  struct nx_abi_call *area = nx__instance_call_area(instance);
  uint32_t heap_bytes = area->heap_bytes;
  memcpy(area, nx__sandbox.base->base + nx__sandbox.call_area, sizeof *area);
  area->heap_bytes = heap_bytes;
}

int nx_instance_capture(struct nx_instance *instance, struct nx_account *account, struct nx_image **out,
                        struct nx_error *err) {
  wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  struct nx_guest_globals globals = {.stack_pointer = nx_wasm_stack_pointer(instance->wasm)};
  if (!stack_is_at_rest(instance)) return nx_error_set(err, NX_ERR_INVALID, "the guest's stack is not at rest");
  clear_call_area(instance);
  struct nx_page_list candidates = {0};
  int status = find_candidates(instance, &candidates, err);
  if (!status) {
    clear_dead_stack(memory->data, &candidates, globals.stack_pointer);
    status = nx_image_create_delta(out, nx__sandbox.base, account, memory->data, (uint32_t)memory->size,
                                   candidates.index, candidates.count, globals, err);
  }
  nx_page_list_deinit(&candidates);
  if (!status && (*out)->page_count > NX_IMAGE_MAX_BYTES / NX_PAGE_BYTES) {
    nx_image_release(*out);
    *out = NULL;
    status = nx_error_set(err, NX_ERR_TOO_LARGE, "the top level leaves more than %u MiB of memory behind",
                          NX_IMAGE_MAX_BYTES >> 20);
  }
  return status;
}

/* ---- Suspend and restore ------------------------------------------------------------------------------------------------ */

static int encode(struct nx_instance *instance, const struct nx_page_list *pages, struct nx_buf *out,
                  struct nx_error *err) {
  const wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  uint32_t dead = 0; /* pages of the stack, whose frames nobody will read: of zeroes in the image */
  while (dead < pages->count && pages->index[dead] < nx_wasm_stack_pointer(instance->wasm) / NX_PAGE_BYTES) dead++;
  return nx_patch_encode(out, instance->image, memory->data, (uint32_t)memory->size, pages->index + dead,
                         pages->count - dead, err);
}

int nx_instance_suspend(struct nx_instance *instance, struct nx_buf *out, struct nx_error *err) {
  if (!stack_is_at_rest(instance)) return nx_error_set(err, NX_ERR_INVALID, "the guest's stack is not at rest");
  clear_call_area(instance);
  if (nx__sandbox.method != NX_RESET_REMAP) {
    nx__instance_find_private_pages(instance); /* the reset that follows need not look again */
    return encode(instance, &instance->pages, out, err);
  }
  struct nx_page_list pages = {0};
  int status = all_pages(&pages, (uint32_t)(nx_wasm_memory(instance->wasm)->size / NX_PAGE_BYTES), err);
  if (!status) status = encode(instance, &pages, out, err);
  nx_page_list_deinit(&pages);
  return status;
}

static int grow(struct nx_instance *instance, uint32_t memory_bytes, bool (*grant)(void *budget, size_t bytes),
                void *budget, struct nx_error *err) {
  uint32_t image_bytes = instance->image->memory_bytes;
  if (memory_bytes == image_bytes) return 0;
  if (!nx__instance_fit_size(instance, memory_bytes))
    return nx_error_sys(err, "cannot size an instance for a suspended execution");
  if (grant(budget, memory_bytes - image_bytes)) return 0;
  /* Untouched so far. What was not granted must not be what the reset reports. */
  if (!nx__instance_fit_size(instance, image_bytes)) return nx_error_sys(err, "cannot take growth back");
  return nx_error_set(err, NX_ERR_OVERLOADED, "the memory budget has no room for the %u MiB of a suspended execution",
                      memory_bytes >> 20);
}

int nx_instance_restore(struct nx_instance *instance, const uint8_t *patch, size_t bytes,
                        bool (*grant)(void *budget, size_t bytes), void *budget, struct nx_error *err) {
  uint32_t memory_bytes;
  int status = nx_patch_memory_bytes(patch, bytes, instance->image, &memory_bytes, err);
  if (!status) status = grow(instance, memory_bytes, grant, budget, err);
  nx__instance_begin_writing(instance);
  return status ? status : nx_patch_apply(patch, bytes, nx_wasm_memory(instance->wasm)->data, memory_bytes, err);
}
