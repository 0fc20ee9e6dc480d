/* SPDX-License-Identifier: Apache-2.0
 *
 * Was the native stack used deeply? Then its pages are given back to the kernel; they would stay resident otherwise,
 * 2 MiB for each thread that once ran a handler that recurses.
 *
 * A stretch of NX__STACK_MARK_BYTES, well below where an execution starts, is filled with a pattern. Whatever recurses
 * through it leaves a return address in each frame, and no frame of generated code is as long as the stretch
 * (guest/build.py refuses longer ones), so that the pattern does not survive. Looking compares one kilobyte.
 *
 * Private to src/sandbox. Threads: a thread's own. */
#ifndef NX_SANDBOX_STACK_MARK_H
#define NX_SANDBOX_STACK_MARK_H

#include <stddef.h>
#include <stdint.h>

#define NX__STACK_MARK_BYTES 1024u
/* Stack that an execution may use without anything being given back. */
#define NX__STACK_KEPT_BYTES (256u * 1024u)

struct nx__stack_mark {
  uint64_t *mark;   /* NULL: the stack is too small to bother */
  uintptr_t low;    /* lowest address of the stack */
};

/* Below the caller's frame; `low` is the lowest usable address of its stack. */
void nx__stack_mark_set(struct nx__stack_mark *mark, uintptr_t low);
/* After an execution: gives back what lies below the mark if it was passed. Returns whether it was. */
int nx__stack_mark_check(struct nx__stack_mark *mark);

#endif
