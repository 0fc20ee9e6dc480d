/* SPDX-License-Identifier: Apache-2.0
 *
 * Start-up: a template instance is instantiated for its function table. The base image that all instances share comes
 * from the boot image that the build linked in, or from booting the template. */
#include "sandbox/sandbox.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <sodium.h>

#include "guest_build.h"
#include "image/dirty.h"
#include "sandbox/instance.h"
#include "sandbox/thread.h"

struct nx_sandbox nx__sandbox;

/* Executions get all of the guest's stack but this: what the engine needs between its check and the next one. */
#define GUEST_STACK_SLACK_BYTES (128u * 1024u)
/* Booting is our own code on a fresh engine: far below both. */
#define BOOT_MEMORY_BYTES (8u << 20)

struct nx_image *nx_sandbox_base_image(void) { return nx__sandbox.base; }
enum nx_reset_method nx_sandbox_reset_method(void) { return nx__sandbox.method; }
const char *nx_sandbox_guest_id(void) { return nx__sandbox.guest_id; }

const char *nx_reset_method_name(enum nx_reset_method method) {
  static const char *const names[] = {
    [NX_RESET_AUTO] = "auto",
    [NX_RESET_SCAN_FAULTS] = "scan+faults",
    [NX_RESET_SCAN] = "scan",
    [NX_RESET_REMAP] = "remap",
  };
  return names[method];
}

uint32_t nx_sandbox_usable_stack_bytes(uint32_t stack_size_bytes) {
  const uint32_t most = NX_GUEST_STACK_BYTES - GUEST_STACK_SLACK_BYTES;
  return stack_size_bytes < most ? stack_size_bytes : most;
}

/* Frames of the engine's interpreter take up to twice as much natively as in the guest's own stack. Native recursion
 * that uses more (JSON.stringify of deep structures, proxies of proxies) ends at the guard page. */
size_t nx_sandbox_native_stack_bytes(size_t guest_stack_bytes) {
  return 2 * guest_stack_bytes + NX_HOST_STACK_BYTES;
}

/* ---- Boot ----------------------------------------------------------------------------------------------------------- */

struct boot {
  nx_wasm *wasm;
  uint32_t area;
};

static int32_t boot_guest(void *argument) {
  struct boot *boot = argument;
  nx_wasm_initialize(boot->wasm);
  boot->area = nx_wasm_boot(boot->wasm);
  return boot->area ? NX_STATUS_DONE : NX_STATUS_NO_MEMORY;
}

static int32_t boot_host_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b,
                              uint32_t b_bytes) {
  (void)opaque, (void)op, (void)a, (void)a_bytes, (void)b, (void)b_bytes;
  return NX_REPLY_UNAVAILABLE;
}
static bool boot_grant(void *opaque, size_t bytes) {
  (void)opaque, (void)bytes;
  return true;
}

static int run_boot(nx_wasm *wasm, struct nx_error *err) {
  const struct nx_guest_call call = {
    .memory_limit_bytes = BOOT_MEMORY_BYTES,
    .frozen = true,
    .host_call = boot_host_call,
    .grant = boot_grant,
  };
  struct boot boot = {.wasm = wasm};
  struct nx_guest_result result = nx__thread_run(nx__thread_self(), nx_wasm_memory(wasm), &call, boot_guest, &boot);
  if (result.end != NX_GUEST_RETURNED || result.status != NX_STATUS_DONE)
    return nx_error_set(err, NX_ERR_INTERNAL, "the guest does not boot (%s)", result.trap ? result.trap : "no memory");
  struct nx_abi_call area;
  memcpy(&area, nx_wasm_memory(wasm)->data + boot.area, sizeof area);
  nx__sandbox.call_area = boot.area;
  nx__sandbox.inline_input = area.inline_input;
  nx__sandbox.inline_input_bytes = area.inline_input_bytes;
  return 0;
}

static int protect_table(const nx_wasm *wasm, struct nx_error *err) {
  nx__sandbox.table = *nx_wasm_table(wasm);
  if (mprotect(nx__sandbox.table.data, nx__sandbox.table.size * sizeof *nx__sandbox.table.data, PROT_READ))
    return nx_error_sys(err, "cannot protect the function table");
  return 0;
}

static int boot_now(nx_wasm *wasm, struct nx_error *err) {
  int status = nx_sandbox_thread_enter(err);
  if (status) return status;
  status = run_boot(wasm, err);
  nx_sandbox_thread_leave();
  if (status) return status;
  wasm_rt_memory_t *memory = nx_wasm_memory(wasm);
  struct nx_guest_globals globals = {.stack_pointer = nx_wasm_stack_pointer(wasm)};
  memset(memory->data, 0, globals.stack_pointer); /* frames of the boot: dead, and nothing an image should carry */
  return nx_image_create_base(&nx__sandbox.base, memory->data, (uint32_t)memory->size, globals, err);
}

/* ---- The boot image as bytes: a header, the indices of the pages that are not zero, the pages ----------------------- */

struct boot_header {
  uint32_t call_area, inline_input, inline_input_bytes;
  uint32_t memory_bytes, page_count;
  struct nx_guest_globals globals;
  uint8_t hash[NX_HASH_BYTES];
};

