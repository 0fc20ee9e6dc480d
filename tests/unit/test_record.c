/* SPDX-License-Identifier: Apache-2.0
 * Records: what is encoded is decoded, and damaged ones are refused or have all their sections inside their bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "counting_account.h"
#include "hostile_bytes.h"
#include "suspend/record.h"

#define HEAD_BYTES (sizeof(struct nx_record_fixed) + NX_RECORD_SECTIONS * sizeof(uint32_t))

/* Every byte of the fixed part is another one, every section has another length. */
static struct nx_record sample(void) {
  static const char text[] = "what the sections hold is nothing to the record";
  struct nx_record record = {0};
  uint8_t *fixed = (uint8_t *)&record.fixed;
  for (size_t i = 0; i < sizeof record.fixed; i++) fixed[i] = (uint8_t)(i + 1);
  record.fixed.version = NX_RECORD_VERSION;
  for (size_t i = 0; i < NX_RECORD_SECTIONS; i++) record.sections[i] = (struct nx_bytes){text + i, i * 3 % 17};
  return record;
}

static struct nx_buf encode(const struct nx_record *record) {
  struct nx_buf out = {0};
  nx_record_encode(record, &out);
  assert_false(out.failed);
  return out;
}

static void what_is_encoded_is_decoded(void **state) {
  struct nx_record record = sample(), decoded;
  struct nx_buf bytes = encode(&record);
  assert_int_equal(nx_record_decode(&decoded, bytes.data, bytes.len, NULL), 0);
  assert_memory_equal(&decoded.fixed, &record.fixed, sizeof record.fixed);
  for (size_t i = 0; i < NX_RECORD_SECTIONS; i++) {
    assert_int_equal(decoded.sections[i].size, record.sections[i].size);
    if (record.sections[i].size)
      assert_memory_equal(decoded.sections[i].data, record.sections[i].data, record.sections[i].size);
  }
  nx_buf_deinit(&bytes);
}

static void empty_sections_are_allowed(void **state) {
  struct nx_record record = {.fixed.version = NX_RECORD_VERSION}, decoded;
  struct nx_buf bytes = encode(&record);
  assert_int_equal(bytes.len, HEAD_BYTES);
  assert_int_equal(nx_record_decode(&decoded, bytes.data, bytes.len, NULL), 0);
  nx_buf_deinit(&bytes);
}

static void encoding_appends(void **state) {
  struct nx_record record = sample(), decoded;
  NX_BUF_AUTO out = {0};
  nx_buf_lit(&out, "before");
  nx_record_encode(&record, &out);
  assert_memory_equal(out.data, "before", 6);
  assert_int_equal(nx_record_decode(&decoded, out.data + 6, out.len - 6, NULL), 0);
}

static void assert_refused(const uint8_t *bytes, size_t size, const char *why) {
  struct nx_record decoded;
  struct nx_error err = {0};
  assert_int_equal(nx_record_decode(&decoded, bytes, size, &err), -NX_ERR_INVALID);
  if (!strstr(err.text, why)) fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

static void refuse_cut(const uint8_t *bytes, size_t size) {
  assert_refused(bytes, size, size < HEAD_BYTES ? "cut short" : "damaged");
}

static void every_truncation_is_refused(void **state) {
  struct nx_record record = sample();
  struct nx_buf bytes = encode(&record);
  for (size_t size = 0; size < bytes.len; size++) decode_exactly(bytes.data, size, refuse_cut);
  nx_buf_char(&bytes, 0);
  assert_refused((uint8_t *)bytes.data, bytes.len, "damaged");
  nx_buf_deinit(&bytes);
}

static void other_versions_are_named(void **state) {
  struct nx_record record = sample();
  record.fixed.version = NX_RECORD_VERSION + 1;
  struct nx_buf bytes = encode(&record);
  assert_refused((uint8_t *)bytes.data, bytes.len, "format 2, this nexus reads format 1");
  nx_buf_deinit(&bytes);
}

/* What is accepted covers its bytes exactly. */
static void decode(const uint8_t *bytes, size_t size) {
  struct nx_record decoded;
  if (nx_record_decode(&decoded, bytes, size, NULL)) return;
  const uint8_t *at = bytes + HEAD_BYTES;
  for (size_t i = 0; i < NX_RECORD_SECTIONS; i++) {
    assert_ptr_equal(decoded.sections[i].data, at);
    at += decoded.sections[i].size;
  }
  assert_ptr_equal(at, bytes + size);
}

static void damaged_records_are_harmless(void **state) {
  struct nx_record record = sample();
  struct nx_buf bytes = encode(&record);
  decode_damaged(bytes.data, bytes.len, decode);
  nx_buf_deinit(&bytes);
}

static void without_memory_encoding_fails(void **state) {
  struct counting_account account = COUNTING_ACCOUNT;
  struct nx_record record = sample();
  struct nx_buf out = {.account = &account.as_account};
  account.limit = HEAD_BYTES;
  nx_record_encode(&record, &out);
  assert_true(out.failed);
  nx_buf_deinit(&out);
  assert_int_equal(account.charged, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_encoded_is_decoded),
    cmocka_unit_test(empty_sections_are_allowed),
    cmocka_unit_test(encoding_appends),
    cmocka_unit_test(every_truncation_is_refused),
    cmocka_unit_test(other_versions_are_named),
    cmocka_unit_test(damaged_records_are_harmless),
    cmocka_unit_test(without_memory_encoding_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
