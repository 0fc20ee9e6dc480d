/* SPDX-License-Identifier: Apache-2.0
 * Kubernetes' quantities. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manifest/quantity.h"

#define KI UINT64_C(1024)

static void quantities(void **state) {
  static const struct { const char *text; unsigned scale; uint64_t value; } cases[] = {
    {"0", 1, 0}, {"1", 1, 1}, {"256Mi", 1, 256 * KI * KI}, {"1Gi", 1, KI * KI * KI}, {"0.5Gi", 1, KI * KI * KI / 2},
    {"1.5Ki", 1, 1536}, {"3Ti", 1, 3 * KI * KI * KI * KI}, {"2Pi", 1, 2 * KI * KI * KI * KI * KI}, {"1k", 1, 1000},
    {"128M", 1, 128000000}, {"1G", 1, 1000000000}, {"1T", 1, UINT64_C(1000000000000)}, {"1P", 1, UINT64_C(1000000000000000)},
    {"1e9", 1, 1000000000}, {"1E3", 1, 1000}, {"1.5e3", 1, 1500}, {"12e-1", 1, 2}, {"+5", 1, 5}, {".5Ki", 1, 512}, {"5.", 1, 5},
    {"128974848000m", 1, 128974848}, {"1m", 1, 1}, {"1n", 1, 1}, {"0m", 1, 0}, {"1e-9999", 1, 1}, {"0e9999", 1, 0},
    {"250m", 1000, 250}, {"0.5", 1000, 500}, {"1", 1000, 1000}, {"1.0005", 1000, 1001}, {"1u", 1000, 1}, {"2k", 1000, 2000000},
    {"0.1000000000000000000000", 1000, 100}, {"72057594037927935", 1, (UINT64_C(1) << 56) - 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint64_t value = 77;
    assert_true(nx_quantity_parse(cases[i].text, cases[i].scale, &value));
    assert_int_equal(value, cases[i].value);
  }
}

static void no_quantities(void **state) {
  static const char *const cases[] = {
    "", " ", "1 ", " 1", "-1", "1GB", "1gi", "1GI", "1MiB", "Mi", ".", ".Mi", "1..5", "1.5.5", "0x10", "1e", "1e+", "1e1.5", "1e5Mi",
    "1K", "1ki", "auto", "1_000", "1,5", "1Ei", "1E", "64Pi", "72057594037927936", "1e17", "1e9999",
    "99999999999999999999999999999999999999999999999999", "1e99999", "++1", "+-1", "\xc2\xb5"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint64_t value;
    assert_false(nx_quantity_parse(cases[i], 1, &value));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(quantities), cmocka_unit_test(no_quantities)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
