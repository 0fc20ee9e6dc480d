/* SPDX-License-Identifier: Apache-2.0
 * Access tokens: texts of AUTH_TOKENS_FILE, right and wrong, and what is found in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "access/tokens.h"
#include "base/buf.h"

/* SHA-256 of "one" and of "two". */
#define ONE "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
#define TWO "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
#define ONE_UPPER "sha256:7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED"
#define TENANT_64 "0123456789012345678901234567890123456789012345678901234567890123"

static struct nx_tokens *parse(const char *text) {
  struct nx_tokens *tokens = NULL;
  struct nx_error err = {0};
  if (nx_tokens_parse(&tokens, text, strlen(text), &err)) fail_msg("%s\n%s", text, err.text);
  return tokens;
}

static unsigned scopes_of(const struct nx_tokens *tokens, const char *token) {
  struct nx_grantee grantee = {.scopes = 99};
  bool found = nx_tokens_find(tokens, token, strlen(token), &grantee);
  assert_true(found || grantee.scopes == 99);
  return found ? grantee.scopes : 0;
}

static struct nx_tenant tenant_of(const struct nx_tokens *tokens, const char *token) {
  struct nx_grantee grantee;
  assert_true(nx_tokens_find(tokens, token, strlen(token), &grantee));
  return grantee.tenant;
}

static void every_right_text_is_read(void **state) {
  (void)state;
  static const struct {
    const char *text;
    size_t count;
    unsigned one, two;
  } cases[] = {
    {"acme execute " ONE, 1, NX_SCOPE_EXECUTE, 0},
    {"acme execute " ONE "\n", 1, NX_SCOPE_EXECUTE, 0},
    {"acme execute " ONE "\r\nother read " TWO "\r\n", 2, NX_SCOPE_EXECUTE, NX_SCOPE_READ},
    {"# a comment, \xc3\xbc and all\n\n \t \nacme\t read,resume \t" ONE " \t\n  # another\n", 1, NX_SCOPE_READ | NX_SCOPE_RESUME, 0},
    {"acme execute,handlers,resume,read " ONE "\nacme read " TWO, 2, 15, NX_SCOPE_READ},
    {"a.c-m_e9 read,read " ONE_UPPER, 1, NX_SCOPE_READ, 0},
    {TENANT_64 " handlers " TWO, 1, 0, NX_SCOPE_HANDLERS},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_tokens *tokens = parse(cases[i].text);
    assert_int_equal(nx_tokens_count(tokens), cases[i].count);
    assert_int_equal(scopes_of(tokens, "one"), cases[i].one);
    assert_int_equal(scopes_of(tokens, "two"), cases[i].two);
    assert_int_equal(scopes_of(tokens, "three"), 0);
    assert_int_equal(scopes_of(tokens, ""), 0);
    assert_int_equal(scopes_of(tokens, "one "), 0);
    nx_tokens_destroy(tokens);
  }
}

static const char expected_tenant[] = "TENANT: expected 1 to 64 letters, digits, '_', '-' or '.'";
static const char expected_scopes[] = "SCOPES: expected some of execute, handlers, resume, read, with commas and no blanks between";
static const char expected_hash[] = "HASH: expected sha256: and 64 hexadecimal digits";

static void check_refused(const char *text, size_t bytes, unsigned line, const char *why) {
  struct nx_tokens *tokens = NULL;
  struct nx_error err = {0};
  char place[20] = "", expected[sizeof err.text];
  if (line) snprintf(place, sizeof place, "line %u: ", line);
  snprintf(expected, sizeof expected, "%s%s", place, why);
  assert_int_equal(nx_tokens_parse(&tokens, text, bytes, &err), -NX_ERR_INVALID);
  assert_null(tokens);
  assert_string_equal(err.text, expected);
}

