/* SPDX-License-Identifier: Apache-2.0
 * The mark on a native stack: pages of deep recursion go back to the kernel, all others stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sandbox/stack_mark.h"

#define KIB 1024u
#define PAGE 4096u
#define PAGES_MAX 1024u

/* ---- A thread with a stack of a given size ------------------------------------------------------------------------------ */

/* What a body finds wrong is told on the thread of the test: cmocka knows no other. */
#define TEXT(line) #line
#define CHECK_AT(line, x) \
  if (!(x)) return "line " TEXT(line) ": " #x
#define CHECK(x) CHECK_AT(__LINE__, x)

struct on_stack {
  size_t bytes;
  const char *(*body)(uintptr_t low);
};

static void *run(void *argument) {
  const struct on_stack *of = argument;
  uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
  return (void *)of->body((frame - of->bytes) & ~(uintptr_t)(PAGE - 1));
}

/* Runs it with so much stack below it, of which it is told the lowest address. */
static void on_stack(size_t bytes, const char *(*body)(uintptr_t low)) {
  struct on_stack of = {bytes, body};
  pthread_attr_t attributes;
  pthread_t thread;
  void *wrong = NULL;
  /* Of our own: the C library would hand out one that an earlier thread has used. The rest is for thread-local storage,
   * of which sanitizers have much. */
  size_t all = bytes + 2048 * KIB;
  void *stack = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  assert_ptr_not_equal(stack, MAP_FAILED);
  madvise(stack, all, MADV_NOHUGEPAGE);
  pthread_attr_init(&attributes);
  assert_int_equal(pthread_attr_setstack(&attributes, stack, all), 0);
  assert_int_equal(pthread_create(&thread, &attributes, run, &of), 0);
  pthread_join(thread, &wrong);
  pthread_attr_destroy(&attributes);
  munmap(stack, all);
  if (wrong) fail_msg("%s", (const char *)wrong);
}

/* Recurses until a frame lies `bytes` below the first one: each frame is far smaller than the mark. */
static __attribute__((noinline)) unsigned recurse_to(uintptr_t target, unsigned depth) {
  volatile unsigned char local[96];
  for (size_t i = 0; i < sizeof local; i += 32) local[i] = (unsigned char)depth;
  if ((uintptr_t)__builtin_frame_address(0) <= target) return depth;
  unsigned sum = recurse_to(target, depth + 1);
  return sum + local[32];
}

static __attribute__((noinline)) unsigned use_stack(size_t bytes) {
  return recurse_to((uintptr_t)__builtin_frame_address(0) - bytes, 1);
}

static size_t resident_pages(uintptr_t from, uintptr_t to) {
  unsigned char pages[PAGES_MAX];
  size_t count = 0, all = (to - from) / PAGE;
  if (all > PAGES_MAX || mincore((void *)from, to - from, pages)) return SIZE_MAX;
  for (size_t i = 0; i < all; i++) count += pages[i] & 1;
  return count;
}

static size_t resident_below(const struct nx__stack_mark *mark) {
  return resident_pages(mark->low, (uintptr_t)mark->mark & ~(uintptr_t)(PAGE - 1));
}

/* ---- What it does --------------------------------------------------------------------------------------------------------- */

static const char *deep_body(uintptr_t low) {
  struct nx__stack_mark mark;
  nx__stack_mark_set(&mark, low);
  CHECK(mark.mark);
  CHECK((uintptr_t)mark.mark > low + 1024 * KIB);
  CHECK(resident_below(&mark) == 0);
  for (int i = 0; i < 3; i++) {
    unsigned char kept[8192];
    memset(kept, 0xa0 + i, sizeof kept);
    use_stack(1024 * KIB);
    CHECK(resident_below(&mark) >= 768 * KIB / PAGE - 2);
    CHECK(nx__stack_mark_check(&mark) == 1);
    CHECK(resident_below(&mark) == 0);
    CHECK(nx__stack_mark_check(&mark) == 0); /* the mark was written anew */
    for (size_t j = 0; j < sizeof kept; j++) CHECK(kept[j] == 0xa0 + i);
  }
  return NULL;
}

static void deep_recursion_is_given_back(void **state) {
  (void)state;
  on_stack(2048 * KIB, deep_body);
}

static const char *shallow_body(uintptr_t low) {
  struct nx__stack_mark mark;
  nx__stack_mark_set(&mark, low);
  for (int i = 0; i < 10; i++) {
    use_stack(NX__STACK_KEPT_BYTES - 16 * KIB);
    CHECK(nx__stack_mark_check(&mark) == 0);
    uintptr_t page = (uintptr_t)mark.mark & ~(uintptr_t)(PAGE - 1);
    CHECK(resident_pages(page + PAGE, page + NX__STACK_KEPT_BYTES) >= (NX__STACK_KEPT_BYTES - 32 * KIB) / PAGE);
  }
  use_stack(NX__STACK_KEPT_BYTES + 16 * KIB); /* just past it */
  CHECK(nx__stack_mark_check(&mark) == 1);
  CHECK(nx__stack_mark_check(&mark) == 0);
  return NULL;
}

static void shallow_use_costs_nothing(void **state) {
  (void)state;
  on_stack(2048 * KIB, shallow_body);
}

static const char *small_body(uintptr_t low) {
  struct nx__stack_mark mark;
  memset(&mark, 0x5a, sizeof mark);
  nx__stack_mark_set(&mark, low);
  CHECK(!mark.mark);
  use_stack(300 * KIB);
  CHECK(nx__stack_mark_check(&mark) == 0);
  return NULL;
}

static void small_stacks_are_left_alone(void **state) {
  (void)state;
  on_stack(512 * KIB - 2 * PAGE, small_body);
}

/* The lowest address need not be a page's first: the partial page is not ours to give back. */
static const char *odd_body(uintptr_t low) {
  struct nx__stack_mark mark;
  nx__stack_mark_set(&mark, low + 100);
  CHECK(mark.low == low + PAGE);
  use_stack((uintptr_t)__builtin_frame_address(0) - low - 64 * KIB);
  CHECK(nx__stack_mark_check(&mark) == 1);
  CHECK(resident_below(&mark) == 0);
  return NULL;
}

static void bounds_are_rounded_inwards(void **state) {
  (void)state;
  on_stack(1024 * KIB, odd_body);
}

/* A single word of the mark is enough to tell. */
static const char *word_body(uintptr_t low) {
  struct nx__stack_mark mark;
  nx__stack_mark_set(&mark, low);
  size_t words = NX__STACK_MARK_BYTES / sizeof(uint64_t);
  for (size_t i = 0; i < words; i += words / 8 - 1) {
    ((volatile uint64_t *)mark.mark)[i] ^= 1;
    CHECK(nx__stack_mark_check(&mark) == 1);
    CHECK(nx__stack_mark_check(&mark) == 0);
  }
  return NULL;
}

static void any_word_of_the_mark_counts(void **state) {
  (void)state;
  on_stack(2048 * KIB, word_body);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(deep_recursion_is_given_back),
    cmocka_unit_test(shallow_use_costs_nothing),
    cmocka_unit_test(small_stacks_are_left_alone),
    cmocka_unit_test(bounds_are_rounded_inwards),
    cmocka_unit_test(any_word_of_the_mark_counts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
