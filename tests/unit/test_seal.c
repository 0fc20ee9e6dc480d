/* SPDX-License-Identifier: Apache-2.0
 * The seal: round trips, keys, and that nothing that was changed, cut or exchanged is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "counting_account.h"
#include "suspend/seal.h"

static const uint8_t key_a[NX_SEAL_KEY_BYTES] = {1, 2, 3}, key_b[NX_SEAL_KEY_BYTES] = {4, 5, 6};
static const uint8_t context[16] = "suspension one";
static struct nx_sealer sealer;

static int setup(void **state) {
  assert_true(sodium_init() >= 0);
  nx_sealer_init(&sealer, key_a, NULL);
  return 0;
}

static int teardown(void **state) {
  nx_sealer_deinit(&sealer);
  return 0;
}

static struct nx_buf seal(const void *plain, size_t bytes) {
  struct nx_buf out = {0};
  struct nx_error err;
  assert_int_equal(nx_seal(&sealer, context, sizeof context, plain, bytes, &out, &err), 0);
  assert_int_equal(out.len, bytes + NX_SEAL_OVERHEAD_BYTES);
  return out;
}

static int unseal(const void *sealed, size_t bytes, struct nx_buf *out, struct nx_error *err) {
  return nx_unseal(&sealer, context, sizeof context, sealed, bytes, out, err);
}

static void assert_refused(const void *sealed, size_t bytes, const char *why) {
  struct nx_buf out = {0};
  struct nx_error err = {0};
  nx_buf_lit(&out, "before");
  assert_int_equal(unseal(sealed, bytes, &out, &err), -NX_ERR_INVALID);
  assert_int_equal(out.len, 6);
  if (!strstr(err.text, why)) fail_msg("\"%s\" does not say \"%s\"", err.text, why);
  nx_buf_deinit(&out);
}

static void assert_round_trip(const void *plain, size_t bytes) {
  struct nx_buf sealed = seal(plain, bytes), out = {0};
  nx_buf_lit(&out, "before");
  assert_int_equal(unseal(sealed.data, sealed.len, &out, NULL), 0);
  assert_int_equal(out.len, bytes + 6);
  assert_memory_equal(out.data, "before", 6);
  if (bytes) assert_memory_equal(out.data + 6, plain, bytes);
  nx_buf_deinit(&out);
  nx_buf_deinit(&sealed);
}

static void what_was_sealed_is_unsealed(void **state) {
  static const size_t sizes[] = {1, 15, 16, 17, 63, 64, 65, 4096, 100001, 8 << 20};
  uint8_t *plain = malloc(8 << 20);
  assert_non_null(plain);
  for (size_t i = 0; i < 8 << 20; i++) plain[i] = (uint8_t)(i * 31 + (i >> 8));
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) assert_round_trip(plain, sizes[i]);
  free(plain);
  assert_round_trip(NULL, 0);
}

static void equal_texts_are_sealed_differently(void **state) {
  struct nx_buf one = seal("secret secret", 13), two = seal("secret secret", 13);
  assert_memory_not_equal(one.data + 9, two.data + 9, 24);
  assert_memory_not_equal(one.data + 33, two.data + 33, 13);
  assert_null(memmem(one.data, one.len, "secret", 6));
  nx_buf_deinit(&one);
  nx_buf_deinit(&two);
}

static void any_bit_that_changed_is_noticed(void **state) {
  struct nx_buf sealed = seal("a few bytes", 11);
  for (size_t bit = 0; bit < 8 * sealed.len; bit++) {
    sealed.data[bit / 8] ^= (char)(1 << bit % 8);
    assert_refused(sealed.data, sealed.len, bit < 8 ? "another version" : bit < 72 ? "unknown key" : "changed");
    sealed.data[bit / 8] ^= (char)(1 << bit % 8);
  }
  struct nx_buf out = {0};
  assert_int_equal(unseal(sealed.data, sealed.len, &out, NULL), 0);
  nx_buf_deinit(&out);
  nx_buf_deinit(&sealed);
}

static void what_was_cut_or_lengthened_is_noticed(void **state) {
  struct nx_buf sealed = seal("a few bytes", 11);
  for (size_t bytes = 0; bytes < sealed.len; bytes++)
    assert_refused(sealed.data, bytes, bytes < NX_SEAL_OVERHEAD_BYTES ? "too few" : "changed");
  nx_buf_char(&sealed, 0);
  assert_refused(sealed.data, sealed.len, "changed");
  assert_refused(sealed.data + 1, sealed.len - 1, "");
  nx_buf_deinit(&sealed);
}

static void it_is_not_accepted_in_another_context(void **state) {
  uint8_t others[16];
  struct nx_buf sealed = seal("a few bytes", 11), out = {0};
  for (size_t bit = 0; bit < 8 * sizeof others; bit++) {
    memcpy(others, context, sizeof others);
    others[bit / 8] ^= (uint8_t)(1 << bit % 8);
    int status = nx_unseal(&sealer, others, sizeof others, (uint8_t *)sealed.data, sealed.len, &out, NULL);
    assert_int_equal(status, -NX_ERR_INVALID);
  }
  int status = nx_unseal(&sealer, context, 15, (uint8_t *)sealed.data, sealed.len, &out, NULL);
  assert_int_equal(status, -NX_ERR_INVALID);
  status = nx_unseal(&sealer, NULL, 0, (uint8_t *)sealed.data, sealed.len, &out, NULL);
  assert_int_equal(status, -NX_ERR_INVALID);
  assert_int_equal(out.len, 0);
  nx_buf_deinit(&out);
  nx_buf_deinit(&sealed);
}

static void the_previous_key_is_accepted_until_it_is_dropped(void **state) {
  struct nx_buf old = seal("old", 3), out = {0};
  nx_sealer_init(&sealer, key_b, key_a);
  assert_int_equal(unseal(old.data, old.len, &out, NULL), 0);
  assert_memory_equal(out.data, "old", 3);
  struct nx_buf new = seal("new", 3); /* with the current one */
  nx_sealer_init(&sealer, key_b, NULL);
  assert_int_equal(unseal(new.data, new.len, &out, NULL), 0);
  assert_memory_equal(out.data, "oldnew", 6);
  assert_refused(old.data, old.len, "unknown key");
  nx_buf_deinit(&out);
  nx_buf_deinit(&old);
  nx_buf_deinit(&new);
}

