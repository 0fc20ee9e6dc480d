/* SPDX-License-Identifier: Apache-2.0
 *
 * Which pages of a copy-on-write mapping are private to it: those whose content may differ from the file behind it.
 *
 * PAGEMAP_SCAN (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst) answers for {present or swapped} and not file.
 * A page under migration shows as swapped even without swap, so both categories are asked for.
 * Threads: any; the list belongs to the caller. */
#ifndef NX_IMAGE_DIRTY_H
#define NX_IMAGE_DIRTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct nx_page_list {
  uint32_t *index; /* ascending, in units of NX_PAGE_BYTES from the start of the mapping */
  uint32_t count;
  uint32_t capacity;
};

void nx_page_list_deinit(struct nx_page_list *list);

/* Opens /proc/self/pagemap and tries the ioctl; an error means: use another method. Once per process. */
int nx_dirty_init(struct nx_error *err);
void nx_dirty_deinit(void);

/* Fills `list` with the private pages of [start, start + bytes), walking to the end however many runs there are. */
int nx_dirty_scan(const void *start, size_t bytes, struct nx_page_list *list, struct nx_error *err);

#endif
