/* SPDX-License-Identifier: Apache-2.0
 *
 * One instance: its window of address space, showing an image, entering the guest, and the reset.
 *
 * Reset rule. Pages that may differ from the clean view are the private pages of the window: PAGEMAP_SCAN lists them,
 * and each is copied back from the image. Private pages stay private, so that the next execution does not fault on
 * them again: page faults cost more than copies. A page becomes private only by a fault of the thread that is inside,
 * so when getrusage(RUSAGE_THREAD) shows the same number of faults on the same thread as after the last reset, the
 * list is already known and the scan is skipped. That holds because
 *   - transparent huge pages are off for the process and for each window (khugepaged makes pages private without a
 *     fault of ours);
 *   - the key is (thread serial, minor + major faults), and thread serials are never reused;
 *   - the host writes into the window on the same thread, between the same two readings;
 *   - what another thread than the list's does to the memory ends the list (nx__instance_begin_writing);
 *   - nothing here uses io_uring or process_vm_writev on a window.
 * As a canary every CANARY_INTERVAL-th reset scans anyway and ends the process when the lists differ. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/log.h"
#include "sandbox/guest_mem.h"
#include "sandbox/instance.h"
#include "sandbox/random.h"
#include "sandbox/thread.h"

#define CANARY_INTERVAL 512
/* Private pages kept over a reset; more than this is given back to the kernel (2 MiB). */
#define RESIDENT_KEEP_PAGES 512u
/* An image is shown by copying its pages, which makes them private; so were those that an earlier handler or a compile
 * changed. All would be copied at every reset for ever. So this many resets after an image was first shown the instance
 * settles: private pages are dropped, the image's own pages are mapped from a file, and only what executions really
 * change comes back by faults. Not at once: it costs system calls and faults, and instances may go back and forth
 * between handlers. */
#define SETTLE_AFTER_RESETS 16u
/* Heap growth after which the engine looks for cycles. Collecting touches every object, and with it most pages. */
#define GC_HEADROOM_BYTES (1u << 20)

/* ---- Address space ---------------------------------------------------------------------------------------------- */

