/* SPDX-License-Identifier: Apache-2.0
 * Sealed continuations: names that are records, how long they may be, and sources that travel in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <zstd.h>

#include "counting_account.h"
#include "hostile_bytes.h"
#include "suspend/sealed.h"
#include "suspend/suspensions.h"

/* Of a name with NX_SEALED_NAME_MAX characters. */
#define LONGEST_RECORD (NX_SEALED_NAME_MAX / 4 * 3 - NX_SEAL_OVERHEAD_BYTES)

static const uint8_t key[NX_SEAL_KEY_BYTES] = {7, 7, 7}, other_key[NX_SEAL_KEY_BYTES] = {8};
static struct nx_sealer sealer;

static int setup(void **state) {
  assert_true(sodium_init() >= 0);
  nx_sealer_init(&sealer, key, NULL);
  return 0;
}

static struct nx_buf name_of(const void *record, size_t bytes) {
  struct nx_buf name = {0};
  assert_int_equal(nx_sealed_write(&sealer, record, bytes, &name, NULL), 0);
  return name;
}

static int read_name(const char *name, size_t bytes) {
  struct nx_buf out = {0};
  struct nx_error err;
  int status = nx_sealed_read(&sealer, name, bytes, &out, &err);
  if (status) assert_int_equal(out.len, 0);
  nx_buf_deinit(&out);
  return status;
}

