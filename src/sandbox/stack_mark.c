/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/stack_mark.h"

#include <sys/mman.h>

#define PAGE_BYTES 4096u
#define WORDS (NX__STACK_MARK_BYTES / sizeof(uint64_t))
#define PATTERN UINT64_C(0x6e787374616b6d6b) /* no address, and no number that code is likely to push */

/* Memory below the stack pointer, which no object has: the sanitizer must not have an opinion of it. */
#define NX__UNSANITIZED __attribute__((no_sanitize("address", "undefined")))

NX__UNSANITIZED static void fill(volatile uint64_t *mark) {
  for (size_t i = 0; i < WORDS; i++) mark[i] = PATTERN;
}

NX__UNSANITIZED static int is_whole(const volatile uint64_t *mark) {
  uint64_t difference = 0;
  for (size_t i = 0; i < WORDS; i++) difference |= mark[i] ^ PATTERN;
  return difference == 0;
}

void nx__stack_mark_set(struct nx__stack_mark *mark, uintptr_t low) {
  uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
  mark->low = (low + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
  mark->mark = NULL;
  if (frame - low < 2 * (uintptr_t)NX__STACK_KEPT_BYTES) return;
  mark->mark = (uint64_t *)((frame - NX__STACK_KEPT_BYTES) & ~(uintptr_t)(PAGE_BYTES - 1));
  fill(mark->mark);
}

int nx__stack_mark_check(struct nx__stack_mark *mark) {
  if (!mark->mark || is_whole(mark->mark)) return 0;
  madvise((void *)mark->low, (uintptr_t)mark->mark + PAGE_BYTES - mark->low, MADV_DONTNEED);
  fill(mark->mark);
  return 1;
}