nx_wasm *nx__wasm_reserve(struct nx_error *err) {
  void *window = mmap(NULL, sizeof(nx_wasm), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (window == MAP_FAILED) {
    nx_error_sys(err, "cannot reserve %zu bytes of address space for an instance", sizeof(nx_wasm));
    return NULL;
  }
  nx_wasm *wasm = window;
  size_t header_bytes = (size_t)((char *)nx_wasm_memory(wasm)->data - (char *)window);
  char *tail = (char *)nx_wasm_memory(wasm) + sizeof(wasm_rt_memory_t); /* the table's descriptor */
  size_t tail_bytes = sizeof(nx_wasm) - (size_t)(tail - (char *)window);
  madvise(window, sizeof(nx_wasm), MADV_NOHUGEPAGE); /* fails only where huge pages are not built in */
  if (mprotect(window, header_bytes, PROT_READ | PROT_WRITE) ||
      mprotect(tail, tail_bytes, PROT_READ | PROT_WRITE)) {
    nx_error_sys(err, "no memory for the header of an instance");
    munmap(window, sizeof(nx_wasm));
    return NULL;
  }
  return wasm;
}

void nx__wasm_unreserve(nx_wasm *wasm) { munmap(wasm, sizeof *wasm); }

/* Maps the base image over the start of the window: all private pages there are dropped. */
static bool map_base(nx_wasm *wasm) {
  const struct nx_image *base = nx__sandbox.base;
  void *data = nx_wasm_memory(wasm)->data;
  int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
  if (mmap(data, base->memory_bytes, PROT_READ | PROT_WRITE, flags, base->memfd, 0) == MAP_FAILED) return false;
  madvise(data, base->memory_bytes, MADV_NOHUGEPAGE);
  return true;
}

static void set_size(nx_wasm *wasm, uint32_t bytes) {
  nx_wasm_memory(wasm)->size = bytes;
  nx_wasm_memory(wasm)->pages = bytes / NX_WASM_PAGE_BYTES;
}

int nx_instance_create(struct nx_instance **out, struct nx_error *err) {
  struct nx_instance *instance = calloc(1, sizeof *instance);
  if (!instance) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for an instance");
  instance->wasm = nx__wasm_reserve(err);
  if (!instance->wasm) {
    free(instance);
    return -NX_ERR_SYSTEM;
  }
  if (!map_base(instance->wasm)) {
    nx_error_sys(err, "cannot map the base image");
    nx__wasm_unreserve(instance->wasm);
    free(instance);
    return -NX_ERR_SYSTEM;
  }
  instance->image = nx_image_hold(nx__sandbox.base);
  nx_wasm_memory(instance->wasm)->max_pages = NX_WASM_WINDOW_BYTES / NX_WASM_PAGE_BYTES;
  set_size(instance->wasm, instance->image->memory_bytes);
  nx_wasm_stack_pointer(instance->wasm) = instance->image->globals.stack_pointer;
  *nx_wasm_table(instance->wasm) = nx__sandbox.table;
  *out = instance;
  return 0;
}

void nx_instance_destroy(struct nx_instance *instance) {
  if (!instance) return;
  nx__wasm_unreserve(instance->wasm);
  nx_image_release(instance->image);
  nx_page_list_deinit(&instance->pages);
  free(instance);
}

struct nx_image *nx_instance_image(const struct nx_instance *instance) { return instance->image; }

/* ---- Showing an image --------------------------------------------------------------------------------------------- */

static uint8_t *page_at(const struct nx_instance *instance, uint32_t index) {
  return nx_wasm_memory(instance->wasm)->data + (size_t)index * NX_PAGE_BYTES;
}

static _Noreturn void fatal(const char *what) {
  nx_log(NX_LOG_ERROR, "an instance cannot be proven clean", "reason", what, NULL);
  abort();
}

bool nx__instance_fit_size(struct nx_instance *instance, uint32_t bytes) {
  wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  if (memory->size > bytes) {
    size_t excess = memory->size - bytes;
    if (madvise(memory->data + bytes, excess, MADV_DONTNEED) || mprotect(memory->data + bytes, excess, PROT_NONE))
      return false;
  } else if (memory->size < bytes && mprotect(memory->data + memory->size, bytes - memory->size, PROT_READ | PROT_WRITE)) {
    return false;
  }
  set_size(instance->wasm, bytes);
  return true;
}

/* Copies every page of `image` itself, not its parent's. */
static void lay_delta(struct nx_instance *instance, const struct nx_image *image) {
  for (uint32_t i = 0; i < image->page_count; i++)
    memcpy(page_at(instance, image->page_index[i]), image->pages + (size_t)i * NX_PAGE_BYTES, NX_PAGE_BYTES);
}

/* Maps every page of `image` itself, run by run; the base's pages stay as they are. */
static bool map_delta(struct nx_instance *instance, struct nx_image *image) {
  int fd = nx_image_packed_fd(image);
  if (fd < 0) return false;
  for (uint32_t i = 0, run; i < image->page_count; i += run) {
    run = nx_page_run(image->page_index + i, image->page_count - i);
    void *at = page_at(instance, image->page_index[i]);
    size_t bytes = (size_t)run * NX_PAGE_BYTES;
    if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
             (off_t)i * NX_PAGE_BYTES) == MAP_FAILED)
      return false;
    madvise(at, bytes, MADV_NOHUGEPAGE);
  }
  return true;
}

/* Takes the pages of `old` back, so that the base shows everywhere below `end`. */
static bool unlay(struct nx_instance *instance, const struct nx_image *old, uint32_t end) {
  if (instance->settled) return map_base(instance->wasm);
  for (uint32_t i = 0; i < old->page_count && old->page_index[i] < end; i++)
    memcpy(page_at(instance, old->page_index[i]), nx_image_page(nx__sandbox.base, old->page_index[i]), NX_PAGE_BYTES);
  return true;
}