static void a_name_is_read_again(void **state) {
  char record[200];
  randombytes_buf(record, sizeof record);
  for (size_t size = 0; size <= sizeof record; size++) {
    struct nx_buf name = name_of(record, size), out = {0};
    for (size_t i = 0; i < name.len; i++) assert_non_null(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", name.data[i]));
    assert_int_equal(nx_sealed_read(&sealer, name.data, name.len, &out, NULL), 0);
    assert_int_equal(out.len, size);
    if (size) assert_memory_equal(out.data, record, size);
    nx_buf_deinit(&out);
    nx_buf_deinit(&name);
  }
}

static void names_have_a_longest(void **state) {
  char *record = calloc(1, LONGEST_RECORD + 1);
  assert_non_null(record);
  struct nx_buf name = name_of(record, LONGEST_RECORD), none = {0};
  struct nx_error err = {0};
  assert_int_equal(name.len, NX_SEALED_NAME_MAX);
  assert_int_equal(read_name(name.data, name.len), 0);
  assert_int_equal(nx_sealed_write(&sealer, record, LONGEST_RECORD + 1, &none, &err), -NX_ERR_TOO_LARGE);
  assert_non_null(strstr(err.text, "65536"));
  assert_int_equal(none.len, 0);
  nx_buf_char(&name, 'A');
  assert_int_equal(read_name(name.data, name.len), -NX_ERR_INVALID);
  nx_buf_deinit(&name);
  nx_buf_deinit(&none);
  free(record);
}

static void refuse(const uint8_t *name, size_t size) {
  assert_int_equal(read_name((const char *)name, size), -NX_ERR_INVALID);
}

static void every_change_is_refused(void **state) {
  struct nx_buf name = name_of("a record of some length", 23);
  for (size_t size = 0; size < name.len; size++) decode_exactly(name.data, size, refuse);
  for (size_t at = 0; at < name.len; at++)
    for (int c = 0; c < 256; c++) {
      char before = name.data[at];
      if ((char)c == before) continue;
      name.data[at] = (char)c;
      if (!read_name(name.data, name.len)) fail_msg("accepted with byte %zu as 0x%02x instead of '%c'", at, c, before);
      name.data[at] = before;
    }
  assert_int_equal(read_name(name.data, name.len), 0);
  nx_buf_deinit(&name);
}

static void other_keys_do_not_open_it(void **state) {
  struct nx_sealer other, both;
  NX_BUF_AUTO name = name_of("record", 6), out = {0};
  nx_sealer_init(&other, other_key, NULL);
  nx_sealer_init(&both, other_key, key);
  assert_int_equal(nx_sealed_read(&other, name.data, name.len, &out, NULL), -NX_ERR_INVALID);
  assert_int_equal(nx_sealed_read(&both, name.data, name.len, &out, NULL), 0);
}

/* What was sealed for a store is no continuation, even with the same key. */
static void items_of_stores_are_no_names(void **state) {
  static const uint8_t id[16];
  NX_BUF_AUTO sealed = {0}, name = {0};
  assert_int_equal(nx_seal(&sealer, id, sizeof id, (const uint8_t *)"record", 6, &sealed, NULL), 0);
  char *at = nx_buf_reserve(&name, 2 * sealed.len);
  sodium_bin2base64(at, 2 * sealed.len, (uint8_t *)sealed.data, sealed.len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  assert_int_equal(read_name(at, strlen(at)), -NX_ERR_INVALID);
}

static void without_memory_there_is_no_name(void **state) {
  struct counting_account account = COUNTING_ACCOUNT;
  char record[1000] = {0};
  struct nx_buf name = {.account = &account.as_account};
  for (account.limit = 0; account.limit < 1400; account.limit += 100) {
    assert_int_equal(nx_sealed_write(&sealer, record, sizeof record, &name, NULL), -NX_ERR_NO_MEMORY);
    nx_buf_deinit(&name);
    assert_int_equal(account.charged, 0);
  }
}

/* ---- Sources ------------------------------------------------------------------------------------------------------------ */

static struct nx_buf pack(const char *source, size_t bytes) {
  struct nx_buf out = {0};
  nx_sealed_pack_source((struct nx_bytes){source, bytes}, &out);
  assert_false(out.failed);
  return out;
}

static int unpack(const void *packed, size_t bytes, struct nx_buf *out) {
  struct nx_error err;
  return nx_sealed_unpack_source((struct nx_bytes){packed, bytes}, out, &err);
}

static void sources_are_packed(void **state) {
  static const size_t sizes[] = {0, 1, 1000, 1 << 20};
  char *source = malloc(1 << 20);
  assert_non_null(source);
  for (size_t i = 0; i < 1 << 20; i++) source[i] = "return 1;\n"[i % 10];
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    NX_BUF_AUTO packed = pack(source, sizes[i]), out = {0};
    assert_int_equal(unpack(packed.data, packed.len, &out), 0);
    assert_int_equal(out.len, sizes[i]);
    if (sizes[i]) assert_memory_equal(out.data, source, sizes[i]);
    if (sizes[i] >= 1000) assert_true(packed.len < 500);
  }
  free(source);
}

static void unpack_damaged(const uint8_t *bytes, size_t size) {
  struct counting_account account = COUNTING_ACCOUNT;
  account.limit = 16 << 10; /* a frame may say that it holds 64 MiB: that costs nothing but time here */
  NX_BUF_AUTO out = {.account = &account.as_account};
  int status = unpack(bytes, size, &out);
  assert_true(!status || status == -NX_ERR_INVALID || status == -NX_ERR_NO_MEMORY);
}

static void damaged_sources_are_harmless(void **state) {
  NX_BUF_AUTO packed = pack("export default async () => { await $ext.pay.charge(1); return 'done' }", 70);
  decode_damaged(packed.data, packed.len, unpack_damaged);
}

/* A frame that does not say how much it holds, one that says too much, and two of them. */
static void frames_that_we_do_not_make_are_refused(void **state) {
  static const char zeroes[4096];
  char frame[256];
  NX_BUF_AUTO out = {0};
  ZSTD_CCtx *context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  size_t size = ZSTD_compress2(context, frame, sizeof frame, zeroes, sizeof zeroes);
  assert_false(ZSTD_isError(size));
  ZSTD_freeCCtx(context);
  assert_int_equal(unpack(frame, size, &out), -NX_ERR_INVALID);
  static const uint8_t huge[] = {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0};
  assert_int_equal(unpack(huge, sizeof huge, &out), -NX_ERR_INVALID);
  NX_BUF_AUTO twice = pack("one", 3), second = pack("two", 3);
  nx_buf_add(&twice, second.data, second.len);
  assert_int_equal(unpack(twice.data, twice.len, &out), -NX_ERR_INVALID);
  assert_int_equal(unpack("", 0, &out), -NX_ERR_INVALID);
  assert_int_equal(out.len, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_name_is_read_again),
    cmocka_unit_test(names_have_a_longest),
    cmocka_unit_test(every_change_is_refused),
    cmocka_unit_test(other_keys_do_not_open_it),
    cmocka_unit_test(items_of_stores_are_no_names),
    cmocka_unit_test(without_memory_there_is_no_name),
    cmocka_unit_test(sources_are_packed),
    cmocka_unit_test(damaged_sources_are_harmless),
    cmocka_unit_test(frames_that_we_do_not_make_are_refused),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
