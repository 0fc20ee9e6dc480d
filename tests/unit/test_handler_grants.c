/* SPDX-License-Identifier: Apache-2.0
 * Grants: reading, refusing and writing them. */
#include "handler_support.h"

#include "handler/grants.h"

static int parse(struct nx_grants **out, const char *json, struct nx_error *err) {
  return nx_grants_parse(out, json, strlen(json), err);
}

static void every_field_is_read_and_written_back(void **state) {
  (void)state;
  static const char *const texts[] = {
    "{}",
    "{\"timeoutMs\":1}",
    "{\"memoryLimitMb\":1024}",
    "{\"capabilities\":[],\"timeoutMs\":86400000}",
    "{\"capabilities\":[\"state:read:*\",\"ext:http\"],\"extensions\":{\"http\":[\"get\"]},\"timeoutMs\":250,"
    "\"memoryLimitMb\":8}",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct nx_grants *grants = NULL;
    struct nx_error err = {0};
    if (parse(&grants, texts[i], &err)) fail_msg("%s: %s", texts[i], err.text);
    NX_BUF_AUTO out = {0};
    nx_grants_write(grants, &out);
    assert_text(&out, texts[i]);
    nx_grants_release(grants);
  }
  struct nx_grants *grants = NULL;
  assert_int_equal(parse(&grants, texts[4], NULL), 0);
  assert_int_equal(grants->timeout_ms, 250);
  assert_int_equal(grants->memory_limit_mb, 8);
  assert_true(nx_capability_allows(&grants->capabilities, NX_CAP_STATE_READ, "x", 1));
  assert_ptr_equal(nx_grants_hold(grants), grants);
  nx_grants_release(grants);
  nx_grants_release(grants);
  nx_grants_release(NULL);
  assert_null(nx_grants_hold(NULL));
  assert_int_equal(parse(&grants, "{\"timeoutMs\":5.0}", NULL), 0);
  assert_int_equal(grants->timeout_ms, 5);
  nx_grants_release(grants);
}

static void errors_name_the_field(void **state) {
  (void)state;
  static const struct { const char *json, *text; } cases[] = {
    {"", "grants are not JSON"},
    {"{", "grants are not JSON"},
    {"{} x", "grants are not JSON"},
    {"{\"timeoutMs\":1,}", "grants are not JSON"},
    {"\xef\xbb\xbf{}", "grants are not JSON"},
    {"[]", "grants must be a JSON object"},
    {"null", "grants must be a JSON object"},
    {"{\"timeout\":1}", "unknown field 'timeout'"},
    {"{\"timeoutms\":1}", "unknown field 'timeoutms'"},
    {"{\"timeoutMs\\u0000\":1}", "unknown field 'timeoutMs'"},
    {"{\"timeoutMs\":1,\"timeoutMs\":2}", "timeoutMs: is given twice"},
    {"{\"timeoutMs\":0}", "timeoutMs: must be a whole number from 1 to 86400000"},
    {"{\"timeoutMs\":-5}", "timeoutMs: must be a whole number"},
    {"{\"timeoutMs\":1.5}", "timeoutMs: must be a whole number"},
    {"{\"timeoutMs\":\"5\"}", "timeoutMs: must be a whole number"},
    {"{\"timeoutMs\":null}", "timeoutMs: must be a whole number"},
    {"{\"timeoutMs\":18446744073709551617}", "timeoutMs: must be a whole number"},
    {"{\"memoryLimitMb\":1025}", "memoryLimitMb: must be a whole number from 1 to 1024"},
    {"{\"capabilities\":\"ext:a\"}", "capabilities: must be a list of strings"},
    {"{\"capabilities\":[\"ext:a\",\"nope\"]}", "capabilities[1]: 'nope' is not a capability"},
    {"{\"extensions\":{\"a\":[1]}}", "extensions.a[0]: must be a string"},
    {"{\"capabilities\":[\"ext:a\"],\"extensions\":7}", "extensions: must be an object"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_grants *grants = NULL;
    struct nx_error err = {0};
    assert_int_equal(parse(&grants, cases[i].json, &err), -NX_ERR_INVALID);
    if (strncmp(err.text, cases[i].text, strlen(cases[i].text)))
      fail_msg("%s: got \"%s\", expected \"%s\"", cases[i].json, err.text, cases[i].text);
    assert_null(grants);
  }
}

static void size_is_bounded(void **state) {
  (void)state;
  char *text = malloc(NX_GRANTS_MAX_BYTES + 1);
  memset(text, ' ', NX_GRANTS_MAX_BYTES + 1);
  memcpy(text, "{}", 2);
  struct nx_grants *grants = NULL;
  struct nx_error err = {0};
  assert_int_equal(nx_grants_parse(&grants, text, NX_GRANTS_MAX_BYTES + 1, &err), -NX_ERR_TOO_LARGE);
  assert_int_equal(nx_grants_parse(&grants, text, NX_GRANTS_MAX_BYTES, &err), 0);
  nx_grants_release(grants);
  memset(text, '[', NX_GRANTS_MAX_BYTES);
  assert_int_equal(nx_grants_parse(&grants, text, NX_GRANTS_MAX_BYTES, &err), -NX_ERR_INVALID);
  free(text);
}

/* Every truncation and every changed byte of a good text: a clean answer, and what is taken is written as valid. */
static void mutations(void **state) {
  (void)state;
  const char *good =
    "{\"capabilities\":[\"state:read:*\",\"ext:h\"],\"extensions\":{\"h\":[\"g\",\"*\"]},\"timeoutMs\":9}";
  size_t n = strlen(good);
  char *text = malloc(n);
  unsigned taken = 0;
  for (size_t cut = 0; cut <= n; cut++) {
    struct nx_grants *grants = NULL;
    memcpy(text, good, cut);
    char *exact = malloc(cut ? cut : 1); /* so that ASan sees a read past the end */
    memcpy(exact, good, cut);
    if (!nx_grants_parse(&grants, exact, cut, NULL)) assert_int_equal(cut, n);
    nx_grants_release(grants);
    free(exact);
  }
  for (size_t at = 0; at < n; at++) {
    for (int byte = 0; byte < 256; byte++) {
      struct nx_grants *grants = NULL, *again = NULL;
      memcpy(text, good, n);
      text[at] = (char)byte;
      if (nx_grants_parse(&grants, text, n, NULL)) continue;
      NX_BUF_AUTO out = {0};
      nx_grants_write(grants, &out);
      assert_int_equal(nx_grants_parse(&again, out.data, out.len, NULL), 0);
      nx_grants_release(grants);
      nx_grants_release(again);
      taken++;
    }
  }
  assert_true(taken > n); /* the unchanged text once per byte, at the least */
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_field_is_read_and_written_back),
    cmocka_unit_test(errors_name_the_field),
    cmocka_unit_test(size_is_bounded),
    cmocka_unit_test(mutations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