int nx_instance_show(struct nx_instance *instance, struct nx_image *image, struct nx_error *err) {
  struct nx_image *old = instance->image;
  if (old == image) return 0;
  if (!nx__instance_fit_size(instance, image->memory_bytes))
    return nx_error_sys(err, "cannot size an instance for its image");
  if (!unlay(instance, old, image->memory_bytes / NX_PAGE_BYTES)) fatal("cannot map the base image");
  instance->settled = false;
  lay_delta(instance, image);
  nx_wasm_stack_pointer(instance->wasm) = image->globals.stack_pointer;
  instance->image = nx_image_hold(image);
  nx_image_release(old);
  instance->list_valid = false;
  instance->resets = 0;
  return 0;
}

/* ---- Reset -------------------------------------------------------------------------------------------------------- */

static long thread_faults(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

static void scan(struct nx_instance *instance) {
  struct nx_error err;
  if (nx_dirty_scan(nx_wasm_memory(instance->wasm)->data, nx_wasm_memory(instance->wasm)->size, &instance->pages, &err))
    fatal(err.text);
}

static void check_canary(struct nx_instance *instance) {
  struct nx_page_list known = instance->pages;
  instance->pages = (struct nx_page_list){0};
  scan(instance);
  if (known.count != instance->pages.count ||
      (known.count && memcmp(known.index, instance->pages.index, known.count * sizeof *known.index)))
    fatal("a page became private without a fault");
  nx_page_list_deinit(&known);
}

void nx__instance_begin_writing(struct nx_instance *instance) {
  const struct nx_guest_thread *self = nx__thread_self();
  if (!self || instance->list_thread != self->serial) instance->list_valid = false;
}

void nx__instance_find_private_pages(struct nx_instance *instance) {
  if (nx__sandbox.method == NX_RESET_SCAN) {
    scan(instance);
    instance->list_valid = true; /* of no thread: only for nx_instance_resident_bytes */
    instance->list_thread = 0;
    return;
  }
  const struct nx_guest_thread *self = nx__thread_self();
  long faults = thread_faults();
  uint64_t serial = self ? self->serial : 0;
  bool known = instance->list_valid && serial && instance->list_thread == serial && instance->list_faults == faults;
  if (!known)
    scan(instance);
  else if (instance->resets % CANARY_INTERVAL == 0)
    check_canary(instance);
  instance->list_valid = serial != 0;
  instance->list_thread = serial;
  /* Read before the scan: a fault while scanning or copying makes the next reset scan, which is the safe side. */
  instance->list_faults = faults;
}

/* Both lists ascend, so one walk finds each page's clean content. */
static void restore_pages(struct nx_instance *instance) {
  const struct nx_image *image = instance->image;
  uint32_t end = image->memory_bytes / NX_PAGE_BYTES;
  uint32_t own = 0;
  for (uint32_t i = 0; i < instance->pages.count; i++) {
    uint32_t index = instance->pages.index[i];
    if (index >= end) break; /* growth, dropped by the caller */
    while (own < image->page_count && image->page_index[own] < index) own++;
    const uint8_t *clean = own < image->page_count && image->page_index[own] == index
                             ? image->pages + (size_t)own * NX_PAGE_BYTES
                             : nx_image_page(nx__sandbox.base, index);
    memcpy(page_at(instance, index), clean, NX_PAGE_BYTES);
  }
}

/* The private pages within the image's size; what the list holds beyond was growth. */
static void forget_growth(struct nx_instance *instance) {
  uint32_t end = instance->image->memory_bytes / NX_PAGE_BYTES;
  while (instance->pages.count && instance->pages.index[instance->pages.count - 1] >= end) instance->pages.count--;
}

/* Drops every private page and lays the image anew. A part of the image beyond the base, if it was mapped, is dropped with
 * the rest of what lies there. */
static void remap(struct nx_instance *instance) {
  wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  uint32_t base_bytes = nx__sandbox.base->memory_bytes;
  if (!map_base(instance->wasm)) fatal("cannot map the base image");
  if (memory->size > base_bytes && madvise(memory->data + base_bytes, memory->size - base_bytes, MADV_DONTNEED))
    fatal("cannot drop pages");
  if (!nx__instance_fit_size(instance, instance->image->memory_bytes)) fatal("cannot take growth back");
  lay_delta(instance, instance->image);
  instance->settled = false;
  instance->list_valid = false;
}

/* Images that reach beyond the base stay copied: the memory there is anonymous, and growth and its undoing rely on it. */
static void settle(struct nx_instance *instance) {
  remap(instance);
  struct nx_image *image = instance->image;
  if (image->memory_bytes > nx__sandbox.base->memory_bytes) return;
  if (map_delta(instance, image))
    instance->settled = true;
  else
    remap(instance);
}

/* The clean view of a settled instance is all in its mappings. */
static void drop_private_pages(struct nx_instance *instance) {
  wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  if (!instance->settled)
    remap(instance);
  else if (madvise(memory->data, memory->size, MADV_DONTNEED))
    fatal("cannot drop pages");
  instance->list_valid = false;
}

size_t nx_instance_reset(struct nx_instance *instance) {
  size_t grown = nx_wasm_memory(instance->wasm)->size - instance->image->memory_bytes;
  nx_wasm_stack_pointer(instance->wasm) = instance->image->globals.stack_pointer;
  if (nx__sandbox.method == NX_RESET_REMAP) {
    remap(instance);
    return grown;
  }
  nx__instance_find_private_pages(instance);
  instance->dirty_pages = instance->pages.count;
  if (grown && !nx__instance_fit_size(instance, instance->image->memory_bytes)) fatal("cannot take growth back");
  forget_growth(instance);
  if (++instance->resets == SETTLE_AFTER_RESETS)
    settle(instance);
  else if (instance->pages.count > RESIDENT_KEEP_PAGES + instance->image->page_count)
    drop_private_pages(instance);
  else
    restore_pages(instance);
  return grown;
}

size_t nx_instance_trim(struct nx_instance *instance) {
  size_t held = nx_instance_resident_bytes(instance);
  struct nx_image *image = instance->image;
  instance->image = nx_image_hold(nx__sandbox.base);
  nx_image_release(image);
  nx_wasm_stack_pointer(instance->wasm) = nx__sandbox.base->globals.stack_pointer;
  instance->resets = 0;
  remap(instance);
  return held;
}

uint32_t nx_instance_dirty_pages(const struct nx_instance *instance) { return instance->dirty_pages; }

size_t nx_instance_resident_bytes(const struct nx_instance *instance) {
  uint32_t laid = instance->settled ? 0 : instance->image->page_count;
  uint32_t pages = instance->list_valid ? instance->pages.count : laid;
  return (size_t)pages * NX_PAGE_BYTES;
}

uint32_t nx_instance_verify(const struct nx_instance *instance) {
  const struct nx_image *image = instance->image;
  if (nx_wasm_memory(instance->wasm)->size != image->memory_bytes) return UINT32_MAX;
  for (uint32_t i = 0; i < image->memory_bytes / NX_PAGE_BYTES; i++)
    if (memcmp(page_at(instance, i), nx_image_page(image, i), NX_PAGE_BYTES)) return i + 1;
  return 0;
}

/* ---- Entering the guest ---------------------------------------------------------------------------------------------- */

struct entry {
  nx_wasm *wasm;
  uint32_t input_bytes; /* what nx_reserve is asked for */
  const struct nx_text *texts;
  uint32_t text_count;
  struct nx_abi_call *area;
};

/* The texts one after the other, each with a NUL behind it. False when the guest gave an address outside its memory. */
static bool write_texts(const struct entry *entry, uint32_t at) {
  uint8_t *out = nx_guest_mem(nx_wasm_memory(entry->wasm), at, entry->input_bytes);
  if (!out) return false;
  for (uint32_t i = 0; i < entry->text_count; i++) {
    if (!entry->texts[i].data) continue;
    memcpy(out, entry->texts[i].data, entry->texts[i].bytes);
    out += entry->texts[i].bytes;
    *out++ = 0;
  }
  return true;
}

/* Runs as guest code (nx_reserve is the guest's), so a hostile answer only ends this call. */
static bool place_input(struct entry *entry) {
  uint32_t at = nx__sandbox.inline_input;
  if (entry->input_bytes > nx__sandbox.inline_input_bytes) at = nx_wasm_reserve(entry->wasm, entry->input_bytes);
  if (!at || !write_texts(entry, at)) return false;
  entry->area->input = at;
  return true;
}

static int32_t compile_entry(void *argument) {
  struct entry *entry = argument;
  if (!place_input(entry)) return NX_STATUS_NO_MEMORY;
  return (int32_t)nx_wasm_compile(entry->wasm, entry->texts[0].bytes);
}

static int32_t invoke_entry(void *argument) {
  struct entry *entry = argument;
  if (!place_input(entry)) return NX_STATUS_NO_MEMORY;
  return (int32_t)nx_wasm_invoke(entry->wasm);
}

static int32_t resume_entry(void *argument) {
  struct entry *entry = argument;
  if (!place_input(entry)) return NX_STATUS_NO_MEMORY;
  return (int32_t)nx_wasm_resume(entry->wasm);
}

static uint32_t length_or_absent(struct nx_text text) { return text.data ? text.bytes : NX_ABI_ABSENT; }

/* The guest's own stack lies at the bottom of linear memory, so that running out of it wraps around and traps. */
static bool guest_stack_is_exhausted(const struct nx_instance *instance) {
  uint32_t at = nx_wasm_stack_pointer(instance->wasm);
  return at < NX_PAGE_BYTES || at > instance->image->globals.stack_pointer;
}

static struct nx_guest_result enter(struct nx_instance *instance, const struct nx_guest_call *call,
                                    const struct nx_text *texts, uint32_t text_count,
                                    int32_t (*body)(void *argument)) {
  nx__instance_begin_writing(instance);
  struct entry entry = {.wasm = instance->wasm, .texts = texts, .text_count = text_count};
  uint64_t input_bytes = 0;
  for (uint32_t i = 0; i < text_count; i++)
    if (texts[i].data) input_bytes += (uint64_t)texts[i].bytes + 1;
  if (input_bytes > call->memory_limit_bytes) /* cannot fit: what the refused grant would say */
    return (struct nx_guest_result){.end = NX_GUEST_RETURNED, .status = NX_STATUS_NO_MEMORY, .memory_refused = true};
  entry.input_bytes = (uint32_t)input_bytes;
  wasm_rt_memory_t *memory = nx_wasm_memory(instance->wasm);
  entry.area = nx__instance_call_area(instance);
  if (!call->frozen) nx_random_bytes(entry.area->random_seed, sizeof entry.area->random_seed);
  entry.area->stack_limit_bytes = call->stack_limit_bytes;
  entry.area->gc_headroom_bytes = GC_HEADROOM_BYTES;
  struct nx_guest_result result = nx__thread_run(nx__thread_self(), memory, call, body, &entry);
  result.memory_peak_bytes = (uint32_t)memory->size;
  result.heap_bytes = entry.area->heap_bytes < memory->size ? entry.area->heap_bytes : (uint32_t)memory->size;
  if (result.end == NX_GUEST_TRAPPED && guest_stack_is_exhausted(instance)) result.end = NX_GUEST_STACK;
  return result;
}

struct nx_guest_result nx_instance_compile(struct nx_instance *instance, const struct nx_guest_call *call,
                                           struct nx_text source) {
  return enter(instance, call, &source, 1, compile_entry);
}

struct nx_guest_result nx_instance_invoke(struct nx_instance *instance, const struct nx_guest_call *call,
                                          struct nx_text args, struct nx_text state, struct nx_text scope) {
  struct nx_abi_call *area = nx__instance_call_area(instance);
  area->args_bytes = length_or_absent(args);
  area->state_bytes = length_or_absent(state);
  area->scope_bytes = length_or_absent(scope);
  const struct nx_text texts[] = {args, state, scope};
  return enter(instance, call, texts, 3, invoke_entry);
}

struct nx_guest_result nx_instance_resume(struct nx_instance *instance, const struct nx_guest_call *call,
                                          struct nx_text answers) {
  nx__instance_call_area(instance)->args_bytes = answers.bytes;
  return enter(instance, call, &answers, 1, resume_entry);
}