static void errors_name_the_line_and_what_was_expected(void **state) {
  (void)state;
  static const struct {
    const char *text;
    unsigned line;
    const char *why;
  } cases[] = {
    {"", 0, "no token in it: expected lines TENANT SCOPES HASH"},
    {"# nothing\n\n", 0, "no token in it: expected lines TENANT SCOPES HASH"},
    {"acme", 1, expected_scopes},
    {"acme execute", 1, expected_hash},
    {"acme execute " ONE " more", 1, "expected the end of the line after TENANT SCOPES HASH"},
    {"acme execute " ONE " # no comment here", 1, "expected the end of the line after TENANT SCOPES HASH"},
    {"\xef\xbb\xbf" "acme execute " ONE, 1, expected_tenant},
    {"ac/me execute " ONE, 1, expected_tenant},
    {"\xc3\xa4 execute " ONE, 1, expected_tenant},
    {TENANT_64 "x execute " ONE, 1, expected_tenant},
    {"acme Execute " ONE, 1, expected_scopes},
    {"acme execute, " ONE, 1, expected_scopes},
    {"acme ,execute " ONE, 1, expected_scopes},
    {"acme execute,,read " ONE, 1, expected_scopes},
    {"acme execute,admin " ONE, 1, expected_scopes},
    {"acme executed " ONE, 1, expected_scopes},
    {"acme * " ONE, 1, expected_scopes},
    {"acme execute, read " ONE, 1, expected_scopes},
    {"acme execute SHA256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", 1, expected_hash},
    {"acme execute 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", 1, expected_hash},
    {"acme execute sha256:7692c3ad", 1, expected_hash},
    {"acme execute " ONE "0", 1, expected_hash},
    {"acme execute " ONE "00", 1, expected_hash},
    {"acme execute sha256:z692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", 1, expected_hash},
    {"acme execute sha256: 692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", 1, expected_hash},
    {"\n# x\nacme execute " ONE "\nother read " ONE, 4, "HASH is that of line 3: a token has one line"},
    {"acme execute " ONE "\nacme read " ONE_UPPER, 2, "HASH is that of line 1: a token has one line"},
    {"acme execute\v" ONE, 1, "expected text, and not control characters"},
    {"acme execute " ONE "\r\r\n", 1, "expected text, and not control characters"},
    {"acme\rexecute " ONE "\n", 1, "expected text, and not control characters"},
    {"# \x1b[2J\nacme execute " ONE, 1, "expected text, and not control characters"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    check_refused(cases[i].text, strlen(cases[i].text), cases[i].line, cases[i].why);
  static const char nul[] = "acme execute " ONE "\0\n";
  check_refused(nul, sizeof nul - 1, 1, "expected text, and not control characters");
}

/* Somebody may put the token itself where something else belongs. */
static void errors_repeat_nothing(void **state) {
  (void)state;
  static const char *const texts[] = {"SESAME execute " ONE " SESAME", "acme SESAME " ONE, "acme execute SESAME", "SESAME",
                                      "SESAME! execute " ONE, "acme execute " ONE "SESAME"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct nx_tokens *tokens = NULL;
    struct nx_error err = {0};
    assert_int_equal(nx_tokens_parse(&tokens, texts[i], strlen(texts[i]), &err), -NX_ERR_INVALID);
    assert_null(strstr(err.text, "SESAME"));
    assert_null(strstr(err.text, "7692"));
  }
}

static void add_token(struct nx_buf *text, unsigned number) {
  nx_buf_printf(text, "t%u read sha256:%064x\n", number % 7, number);
}

static void sizes_are_bounded(void **state) {
  (void)state;
  NX_BUF_AUTO text = {0};
  for (unsigned i = 0; i < NX_TOKENS_MAX; i++) add_token(&text, i);
  struct nx_tokens *tokens = NULL;
  assert_int_equal(nx_tokens_parse(&tokens, text.data, text.len, NULL), 0);
  assert_int_equal(nx_tokens_count(tokens), NX_TOKENS_MAX);
  nx_tokens_destroy(tokens);
  add_token(&text, NX_TOKENS_MAX);
  check_refused(text.data, text.len, NX_TOKENS_MAX + 1, "more than 1000 tokens");

  nx_buf_reset(&text, SIZE_MAX);
  nx_buf_lit(&text, "acme read " ONE "\n#");
  while (text.len < sizeof "acme read " ONE + NX_TOKENS_MAX_LINE_BYTES) nx_buf_char(&text, 'x');
  assert_int_equal(nx_tokens_parse(&tokens, text.data, text.len, NULL), 0);
  nx_tokens_destroy(tokens);
  nx_buf_char(&text, 'x');
  check_refused(text.data, text.len, 2, "longer than 512 bytes");

  nx_buf_reset(&text, SIZE_MAX);
  nx_buf_lit(&text, "acme read " ONE "\n");
  while (text.len < NX_TOKENS_MAX_BYTES) nx_buf_char(&text, '\n');
  assert_int_equal(nx_tokens_parse(&tokens, text.data, text.len, NULL), 0);
  nx_tokens_destroy(tokens);
  nx_buf_char(&text, '\n');
  check_refused(text.data, text.len, 0, "larger than 256 KiB");
  nx_buf_reset(&text, SIZE_MAX);
  while (text.len < NX_TOKENS_MAX_BYTES) nx_buf_char(&text, 'x');
  check_refused(text.data, text.len, 1, "longer than 512 bytes");
}

static void tokens_of_one_tenant_are_one_tenant(void **state) {
  (void)state;
  struct nx_tokens *tokens = parse("acme execute " ONE "\nacme resume " TWO "\n");
  struct nx_tenant one = tenant_of(tokens, "one"), two = tenant_of(tokens, "two");
  struct nx_tenant named = nx_tenant_of_name("acme", 4), other = nx_tenant_of_name("Acme", 4), nobody = {0};
  assert_memory_equal(&one, &two, sizeof one);
  assert_memory_equal(&one, &named, sizeof one);
  nx_tokens_destroy(tokens);
  assert_true(nx_tenant_may(&one, &two) && nx_tenant_may(&nobody, &one) && nx_tenant_may(&one, &nobody));
  assert_false(nx_tenant_may(&one, &other) || nx_tenant_may(&other, &one));
  assert_true(nx_tenant_is_nobody(&nobody) && !nx_tenant_is_nobody(&one));
}

/* Written to stores: the same name must be the same tenant for every version and replica. */
static void a_tenant_is_the_blake2b_of_its_name(void **state) {
  (void)state;
  char hex[33];
  struct nx_tenant acme = nx_tenant_of_name("acme", 4);
  sodium_bin2hex(hex, sizeof hex, acme.bytes, sizeof acme.bytes);
  assert_string_equal(hex, "bded55e7ce1c08f27738f8c77ec971e3");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_right_text_is_read),
    cmocka_unit_test(errors_name_the_line_and_what_was_expected),
    cmocka_unit_test(errors_repeat_nothing),
    cmocka_unit_test(sizes_are_bounded),
    cmocka_unit_test(tokens_of_one_tenant_are_one_tenant),
    cmocka_unit_test(a_tenant_is_the_blake2b_of_its_name),
  };
  return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
