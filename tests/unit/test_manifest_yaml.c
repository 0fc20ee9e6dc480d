/* SPDX-License-Identifier: Apache-2.0
 * YAML as a tree: types, positions, and texts that mean harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "manifest/yaml.h"

static struct nx_yaml_set parse(const char *text) {
  struct nx_yaml_set set;
  struct nx_error err = {0};
  if (nx_yaml_parse(&set, "f.yaml", text, strlen(text), &err)) fail_msg("%s", err.text);
  return set;
}

static void refuses_bytes(const char *text, size_t bytes, const char *message) {
  struct nx_yaml_set set;
  struct nx_error err = {0};
  assert_true(nx_yaml_parse(&set, "f.yaml", text, bytes, &err) < 0);
  if (!strstr(err.text, message)) fail_msg("\"%s\" is not in \"%s\"", message, err.text);
  assert_null(set.documents);
  assert_int_equal(set.count, 0);
}

static void refuses(const char *text, const char *message) { refuses_bytes(text, strlen(text), message); }

static void documents(void **state) {
  struct nx_yaml_set set = parse("# nothing\n---\n---\na: 1\n---\n# still nothing\n---\n- x\n- {y: z}\n...\n");
  assert_int_equal(set.count, 2);
  assert_int_equal(set.documents[0]->type, NX_YAML_MAP);
  const struct nx_yaml *a = nx_yaml_find(set.documents[0], "a");
  assert_string_equal(a->text, "1");
  assert_int_equal(a->line, 4);
  assert_int_equal(a->column, 4);
  assert_null(nx_yaml_find(set.documents[0], "b"));
  assert_int_equal(set.documents[1]->count, 2);
  assert_string_equal(nx_yaml_find(set.documents[1]->items[1], "y")->text, "z");
  nx_yaml_deinit(&set);
  set = parse("");
  assert_int_equal(set.count, 0);
  nx_yaml_deinit(&set);
  set = parse("\xef\xbb\xbf{\"json\": [true, null, 1.5, \"s\"]}");
  assert_int_equal(nx_yaml_find(set.documents[0], "json")->count, 4);
  nx_yaml_deinit(&set);
}

static void types(void **state) {
  static const struct { const char *text; enum nx_yaml_type type; } cases[] = {
    {"~", NX_YAML_NULL}, {"null", NX_YAML_NULL}, {"\"\"", NX_YAML_STRING}, {"'1'", NX_YAML_STRING}, {"!!str 1", NX_YAML_STRING},
    {"true", NX_YAML_BOOL}, {"yes", NX_YAML_BOOL}, {"Off", NX_YAML_BOOL}, {"y", NX_YAML_BOOL}, {"tRue", NX_YAML_STRING},
    {"0", NX_YAML_NUMBER}, {"-12", NX_YAML_NUMBER}, {"1_000", NX_YAML_NUMBER}, {"0x1F", NX_YAML_NUMBER}, {"0o17", NX_YAML_NUMBER},
    {"0b101", NX_YAML_NUMBER}, {"1.5", NX_YAML_NUMBER}, {".5", NX_YAML_NUMBER}, {"1e9", NX_YAML_NUMBER}, {"1.e+9", NX_YAML_NUMBER},
    {"-.inf", NX_YAML_NUMBER}, {".nan", NX_YAML_NUMBER}, {"0x", NX_YAML_STRING}, {"0", NX_YAML_NUMBER}, {"1e", NX_YAML_STRING},
    {"_1", NX_YAML_STRING}, {"1.2.3", NX_YAML_STRING}, {"256Mi", NX_YAML_STRING}, {"-", NX_YAML_LIST}, {"0.0.0.0", NX_YAML_STRING},
    {"|\n  1\n", NX_YAML_STRING}, {"[]", NX_YAML_LIST}, {"{}", NX_YAML_MAP}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[80];
    snprintf(text, sizeof text, cases[i].text[0] == '-' && !cases[i].text[1] ? "a:\n  %s" : "a: %s", cases[i].text);
    struct nx_yaml_set set = parse(text);
    assert_int_equal(set.documents[0]->pairs[0].value->type, cases[i].type);
    if (cases[i].type == NX_YAML_NULL) assert_null(nx_yaml_find(set.documents[0], "a"));
    nx_yaml_deinit(&set);
  }
}

static void aliases_are_not_copies(void **state) {
  struct nx_yaml_set set = parse("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n");
  const struct nx_yaml *a = nx_yaml_find(set.documents[0], "a");
  assert_ptr_equal(nx_yaml_find(set.documents[0], "c"), a);
  assert_ptr_equal(nx_yaml_find(set.documents[0], "d")->items[1], a);
  nx_yaml_deinit(&set);
}

static void what_is_refused(void **state) {
  refuses("a: 1\na: 2\n", "f.yaml:2:1: the same key a second time");
  refuses("a: {b: 1, c: 2, b: 3}\n", "f.yaml:1:17: the same key");
  refuses("a: *b\n", "f.yaml:1:4: an alias");
  refuses("a: &b 1\n---\na: *b\n", "f.yaml:3:4: an alias");
  refuses("a: &b [*b]\n", "f.yaml:1:8: an alias");
  refuses("x: &x {a: 1}\ny:\n  <<: *x\n", "f.yaml:3:3: merge keys");
  refuses("[1]: 2\n", "f.yaml:1:1: expected a key");
  refuses("{a: 1}: 2\n", "f.yaml:1:1: expected a key");
  refuses("a: !!int \"1\"\n", "f.yaml:1:4: tags");
  refuses("a: !mine {}\n", "f.yaml:1:4: tags");
  refuses("a: \"x\\0y\"\n", "f.yaml:1:4: a string with a NUL");
  refuses("a: [1, 2\n", "f.yaml:2:1: ");
  refuses("a: b: c\n", "f.yaml:1:5: ");
  refuses("a:\n\t- b\n", "f.yaml:2:1: ");
  refuses("%YAML 7.1\n---\na: 1\n", "f.yaml:1:");
  refuses("\"a", "f.yaml:");
  refuses_bytes("a: \0b\n", 6, "f.yaml: byte 3: ");
  refuses_bytes("\xff\xfe" "a\0:\0 \0b\0", 10, "f.yaml: byte 0: ");
  refuses("a: \xc3\x28\n", "f.yaml: byte 4: ");
  refuses("\x7f" "ELF\x02\x01\x01", "f.yaml: byte 0: ");
}

/* `open` so many times, `middle`, `close` as many. */
static struct nx_buf nest(unsigned levels, const char *open, const char *middle, const char *close) {
  struct nx_buf text = {0};
  for (unsigned i = 0; i < levels; i++) nx_buf_str(&text, open);
  nx_buf_str(&text, middle);
  for (unsigned i = 0; i < levels; i++) nx_buf_str(&text, close);
  assert_false(text.failed);
  return text;
}

