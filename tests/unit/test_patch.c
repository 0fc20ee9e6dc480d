/* SPDX-License-Identifier: Apache-2.0
 *
 * Patches: what goes in comes out, whatever differs from the image; and no bytes, however they came about, make
 * nx_patch_apply write outside the memory it was given. That memory lies between inaccessible pages. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <zstd.h>

#include "counting_account.h"
#include "image/image.h"
#include "image/patch.h"

#define WASM_PAGE_BYTES 65536u
#define BASE_BYTES (8 * WASM_PAGE_BYTES)
#define IMAGE_BYTES (10 * WASM_PAGE_BYTES)
#define HEADER_BYTES 4u

static const struct nx_guest_globals globals = {.stack_pointer = 0x8000};

/* ---- Random numbers, the same in every run ------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t random_below(uint32_t end) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)((random_state >> 16) % end);
}

static void fill_random(uint8_t *out, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)random_below(256);
}

/* ---- Memory and images --------------------------------------------------------------------------------------------------- */

/* Zeroes between two pages that cannot be touched. */
static uint8_t *allocate(size_t bytes) {
  uint8_t *area = mmap(NULL, bytes + 2 * NX_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(area, MAP_FAILED);
  assert_int_equal(mprotect(area + NX_PAGE_BYTES, bytes, PROT_READ | PROT_WRITE), 0);
  return area + NX_PAGE_BYTES;
}

static void release(uint8_t *memory, size_t bytes) { munmap(memory - NX_PAGE_BYTES, bytes + 2 * NX_PAGE_BYTES); }

/* A handler's image: some pages of its own, some of the base's, some of zeroes, grown beyond the base. */
static struct nx_image *image;

static int make_image(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_image *base;
  static const uint32_t own[] = {5, 6, 40, 130, 159};
  random_state = 1;
  uint8_t *memory = allocate(IMAGE_BYTES);
  for (uint32_t i = 3; i < 120; i += 3) fill_random(memory + (size_t)i * NX_PAGE_BYTES, NX_PAGE_BYTES);
  if (nx_image_create_base(&base, memory, BASE_BYTES, globals, &err)) fail_msg("%s", err.text);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) fill_random(memory + (size_t)own[i] * NX_PAGE_BYTES, 600);
  if (nx_image_create_delta(&image, base, NULL, memory, IMAGE_BYTES, own, sizeof own / sizeof *own, globals, &err))
    fail_msg("%s", err.text);
  nx_image_release(base);
  release(memory, IMAGE_BYTES);
  return 0;
}

static int drop_image(void **state) {
  (void)state;
  nx_image_release(image);
  return 0;
}

/* What an instance that shows the image has, grown to `bytes`. */
static void show(uint8_t *memory, uint32_t bytes) {
  for (uint32_t i = 0; i < IMAGE_BYTES / NX_PAGE_BYTES; i++)
    memcpy(memory + (size_t)i * NX_PAGE_BYTES, nx_image_page(image, i), NX_PAGE_BYTES);
  memset(memory + IMAGE_BYTES, 0, bytes - IMAGE_BYTES);
}

static uint8_t *new_shown(uint32_t bytes) {
  uint8_t *memory = allocate(bytes);
  show(memory, bytes);
  return memory;
}

static int encode(struct nx_buf *out, const uint8_t *memory, uint32_t bytes, struct nx_error *err) {
  uint32_t pages = bytes / NX_PAGE_BYTES;
  uint32_t *all = malloc(pages * sizeof *all);
  for (uint32_t i = 0; i < pages; i++) all[i] = i;
  int status = nx_patch_encode(out, image, memory, bytes, all, pages, err);
  free(all);
  return status;
}

static void must_encode(struct nx_buf *out, const uint8_t *memory, uint32_t bytes) {
  struct nx_error err;
  if (encode(out, memory, bytes, &err)) fail_msg("%s", err.text);
}

static int apply(const struct nx_buf *patch, uint8_t *memory, uint32_t bytes) {
  struct nx_error err;
  return nx_patch_apply((const uint8_t *)patch->data, patch->len, memory, bytes, &err);
}

static void assert_round_trip(const uint8_t *memory, uint32_t bytes) {
  NX_BUF_AUTO patch = {0};
  struct nx_error err;
  uint32_t needed;
  must_encode(&patch, memory, bytes);
  if (nx_patch_memory_bytes((const uint8_t *)patch.data, patch.len, image, &needed, &err)) fail_msg("%s", err.text);
  assert_int_equal(needed, bytes);
  uint8_t *back = new_shown(bytes);
  assert_int_equal(apply(&patch, back, bytes), 0);
  assert_memory_equal(back, memory, bytes);
  release(back, bytes);
}