static bool is_zero(const uint8_t *page) {
  static const uint8_t zeroes[NX_PAGE_BYTES];
  return !memcmp(page, zeroes, NX_PAGE_BYTES);
}

void nx_sandbox_write_boot_image(struct nx_buf *out) {
  const struct nx_image *base = nx__sandbox.base;
  struct boot_header header = {
    .call_area = nx__sandbox.call_area,
    .inline_input = nx__sandbox.inline_input,
    .inline_input_bytes = nx__sandbox.inline_input_bytes,
    .memory_bytes = base->memory_bytes,
    .globals = base->globals,
  };
  uint32_t pages = base->memory_bytes / NX_PAGE_BYTES;
  memcpy(header.hash, base->hash, NX_HASH_BYTES);
  for (uint32_t i = 0; i < pages; i++) header.page_count += !is_zero(nx_image_page(base, i));
  nx_buf_add(out, &header, sizeof header);
  for (uint32_t i = 0; i < pages; i++)
    if (!is_zero(nx_image_page(base, i))) nx_buf_add(out, &i, sizeof i);
  for (uint32_t i = 0; i < pages; i++)
    if (!is_zero(nx_image_page(base, i))) nx_buf_add(out, nx_image_page(base, i), NX_PAGE_BYTES);
}

/* Our own build's bytes: trusted like the code beside them, and aligned for the header. */
static int unpack_boot_image(const struct nx_boot_image *boot, struct nx_error *err) {
  const struct boot_header *header = (const struct boot_header *)boot->bytes;
  const uint32_t *index = (const uint32_t *)(header + 1);
  nx__sandbox.call_area = header->call_area;
  nx__sandbox.inline_input = header->inline_input;
  nx__sandbox.inline_input_bytes = header->inline_input_bytes;
  const struct nx_base_pages pages = {
    .index = index,
    .pages = (const uint8_t *)(index + header->page_count),
    .count = header->page_count,
    .memory_bytes = header->memory_bytes,
    .globals = header->globals,
    .hash = header->hash,
  };
  return nx_image_create_base_from_pages(&nx__sandbox.base, &pages, err);
}

static void make_guest_id(void) {
  static const char architecture[] = "x86_64";
  uint8_t hash[NX_HASH_BYTES];
  crypto_generichash_state state;
  crypto_generichash_init(&state, NULL, 0, sizeof hash);
  crypto_generichash_update(&state, (const uint8_t *)NX_GUEST_WASM_SHA256, sizeof NX_GUEST_WASM_SHA256);
  crypto_generichash_update(&state, (const uint8_t *)architecture, sizeof architecture);
  crypto_generichash_update(&state, nx__sandbox.base->hash, NX_HASH_BYTES);
  crypto_generichash_final(&state, hash, sizeof hash);
  sodium_bin2hex(nx__sandbox.guest_id, sizeof nx__sandbox.guest_id, hash, sizeof hash);
}

/* ---- Reset method ----------------------------------------------------------------------------------------------------- */

/* The fault counter proves something only while nothing makes pages private without a fault: khugepaged does. */
static bool disable_huge_pages(void) { return prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0; }

static int choose_method(enum nx_reset_method wanted, struct nx_error *err) {
  bool no_huge_pages = disable_huge_pages();
  nx__sandbox.method = wanted;
  if (wanted == NX_RESET_REMAP) return 0;
  struct nx_error why;
  if (nx_dirty_init(&why)) {
    if (wanted != NX_RESET_AUTO) {
      if (err) *err = why;
      return -(int)why.code;
    }
    nx__sandbox.method = NX_RESET_REMAP;
    return 0;
  }
  if (wanted == NX_RESET_AUTO) nx__sandbox.method = NX_RESET_SCAN_FAULTS;
  if (nx__sandbox.method == NX_RESET_SCAN_FAULTS && !no_huge_pages) {
    if (wanted != NX_RESET_AUTO) return nx_error_sys(err, "cannot disable transparent huge pages");
    nx__sandbox.method = NX_RESET_SCAN;
  }
  return 0;
}

int nx_sandbox_init(enum nx_reset_method method, const struct nx_boot_image *boot, struct nx_error *err) {
  if (sodium_init() < 0) return nx_error_set(err, NX_ERR_INTERNAL, "libsodium does not start");
  int status = choose_method(method, err);
  if (!status) status = nx__thread_init_signals(err);
  if (status) return status;
  nx_wasm *wasm = nx__wasm_reserve(err);
  if (!wasm) return -NX_ERR_SYSTEM;
  nx__sandbox.boots = !boot;
  nx_wasm_init_module();
  nx_wasm_instantiate(wasm);
  status = boot ? unpack_boot_image(boot, err) : boot_now(wasm, err);
  if (!status) status = protect_table(wasm, err);
  if (!status) make_guest_id();
  nx__wasm_unreserve(wasm);
  return status;
}

void nx_sandbox_deinit(void) {
  nx_image_release(nx__sandbox.base);
  nx_dirty_deinit();
  if (nx__sandbox.table.data) wasm_rt_free_funcref_table(&nx__sandbox.table);
  nx__sandbox = (struct nx_sandbox){0};
}