static void nests(unsigned levels, const char *open, const char *close, const char *message) {
  NX_BUF_AUTO text = nest(levels, open, "", close);
  struct nx_yaml_set set;
  if (message) {
    refuses_bytes(text.data, text.len, message);
  } else {
    assert_int_equal(nx_yaml_parse(&set, "f.yaml", text.data, text.len, NULL), 0);
    nx_yaml_deinit(&set);
  }
}

static void depth_is_bounded(void **state) {
  nests(NX_YAML_DEPTH_MAX, "[", "]", NULL);
  nests(NX_YAML_DEPTH_MAX + 1, "[", "]", "nested too deeply");
  nests(8u << 20, "[", "]", "nested too deeply");
  nests(3u << 20, "{a: ", "", "nested too deeply");
  nests(5u << 20, "- ", "", "nested too deeply");
  nests(5u << 20, "? ", "", "nested too deeply");
}

static void size_is_bounded(void **state) {
  char *text = malloc(NX_YAML_TEXT_MAX + 1);
  assert_non_null(text);
  memset(text, '#', NX_YAML_TEXT_MAX + 1);
  refuses_bytes(text, NX_YAML_TEXT_MAX + 1, "more than 16 MiB");
  for (size_t i = 0; i < NX_YAML_TEXT_MAX; i += 4) memcpy(text + i, "- a\n", 4); /* values */
  refuses_bytes(text, NX_YAML_TEXT_MAX, "more values than");
  memset(text, 'x', NX_YAML_TEXT_MAX); /* one scalar */
  struct nx_yaml_set set;
  assert_int_equal(nx_yaml_parse(&set, "f.yaml", text, NX_YAML_TEXT_MAX, NULL), 0);
  nx_yaml_deinit(&set);
  for (size_t i = 0; i < NX_YAML_TEXT_MAX; i++) text[i] = "\"\\x41"[i ? 1 + (i - 1) % 4 : 0]; /* escapes, never closed */
  refuses_bytes(text, NX_YAML_TEXT_MAX, "f.yaml:");
  free(text);
}

static void many(const char *one, unsigned count, const char *message) {
  NX_BUF_AUTO text = {0};
  for (unsigned i = 0; i < count; i++) nx_buf_printf(&text, one, i);
  assert_false(text.failed);
  refuses_bytes(text.data, text.len, message);
}

static void bombs(void **state) {
  many("- &a%u x\n", NX_YAML_ALIASES_MAX + 1, "too many anchors");
  many("%%TAG !a%u! b\n", 500000, "too many %TAG");
  NX_BUF_AUTO text = {0}; /* the billion laughs: nine levels of nine aliases are 81 pointers */
  nx_buf_lit(&text, "a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
  for (unsigned i = 1; i < 30; i++) {
    nx_buf_printf(&text, "a%u: &a%u [*a%u", i, i, i - 1);
    for (unsigned j = 1; j < 9; j++) nx_buf_printf(&text, ", *a%u", i - 1);
    nx_buf_lit(&text, "]\n");
  }
  struct nx_yaml_set set;
  assert_int_equal(nx_yaml_parse(&set, "f.yaml", text.data, text.len, NULL), 0);
  assert_int_equal(nx_yaml_find(set.documents[0], "a29")->count, 9);
  nx_yaml_deinit(&set);
  nx_buf_reset(&text, 0);
  nx_buf_lit(&text, "a: &a x\nb:\n");
  for (unsigned i = 0; i <= NX_YAML_ALIASES_MAX; i++) nx_buf_lit(&text, "- *a\n");
  refuses_bytes(text.data, text.len, "too many aliases");
}

/* Keys that differ late, in one map: sorted, not compared each with each. */
static void a_map_of_many_keys(void **state) {
  NX_BUF_AUTO text = {0};
  for (unsigned i = 0; i < 100000; i++) nx_buf_printf(&text, "key-%u: v\n", i * 7 % 100000);
  struct nx_yaml_set set;
  assert_int_equal(nx_yaml_parse(&set, "f.yaml", text.data, text.len, NULL), 0);
  assert_non_null(nx_yaml_find(set.documents[0], "key-99999"));
  nx_yaml_deinit(&set);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(documents),       cmocka_unit_test(types),           cmocka_unit_test(aliases_are_not_copies),
    cmocka_unit_test(what_is_refused), cmocka_unit_test(depth_is_bounded), cmocka_unit_test(size_is_bounded),
    cmocka_unit_test(bombs),           cmocka_unit_test(a_map_of_many_keys)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