static void lack_of_memory_is_an_error(void **state) {
  struct counting_account account = COUNTING_ACCOUNT;
  account.limit = 10;
  struct nx_buf sealed = seal("a few bytes", 11), starved = {.account = &account.as_account};
  struct nx_error err;
  assert_int_equal(unseal(sealed.data, sealed.len, &starved, &err), -NX_ERR_NO_MEMORY);
  nx_buf_deinit(&starved);
  int status = nx_seal(&sealer, context, sizeof context, (const uint8_t *)"x", 1, &starved, &err);
  assert_int_equal(status, -NX_ERR_NO_MEMORY);
  nx_buf_deinit(&starved);
  assert_int_equal(account.charged, 0);
  nx_buf_deinit(&sealed);
}

static void keys_are_wiped(void **state) {
  static const struct nx_sealer zero;
  nx_sealer_init(&sealer, key_a, key_b);
  assert_memory_not_equal(sealer.key_id, sealer.previous_id, sizeof sealer.key_id);
  nx_sealer_deinit(&sealer);
  assert_memory_equal(&sealer, &zero, sizeof zero);
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
  const struct CMUnitTest tests[] = {
    T(what_was_sealed_is_unsealed),
    T(equal_texts_are_sealed_differently),
    T(any_bit_that_changed_is_noticed),
    T(what_was_cut_or_lengthened_is_noticed),
    T(it_is_not_accepted_in_another_context),
    T(the_previous_key_is_accepted_until_it_is_dropped),
    T(lack_of_memory_is_an_error),
    T(keys_are_wiped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
