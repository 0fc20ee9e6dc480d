/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "image/dirty.h"
#include "image/image.h"

#define BASE_BYTES (64u * NX_PAGE_BYTES)
#define DELTA_BYTES (96u * NX_PAGE_BYTES)

static const struct nx_guest_globals globals = {.stack_pointer = 0x8000};

/* Memory with a few pages that are not zero. */
static uint8_t *make_memory(void) {
  uint8_t *memory = aligned_alloc(NX_PAGE_BYTES, DELTA_BYTES);
  memset(memory, 0, DELTA_BYTES);
  for (uint32_t i = 3; i < 40; i += 5) memset(memory + i * NX_PAGE_BYTES, (int)i, NX_PAGE_BYTES);
  return memory;
}

static struct nx_image *make_base(uint8_t *memory) {
  struct nx_image *base;
  struct nx_error err;
  if (nx_image_create_base(&base, memory, BASE_BYTES, globals, &err)) fail_msg("%s", err.text);
  return base;
}

static void base_is_sealed_and_hashed(void **state) {
  (void)state;
  uint8_t *memory = make_memory();
  struct nx_image *one = make_base(memory), *two = make_base(memory);
  assert_memory_equal(one->hash, two->hash, NX_HASH_BYTES);
  assert_memory_equal(one->base, memory, BASE_BYTES);
  assert_int_equal(pwrite(one->memfd, "x", 1, 0), -1);
  assert_int_equal(ftruncate(one->memfd, 0), -1);
  assert_ptr_equal(mmap(NULL, NX_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, one->memfd, 0), MAP_FAILED);
  memory[7 * NX_PAGE_BYTES] ^= 1;
  struct nx_image *three = make_base(memory);
  assert_memory_not_equal(one->hash, three->hash, NX_HASH_BYTES);
  nx_image_release(one);
  nx_image_release(two);
  nx_image_release(three);
  free(memory);
}

static struct nx_image *make_delta(struct nx_image *base, uint8_t *memory) {
  static const uint32_t candidates[] = {0, 3, 4, 8, 70, 95};
  struct nx_image *delta;
  struct nx_error err;
  memory[3 * NX_PAGE_BYTES + 17] = 99;
  memset(memory + 4 * NX_PAGE_BYTES, 1, NX_PAGE_BYTES);
  memset(memory + 70 * NX_PAGE_BYTES, 2, NX_PAGE_BYTES);
  if (nx_image_create_delta(&delta, base, NULL, memory, DELTA_BYTES, candidates, 6, globals, &err)) fail_msg("%s", err.text);
  return delta;
}

static void delta_keeps_what_differs(void **state) {
  (void)state;
  uint8_t *memory = make_memory();
  struct nx_image *base = make_base(memory), *delta = make_delta(base, memory);
  assert_int_equal(delta->page_count, 3);
  assert_int_equal(delta->page_index[0], 3);
  assert_int_equal(delta->page_index[2], 70);
  for (uint32_t i = 0; i < DELTA_BYTES / NX_PAGE_BYTES; i++)
    assert_memory_equal(nx_image_page(delta, i), memory + i * NX_PAGE_BYTES, NX_PAGE_BYTES);
  nx_image_release(base); /* the delta holds it */
  assert_memory_equal(nx_image_page(delta, 8), memory + 8 * NX_PAGE_BYTES, NX_PAGE_BYTES);
  nx_image_release(delta);
  free(memory);
}

static int read_bytes(void *self, void *to, size_t bytes, struct nx_error *err) {
  const uint8_t **at = self;
  (void)err;
  memcpy(to, *at, bytes); /* past the end: the sanitizer's matter */
  *at += bytes;
  return 0;
}

static int decode(struct nx_image **out, struct nx_image *parent, const void *bytes, size_t size) {
  const uint8_t *at = bytes;
  struct nx_error err;
  struct nx_image_source source = {.read = read_bytes, .self = &at, .bytes = size};
  int status = nx_image_decode(out, parent, NULL, source, &err);
  if (!status) assert_int_equal(at - (const uint8_t *)bytes, size);
  return status;
}