/* ---- Round trips ------------------------------------------------------------------------------------------------------------ */

/* One of the things that executions do to memory. */
static void change_something(uint8_t *memory, uint32_t bytes) {
  uint8_t *page = memory + (size_t)random_below(bytes / NX_PAGE_BYTES) * NX_PAGE_BYTES;
  switch (random_below(6)) {
  case 0: page[random_below(NX_PAGE_BYTES)] ^= 0x10; break;
  case 1: memset(page, 0, NX_PAGE_BYTES); break;
  case 2: fill_random(page, NX_PAGE_BYTES); break;
  case 3: fill_random(page + random_below(NX_PAGE_BYTES / 2), random_below(NX_PAGE_BYTES / 2)); break;
  case 4: for (uint32_t i = 4 * random_below(2); i < NX_PAGE_BYTES; i += 8) page[i]++; break; /* the longest form */
  case 5: page[0]++, page[NX_PAGE_BYTES - 1]++; break;
  }
}

static void random_changes_come_back(void **state) {
  (void)state;
  random_state = 2;
  for (unsigned round = 0; round < 300; round++) {
    uint32_t bytes = IMAGE_BYTES + random_below(6) * WASM_PAGE_BYTES;
    uint8_t *memory = new_shown(bytes);
    for (uint32_t i = random_below(round + 1); i; i--) change_something(memory, bytes);
    assert_round_trip(memory, bytes);
    release(memory, bytes);
  }
}

static void what_does_not_differ_costs_nothing(void **state) {
  (void)state;
  const uint32_t bytes = 1024 * WASM_PAGE_BYTES; /* nearly all of it zeroes past the image */
  uint8_t *memory = new_shown(bytes);
  NX_BUF_AUTO patch = {0};
  must_encode(&patch, memory, bytes);
  assert_int_equal(patch.len, HEADER_BYTES);
  assert_round_trip(memory, bytes);
  release(memory, bytes);
}

static void every_page_may_differ(void **state) {
  (void)state;
  uint8_t *memory = allocate(IMAGE_BYTES);
  assert_round_trip(memory, IMAGE_BYTES); /* zeroes where the image has content */
  random_state = 3;
  fill_random(memory, IMAGE_BYTES);
  assert_round_trip(memory, IMAGE_BYTES);
  release(memory, IMAGE_BYTES);
}

static void same_memory_makes_the_same_patch(void **state) {
  (void)state;
  random_state = 4;
  uint8_t *memory = new_shown(IMAGE_BYTES), *other = new_shown(IMAGE_BYTES);
  for (unsigned i = 0; i < 50; i++) change_something(memory, IMAGE_BYTES), change_something(other, IMAGE_BYTES);
  NX_BUF_AUTO first = {0};
  must_encode(&first, memory, IMAGE_BYTES);
  for (unsigned i = 0; i < 20; i++) {
    NX_BUF_AUTO between = {0};
    NX_BUF_AUTO again = {0};
    must_encode(&between, other, IMAGE_BYTES);
    must_encode(&again, memory, IMAGE_BYTES);
    assert_int_equal(first.len, again.len);
    assert_memory_equal(first.data, again.data, first.len);
    change_something(other, IMAGE_BYTES);
  }
  release(memory, IMAGE_BYTES);
  release(other, IMAGE_BYTES);
}

static void a_patch_follows_what_was_there(void **state) {
  (void)state;
  NX_BUF_AUTO out = {0};
  nx_buf_lit(&out, "record");
  uint8_t *memory = new_shown(IMAGE_BYTES);
  must_encode(&out, memory, IMAGE_BYTES);
  assert_int_equal(out.len, 6 + HEADER_BYTES);
  assert_memory_equal(out.data, "record", 6);
  release(memory, IMAGE_BYTES);
}

static void *move_own_memory(void *seed) {
  uint8_t *memory = new_shown(IMAGE_BYTES);
  memset(memory + 8 * NX_PAGE_BYTES, *(const int *)seed, 100 * NX_PAGE_BYTES);
  for (unsigned i = 0; i < 50; i++) assert_round_trip(memory, IMAGE_BYTES);
  release(memory, IMAGE_BYTES);
  return NULL;
}

