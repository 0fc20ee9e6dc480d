/* SPDX-License-Identifier: Apache-2.0 */
#include "image/dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image.h"

/* From include/uapi/linux/fs.h; Debian 12's headers are older than the call. */
struct scan_region {
  uint64_t start, end, categories;
};
struct scan_argument {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_argument)
#define SCAN_IS_FILE (UINT64_C(1) << 2)
#define SCAN_IS_PRESENT (UINT64_C(1) << 3)
#define SCAN_IS_SWAPPED (UINT64_C(1) << 4)

/* Runs fetched per call; a fragmented window only takes more calls. */
#define RUNS 64

static int pagemap_fd = -1; /* written by nx_dirty_init before threads start */

void nx_page_list_deinit(struct nx_page_list *list) {
  free(list->index);
  *list = (struct nx_page_list){0};
}

static bool append_run(struct nx_page_list *list, uint32_t first, uint32_t count) {
  if (list->count + count > list->capacity) {
    uint32_t capacity = list->capacity ? list->capacity : 64;
    while (capacity < list->count + count) capacity *= 2;
    uint32_t *index = realloc(list->index, capacity * sizeof *index);
    if (!index) return false;
    list->index = index;
    list->capacity = capacity;
  }
  for (uint32_t i = 0; i < count; i++) list->index[list->count++] = first + i;
  return true;
}

int nx_dirty_scan(const void *start, size_t bytes, struct nx_page_list *list, struct nx_error *err) {
  struct scan_region runs[RUNS];
  uint64_t base = (uint64_t)(uintptr_t)start;
  struct scan_argument argument = {
    .size = sizeof argument,
    .start = base,
    .end = base + bytes,
    .vec = (uint64_t)(uintptr_t)runs,
    .vec_len = RUNS,
    .category_inverted = SCAN_IS_FILE,
    .category_mask = SCAN_IS_FILE,
    .category_anyof_mask = SCAN_IS_PRESENT | SCAN_IS_SWAPPED,
    .return_mask = SCAN_IS_PRESENT,
  };
  list->count = 0;
  while (argument.start < argument.end) {
    int found = ioctl(pagemap_fd, SCAN_IOCTL, &argument);
    if (found < 0 && errno == EINTR) continue;
    if (found < 0) return nx_error_sys(err, "PAGEMAP_SCAN failed");
    for (int i = 0; i < found; i++) {
      uint32_t first = (uint32_t)((runs[i].start - base) / NX_PAGE_BYTES);
      uint32_t count = (uint32_t)((runs[i].end - runs[i].start) / NX_PAGE_BYTES);
      if (!append_run(list, first, count)) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a page list");
    }
    argument.start = argument.walk_end;
  }
  return 0;
}

int nx_dirty_init(struct nx_error *err) {
  pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap_fd < 0) return nx_error_sys(err, "cannot open /proc/self/pagemap");
  struct nx_page_list list = {0};
  uint8_t page[1];
  int status = nx_dirty_scan((void *)((uintptr_t)page & ~(uintptr_t)(NX_PAGE_BYTES - 1)), NX_PAGE_BYTES, &list, err);
  if (!status && list.count != 1) status = nx_error_set(err, NX_ERR_SYSTEM, "PAGEMAP_SCAN does not see a private page");
  nx_page_list_deinit(&list);
  if (status) nx_dirty_deinit();
  return status;
}

void nx_dirty_deinit(void) {
  if (pagemap_fd >= 0) close(pagemap_fd);
  pagemap_fd = -1;
}