static void bytes_come_back(void **state) {
  (void)state;
  uint8_t *memory = make_memory();
  struct nx_image *base = make_base(memory), *delta = make_delta(base, memory), *again;
  NX_BUF_AUTO bytes = {0};
  nx_image_encode(delta, &bytes);
  assert_int_equal(decode(&again, base, bytes.data, bytes.len), 0);
  assert_memory_equal(again->hash, delta->hash, NX_HASH_BYTES);
  assert_int_equal(again->memory_bytes, DELTA_BYTES);
  for (uint32_t i = 0; i < DELTA_BYTES / NX_PAGE_BYTES; i++)
    assert_memory_equal(nx_image_page(again, i), nx_image_page(delta, i), NX_PAGE_BYTES);
  nx_image_release(again);
  nx_image_release(delta);
  nx_image_release(base);
  free(memory);
}

static void damaged_bytes_are_refused(void **state) {
  (void)state;
  uint8_t *memory = make_memory();
  struct nx_image *base = make_base(memory), *delta = make_delta(base, memory), *out;
  NX_BUF_AUTO bytes = {0};
  nx_image_encode(delta, &bytes);
  uint8_t *copy = malloc(bytes.len + 1);
  for (size_t i = 0; i < bytes.len; i += i < 200 ? 1 : 97) {
    memcpy(copy, bytes.data, bytes.len);
    copy[i] ^= 0x40;
    assert_int_equal(decode(&out, base, copy, bytes.len), -NX_ERR_INVALID);
  }
  memcpy(copy, bytes.data, bytes.len);
  for (size_t size = 0; size < bytes.len; size += size < 200 ? 1 : 251)
    assert_int_equal(decode(&out, base, copy, size), -NX_ERR_INVALID);
  assert_int_equal(decode(&out, base, copy, bytes.len + 1), -NX_ERR_INVALID);
  memory[0] = 1;
  struct nx_image *other = make_base(memory);
  assert_int_equal(decode(&out, other, copy, bytes.len), -NX_ERR_INVALID);
  free(copy);
  nx_image_release(other);
  nx_image_release(delta);
  nx_image_release(base);
  free(memory);
}

static void scan_finds_private_pages_in_any_number_of_runs(void **state) {
  (void)state;
  struct nx_error err;
  if (nx_dirty_init(&err)) {
    print_message("no PAGEMAP_SCAN here: %s\n", err.text);
    skip();
  }
  const uint32_t pages = 4096;
  int fd = memfd_create("test", MFD_CLOEXEC);
  assert_int_equal(ftruncate(fd, (off_t)pages * NX_PAGE_BYTES), 0);
  uint8_t *map = mmap(NULL, (size_t)pages * NX_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  volatile uint8_t sum = 0;
  for (uint32_t i = 0; i < pages; i++) sum = (uint8_t)(sum + map[(size_t)i * NX_PAGE_BYTES]); /* present, but not private */
  uint32_t expected = 0;
  for (uint32_t i = 0; i < pages; i += i % 3 ? 1 : 2, expected++) map[(size_t)i * NX_PAGE_BYTES] = 1;
  struct nx_page_list list = {0};
  assert_int_equal(nx_dirty_scan(map, (size_t)pages * NX_PAGE_BYTES, &list, &err), 0);
  assert_int_equal(list.count, expected);
  for (uint32_t i = 0; i < list.count; i++) assert_int_equal(map[(size_t)list.index[i] * NX_PAGE_BYTES], 1);
  nx_page_list_deinit(&list);
  munmap(map, (size_t)pages * NX_PAGE_BYTES);
  close(fd);
  nx_dirty_deinit();
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(base_is_sealed_and_hashed), cmocka_unit_test(delta_keeps_what_differs),
    cmocka_unit_test(bytes_come_back), cmocka_unit_test(damaged_bytes_are_refused),
    cmocka_unit_test(scan_finds_private_pages_in_any_number_of_runs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