static void threads_do_not_meet(void **state) {
  (void)state;
  pthread_t threads[4];
  static const int seeds[] = {1, 2, 3, 4};
  for (size_t i = 0; i < 4; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, move_own_memory, (void *)(uintptr_t)&seeds[i]), 0);
  for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* ---- Memory of the host ------------------------------------------------------------------------------------------------------ */

#define NOISE_BYTES (26u << 20)

static void noise_is_charged_for_little_more_than_its_size(void **state) {
  (void)state;
  random_state = 5;
  uint8_t *memory = new_shown(NOISE_BYTES);
  fill_random(memory + IMAGE_BYTES, NOISE_BYTES - IMAGE_BYTES);
  struct counting_account account = COUNTING_ACCOUNT;
  account.limit = NOISE_BYTES + (3 << 19);
  NX_BUF_AUTO patch = {.account = &account.as_account};
  must_encode(&patch, memory, NOISE_BYTES);
  assert_int_equal(patch.capacity, patch.len);
  assert_int_equal(account.charged, patch.len);
  uint8_t *back = new_shown(NOISE_BYTES);
  assert_int_equal(apply(&patch, back, NOISE_BYTES), 0);
  assert_memory_equal(back, memory, NOISE_BYTES);
  release(memory, NOISE_BYTES);
  release(back, NOISE_BYTES);
}

static void a_refused_charge_leaves_nothing(void **state) {
  (void)state;
  random_state = 6;
  uint8_t *memory = new_shown(IMAGE_BYTES);
  fill_random(memory, IMAGE_BYTES);
  for (size_t limit = 0; limit < IMAGE_BYTES; limit += 30011) {
    struct nx_error err;
    struct counting_account account = COUNTING_ACCOUNT;
    account.limit = limit;
    NX_BUF_AUTO patch = {.account = &account.as_account};
    assert_int_equal(encode(&patch, memory, IMAGE_BYTES, &err), -NX_ERR_NO_MEMORY);
    assert_int_equal(patch.len, 0);
    assert_int_equal(account.charged, 0);
  }
  release(memory, IMAGE_BYTES);
}

/* ---- Hostile bytes -------------------------------------------------------------------------------------------------------------- */

static void make_typical(struct nx_buf *patch) {
  random_state = 7;
  uint8_t *memory = new_shown(IMAGE_BYTES + WASM_PAGE_BYTES);
  for (unsigned i = 0; i < 12; i++) change_something(memory, IMAGE_BYTES + WASM_PAGE_BYTES);
  must_encode(patch, memory, IMAGE_BYTES + WASM_PAGE_BYTES);
  release(memory, IMAGE_BYTES + WASM_PAGE_BYTES);
}

/* As a restore does it: only what states a possible size is applied. */
static int try_patch(const uint8_t *patch, size_t bytes) {
  struct nx_error err;
  uint32_t memory_bytes;
  uint8_t *exact = malloc(bytes ? bytes : 1); /* so that a sanitizer sees reads past the end */
  memcpy(exact, patch, bytes);
  int status = nx_patch_memory_bytes(exact, bytes, image, &memory_bytes, &err);
  if (!status && memory_bytes <= 64 * WASM_PAGE_BYTES) {
    uint8_t *memory = new_shown(memory_bytes);
    status = nx_patch_apply(exact, bytes, memory, memory_bytes, &err);
    release(memory, memory_bytes);
  }
  free(exact);
  return status;
}

static void truncated_patches_are_refused(void **state) {
  (void)state;
  NX_BUF_AUTO patch = {0};
  make_typical(&patch);
  assert_int_equal(try_patch((const uint8_t *)patch.data, patch.len), 0);
  for (size_t bytes = 0; bytes < patch.len; bytes += 1 + bytes / 200) {
    if (bytes == HEADER_BYTES) continue; /* a patch without frames */
    assert_int_equal(try_patch((const uint8_t *)patch.data, bytes), -NX_ERR_INVALID);
  }
}

static void changed_patches_stay_inside(void **state) {
  (void)state;
  NX_BUF_AUTO patch = {0};
  make_typical(&patch);
  uint8_t *changed = malloc(patch.len);
#ifdef __SANITIZE_THREAD__
  const unsigned rounds = 50; /* one thread alone cannot race */
#else
  const unsigned rounds = 5000;
#endif
  for (unsigned round = 0; round < rounds; round++) {
    memcpy(changed, patch.data, patch.len);
    uint32_t near = random_below(2) ? 64 : (uint32_t)patch.len; /* headers lie at the front */
    for (uint32_t n = 1 + random_below(3); n; n--) changed[random_below(near)] = (uint8_t)random_below(256);
    try_patch(changed, patch.len);
  }
  free(changed);
}

