/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 << 10)
#define ALIGNMENT alignof(max_align_t)

struct nx_arena_block {
  struct nx_arena_block *next;
  size_t bytes;
  alignas(max_align_t) unsigned char data[];
};

void *nx_arena_alloc(struct nx_arena *arena, size_t bytes) {
  if (bytes > PTRDIFF_MAX / 2) return NULL;
  bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (bytes > arena->_left) {
    size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
    struct nx_arena_block *block = calloc(1, sizeof *block + room);
    if (!block) return NULL;
    block->next = arena->_blocks;
    block->bytes = room;
    arena->_blocks = block;
    arena->_left = room;
  }
  void *memory = arena->_blocks->data + arena->_blocks->bytes - arena->_left;
  arena->_left -= bytes;
  return memory;
}

char *nx_arena_copy(struct nx_arena *arena, const char *text, size_t bytes) {
  char *copy = nx_arena_alloc(arena, bytes + 1);
  if (copy && bytes) memcpy(copy, text, bytes);
  return copy;
}

void nx_arena_deinit(struct nx_arena *arena) {
  for (struct nx_arena_block *block = arena->_blocks, *next; block; block = next) {
    next = block->next;
    free(block);
  }
  *arena = (struct nx_arena){0};
}
