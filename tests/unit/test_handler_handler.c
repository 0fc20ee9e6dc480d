/* SPDX-License-Identifier: Apache-2.0
 * Handlers: names, hashes, life, and the snippet of a source line. */
#include "handler_support.h"

#include "base/json_text.h"

static void names(void **state) {
  (void)state;
  static const char *const good[] = {"a", "_", "9", "cart", "a.b-c_d", "A..", "x--"};
  static const char *const bad[] = {"", ".", "-a", ".hidden", "a/b", "a b", "a\n", "\xc3\xa9", "a*", "..", "a:b", "a%"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(nx_handler_name_valid(good[i], strlen(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(nx_handler_name_valid(bad[i], strlen(bad[i])));
  char name[130];
  memset(name, 'n', sizeof name);
  assert_true(nx_handler_name_valid(name, 128));
  assert_false(nx_handler_name_valid(name, 129));
  assert_false(nx_handler_name_valid("a\0b", 3));
  for (int c = 0; c < 256; c++) {
    char one[2] = {'a', (char)c};
    bool expected = c < 128 && c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-", c);
    assert_int_equal(nx_handler_name_valid(one, 2), expected);
  }
}

static void hashes_go_to_hex_and_back(void **state) {
  (void)state;
  uint8_t hash[NX_HASH_BYTES], again[NX_HASH_BYTES];
  char hex[2 * NX_HASH_BYTES + 1];
  nx_handler_hash_source(hash, "", 0);
  nx_hash_to_hex(hex, hash);
  assert_string_equal(hex, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"); /* BLAKE2b-256("") */
  assert_true(nx_hash_from_hex(again, hex, 64));
  assert_memory_equal(hash, again, NX_HASH_BYTES);
  hex[0] = 'F';
  assert_true(nx_hash_from_hex(again, hex, 64));
  assert_false(nx_hash_from_hex(again, hex, 63));
  assert_false(nx_hash_from_hex(again, hex, 65));
  hex[10] = 'g';
  assert_false(nx_hash_from_hex(again, hex, 64));
  hex[10] = '\0';
  assert_false(nx_hash_from_hex(again, hex, 64));
}

static void a_handler_keeps_its_source_and_counts_itself(void **state) {
  (void)state;
  size_t before = handler_account.charged;
  struct nx_image *image = make_image(1, 3);
  char source[] = "return\0 1";
  struct nx_handler *handler = NULL;
  assert_int_equal(nx_handler_create(&handler, source, sizeof source - 1, image, 42, NULL), 0);
  memset(source, 'x', sizeof source);
  assert_int_equal(handler->source_bytes, 9);
  assert_memory_equal(handler->source, "return\0 1", 10);
  assert_int_equal(handler->compile_time_us, 42);
  assert_true(handler->bytes >= nx_image_bytes(image) + 9);
  assert_int_equal(handler_account.charged, before + handler->bytes);
  nx_image_release(image); /* the handler holds it */
  assert_int_equal(handler->image->page_count, 3);
  assert_ptr_equal(nx_handler_hold(handler), handler);
  nx_handler_release(handler);
  nx_handler_release(handler);
  nx_handler_release(NULL);
  assert_int_equal(handler_account.charged, before);
}

/* snippet */

static void snippet(struct nx_buf *out, const char *source, uint32_t line, uint32_t column) {
  nx_buf_reset(out, 0);
  nx_handler_snippet(source, strlen(source), line, column, out);
}

static void snippets_of_short_lines(void **state) {
  (void)state;
  static const struct { const char *source; uint32_t line, column; const char *expected; } cases[] = {
    {"const a = b;", 1, 11, "1 | const a = b;\n  |           ^"},
    {"one\ntwo\nthree", 2, 1, "2 | two\n  | ^"},
    {"one\r\ntwo\r\nthree", 2, 3, "2 | two\n  |   ^"},
    {"one\rtwo", 2, 3, "2 | two\n  |   ^"},
    {"one\n\nthree", 2, 1, "2 | \n  | ^"},
    {"one\n", 2, 1, "2 | \n  | ^"},
    {"one", 2, 1, ""},
    {"one", 0, 1, ""},
    {"", 1, 1, "1 | \n  | ^"},
    {"one", 4000000000u, 1, ""},
    {"one", 1, 0, "1 | one"},
    {"one", 1, 99, "1 | one\n  |    ^"},
    {"one", 1, 4000000000u, "1 | one\n  |    ^"},
    {"\tif (x\t y", 1, 7, "1 | \tif (x\t y\n  | \t     ^"},
    {"\t\ta\tb", 1, 5, "1 | \t\ta\tb\n  | \t\t \t^"},
    {"\xe2\x82\xac + x", 1, 7, "1 | \xe2\x82\xac + x\n  |     ^"},    /* bytes to characters */
    {"\xe2\x82\xac + x", 1, 2, "1 | \xe2\x82\xac + x\n  | ^"},        /* inside a character */
    {"a\xff\xe2\x82", 1, 4, "1 | a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n  |    ^"},
    {"a\x1b[31m\x7f", 1, 3, "1 | a [31m \n  |   ^"},
    {"1\n2\n3\n4\n5\n6\n7\n8\n9\nten", 10, 2, "10 | ten\n   |  ^"},
  };
  NX_BUF_AUTO out = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    snippet(&out, cases[i].source, cases[i].line, cases[i].column);
    assert_text(&out, cases[i].expected);
  }
}

static void long_lines_are_cut_around_the_column(void **state) {
  (void)state;
  NX_BUF_AUTO out = {0};
  char source[1001];
  memset(source, 'x', 1000);
  source[1000] = '\0';
  for (uint32_t column = 1; column <= 1001; column++) {
    if (column <= 1000) source[column - 1] = '!';
    snippet(&out, source, 1, column);
    nx_buf_char(&out, '\0');
    char *second = strchr(out.data, '\n');
    assert_non_null(second);
    *second++ = '\0';
    assert_true(strlen(out.data) <= 4 + 100 + 6);
    char *caret = strchr(second, '^');
    assert_non_null(caret);
    assert_null(caret[1] ? caret : NULL);
    if (column <= 1000) {
      assert_int_equal(out.data[caret - second], '!');
      source[column - 1] = 'x';
    }
  }
  snippet(&out, source, 1, 1);
  assert_true(strstr(out.data, "...") != NULL);
  char wide[3001];
  for (int i = 0; i < 1000; i++) memcpy(wide + 3 * i, "\xe2\x82\xac", 3);
  wide[3000] = '\0';
  snippet(&out, wide, 1, 1500);
  for (size_t i = 0; i < out.len; i++)
    if ((out.data[i] & 0xf0) == 0xe0) assert_memory_equal(out.data + i, "\xe2\x82\xac", 3);
}

/* Any bytes, any place: valid UTF-8, bounded, never more than two lines. */
static void hostile_sources(void **state) {
  (void)state;
  srand(3);
  for (int round = 0; round < 20000; round++) {
    size_t n = (size_t)(rand() % 300);
    char *source = malloc(n ? n : 1);
    for (size_t i = 0; i < n; i++) source[i] = (char)(rand() % 6 ? rand() : "\n\r\t\xe2\xf0 "[rand() % 6]);
    NX_BUF_AUTO out = {0};
    nx_handler_snippet(source, n, (uint32_t)(rand() % 5), (uint32_t)(rand() % 320), &out);
    assert_false(out.failed);
    unsigned breaks = 0;
    for (size_t i = 0, sequence; i < out.len; i += sequence) {
      sequence = (unsigned char)out.data[i] < 0x80 ? 1 : nx_utf8_sequence(out.data + i, out.len - i);
      assert_true(sequence > 0);
      breaks += out.data[i] == '\n';
    }
    assert_true(breaks <= 1);
    assert_true(out.len < 2 * (16 + 4 * 110));
    free(source);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(names),
    cmocka_unit_test(hashes_go_to_hex_and_back),
    cmocka_unit_test(a_handler_keeps_its_source_and_counts_itself),
    cmocka_unit_test(snippets_of_short_lines),
    cmocka_unit_test(long_lines_are_cut_around_the_column),
    cmocka_unit_test(hostile_sources),
  };
  return cmocka_run_group_tests(tests, base_setup, base_teardown);
}