/* A patch whose only frame holds these runs. */
static int try_runs(const void *runs, size_t bytes) {
  uint8_t patch[4096] = {1, 0, IMAGE_BYTES / WASM_PAGE_BYTES, 0};
  size_t frame_bytes = ZSTD_compress(patch + HEADER_BYTES, sizeof patch - HEADER_BYTES, runs, bytes, 1);
  assert_false(ZSTD_isError(frame_bytes));
  return try_patch(patch, HEADER_BYTES + frame_bytes);
}

static void runs_that_leave_memory_are_refused(void **state) {
  (void)state;
  /* The image has 0x28000 words: 0x80 0x80 0x0a. */
  static const struct {
    const char *what, *runs;
    size_t bytes;
    int status;
  } cases[] = {
    {"the last word", "\xff\xff\x09\x01word", 8, 0},
    {"no skip at all", "\0\1word\0\1word", 12, 0},
    {"one word behind the end", "\x80\x80\x0a\x01word", 8, -NX_ERR_INVALID},
    {"over the end", "\xff\xff\x09\x02wordword", 12, -NX_ERR_INVALID},
    {"the second run is behind the end", "\xff\xff\x09\x01word\0\1word", 14, -NX_ERR_INVALID},
    {"an empty run", "\0\0", 2, -NX_ERR_INVALID},
    {"a skip without a count", "\1", 1, -NX_ERR_INVALID},
    {"a cut varint", "\x80", 1, -NX_ERR_INVALID},
    {"fewer words than counted", "\0\2word", 6, -NX_ERR_INVALID},
    {"a cut word", "\0\1wor", 5, -NX_ERR_INVALID},
    {"the largest skip", "\xff\xff\xff\xff\x0f\1word", 10, -NX_ERR_INVALID},
    {"a skip of 33 bits", "\x80\x80\x80\x80\x10\1word", 10, -NX_ERR_INVALID},
    {"a varint of six bytes", "\x80\x80\x80\x80\x80\x00\1word", 11, -NX_ERR_INVALID},
    {"the largest count", "\0\xff\xff\xff\xff\x0fword", 10, -NX_ERR_INVALID},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int status = try_runs(cases[i].runs, cases[i].bytes);
    if (status != cases[i].status) fail_msg("%s: %d", cases[i].what, status);
  }
}

static void frames_of_more_than_a_block_are_refused(void **state) {
  (void)state;
  size_t bytes = 64 << 20; /* of zeroes: a few KiB when compressed */
  void *zeroes = calloc(1, bytes);
  assert_int_equal(try_runs(zeroes, bytes), -NX_ERR_INVALID);
  free(zeroes);
}

static void headers_are_checked(void **state) {
  (void)state;
  uint8_t header[HEADER_BYTES] = {1, 0, IMAGE_BYTES / WASM_PAGE_BYTES, 0};
  assert_int_equal(try_patch(header, sizeof header), 0);
  header[0] = 2;
  assert_int_equal(try_patch(header, sizeof header), -NX_ERR_INVALID);
  header[0] = 1;
  header[2]--;
  assert_int_equal(try_patch(header, sizeof header), -NX_ERR_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(random_changes_come_back),
    cmocka_unit_test(what_does_not_differ_costs_nothing),
    cmocka_unit_test(every_page_may_differ),
    cmocka_unit_test(same_memory_makes_the_same_patch),
    cmocka_unit_test(a_patch_follows_what_was_there),
    cmocka_unit_test(threads_do_not_meet),
    cmocka_unit_test(noise_is_charged_for_little_more_than_its_size),
    cmocka_unit_test(a_refused_charge_leaves_nothing),
    cmocka_unit_test(truncated_patches_are_refused),
    cmocka_unit_test(changed_patches_stay_inside),
    cmocka_unit_test(runs_that_leave_memory_are_refused),
    cmocka_unit_test(frames_of_more_than_a_block_are_refused),
    cmocka_unit_test(headers_are_checked),
  };
  return cmocka_run_group_tests(tests, make_image, drop_image);
}
