/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is given back all at once.
 * Ownership: a zeroed arena is empty; what it gives belongs to it until nx_arena_deinit.
 * Threads:   one at a time.
 * Errors:    NULL when memory is short.
 * Limits:    none of its own: who fills it counts. */
#ifndef NX_BASE_ARENA_H
#define NX_BASE_ARENA_H

#include <stddef.h>

struct nx_arena {
  struct nx_arena_block *_blocks;
  size_t _left; /* at the end of the newest block */
};

/* Zeroed, aligned for anything. */
void *nx_arena_alloc(struct nx_arena *arena, size_t bytes);
/* With a NUL behind. */
char *nx_arena_copy(struct nx_arena *arena, const char *text, size_t bytes);
void nx_arena_deinit(struct nx_arena *arena);

#endif
