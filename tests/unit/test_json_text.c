/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <yyjson.h>

#include "base/json_text.h"

static bool valid(const char *text) { return nx_json_is_valid(text, strlen(text), NULL); }

static void accepts_json(void **state) {
  (void)state;
  static const char *const good[] = {
    "null", "true", "false", "0", "-0", "1e5", "1E+5", "-1.5e-3", "\"\"", "\"a\\u00e9\\n\"", "[]", "{}", " [ 1 , 2 ] ",
    "{\"a\":{\"b\":[{}]},\"c\":null}", "[[],[[]],{}]", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\t\r\n1\n",
    "\"\\ud800\"", "{\"\":0,\"\":1}",
  };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    if (!valid(good[i])) fail_msg("refused: %s", good[i]);
}

static void refuses_the_rest(void **state) {
  (void)state;
  static const char *const bad[] = {
    "", " ", "nul", "nullx", "True", "01", "1.", ".5", "+1", "1e", "--1", "0x10", "NaN", "Infinity", "'a'", "\"a", "\"\\x\"",
    "\"\\u12g4\"", "\"\\u12\"", "\"\n\"", "\"\x01\"", "[", "]", "[1", "[1,]", "[,1]", "[1 2]", "{", "{\"a\"}", "{\"a\":}",
    "{\"a\":1,}", "{a:1}", "{\"a\":1 \"b\":2}", "[1}", "{\"a\":1]", "1 2", "[]]", "// c\n1", "\"\xc3\"", "\"\xc0\xaf\"",
    "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\xef\xbb\xbf" "1", "\"\\", "tru",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (valid(bad[i])) fail_msg("accepted: %s", bad[i]);
  assert_false(nx_json_is_valid("1\0", 2, NULL));
}

static void says_where(void **state) {
  (void)state;
  struct nx_json_fault fault;
  assert_false(nx_json_is_valid("{\"a\": tru}", 10, &fault));
  assert_int_equal(fault.offset, 6);
  assert_non_null(fault.reason);
}

static void bounds_the_depth(void **state) {
  (void)state;
  char text[2 * NX_JSON_MAX_DEPTH + 4];
  memset(text, '[', NX_JSON_MAX_DEPTH + 1);
  memset(text + NX_JSON_MAX_DEPTH, ']', NX_JSON_MAX_DEPTH);
  assert_true(nx_json_is_valid(text, 2 * NX_JSON_MAX_DEPTH, NULL));
  memset(text, '[', NX_JSON_MAX_DEPTH + 1);
  memset(text + NX_JSON_MAX_DEPTH + 1, ']', NX_JSON_MAX_DEPTH + 1);
  struct nx_json_fault fault;
  assert_false(nx_json_is_valid(text, 2 * NX_JSON_MAX_DEPTH + 2, &fault));
  assert_string_equal(fault.reason, "nested too deep");
}

/* A second opinion: random texts from JSON's own alphabet, judged by yyjson. */
static void agrees_with_yyjson(void **state) {
  (void)state;
  static const char *const pieces[] = {"{", "}", "[", "]", ",", ":", "\"a\"", "\"\\n\"", "1", "-2.5e3", "true", "null", " ",
                                       "\"\xc3\xa9\"", "0", "\"", "\\"};
  srandom(7);
  for (int round = 0; round < 200000; round++) {
    char text[128] = "";
    for (long n = random() % 9; n >= 0; n--) strcat(text, pieces[(size_t)random() % (sizeof pieces / sizeof *pieces)]);
    yyjson_doc *doc = yyjson_read(text, strlen(text), YYJSON_READ_NUMBER_AS_RAW);
    if ((doc != NULL) != valid(text)) fail_msg("disagree about: %s", text);
    yyjson_doc_free(doc);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(accepts_json), cmocka_unit_test(refuses_the_rest), cmocka_unit_test(says_where),
    cmocka_unit_test(bounds_the_depth), cmocka_unit_test(agrees_with_yyjson),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
