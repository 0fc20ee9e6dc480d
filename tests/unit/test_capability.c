/* SPDX-License-Identifier: Apache-2.0
 * Capability tokens, extension maps and the rights that follow from them. */
#include "handler_support.h"

#include <yyjson.h>

#include "base/clock.h"
#include "handler/capability.h"

/* Parses {"capabilities": …, "extensions": …}. */
static int parse(struct nx_capabilities *out, const char *json, struct nx_error *err) {
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  assert_non_null(doc);
  yyjson_val *root = yyjson_doc_get_root(doc);
  yyjson_val *tokens = yyjson_obj_get(root, "capabilities"), *extensions = yyjson_obj_get(root, "extensions");
  int status = nx_capabilities_parse(out, tokens, extensions, err);
  yyjson_doc_free(doc);
  return status;
}

static struct nx_capabilities set_of(const char *json) {
  struct nx_capabilities set = {0};
  struct nx_error err = {0};
  if (parse(&set, json, &err)) fail_msg("%s: %s", json, err.text);
  return set;
}

static bool allows(const struct nx_capabilities *set, enum nx_capability_kind kind, const char *name) {
  return nx_capability_allows(set, kind, name, strlen(name));
}

static bool method(const struct nx_capabilities *set, const char *extension, const char *name) {
  return nx_capability_names_method(set, extension, strlen(extension), name, strlen(name));
}

static void a_zero_set_allows_nothing(void **state) {
  (void)state;
  struct nx_capabilities set = {0};
  assert_false(allows(&set, NX_CAP_STATE_READ, "a"));
  assert_false(allows(&set, NX_CAP_EXT, ""));
  assert_false(method(&set, "http", "get"));
  nx_capabilities_deinit(&set);
  set = set_of("{\"capabilities\":[],\"extensions\":{}}");
  assert_true(set.has_tokens && set.has_extensions);
  assert_false(allows(&set, NX_CAP_STATE_READ, ""));
  nx_capabilities_deinit(&set);
}

static void tokens_match_exactly_or_by_prefix(void **state) {
  (void)state;
  struct nx_capabilities set = set_of(
    "{\"capabilities\":[\"state:read:cart\",\"state:read:user:*\",\"state:write:*\",\"events:emit:a\","
    "\"events:emit:ab\",\"view:update:list\",\"ext:http\",\"state:read:user:1\",\"state:read:cart\"]}");
  assert_true(allows(&set, NX_CAP_STATE_READ, "cart"));
  assert_false(allows(&set, NX_CAP_STATE_READ, "carts"));
  assert_false(allows(&set, NX_CAP_STATE_READ, "car"));
  assert_false(allows(&set, NX_CAP_STATE_READ, ""));
  assert_true(allows(&set, NX_CAP_STATE_READ, "user:"));
  assert_true(allows(&set, NX_CAP_STATE_READ, "user:1"));
  assert_true(allows(&set, NX_CAP_STATE_READ, "user:\xff\xff"));
  assert_false(allows(&set, NX_CAP_STATE_READ, "user"));
  assert_true(allows(&set, NX_CAP_STATE_WRITE, ""));
  assert_true(allows(&set, NX_CAP_STATE_WRITE, "anything"));
  assert_true(allows(&set, NX_CAP_EVENTS_EMIT, "a"));
  assert_true(allows(&set, NX_CAP_EVENTS_EMIT, "ab"));
  assert_false(allows(&set, NX_CAP_EVENTS_EMIT, "abc"));
  assert_false(allows(&set, NX_CAP_VIEW_UPDATE, "cart"));
  assert_true(allows(&set, NX_CAP_EXT, "http"));
  assert_false(nx_capability_allows(&set, NX_CAP_STATE_READ, "cart\0", 5));
  nx_capabilities_deinit(&set);
}

/* The sorted set must answer as a plain walk over the tokens would. */
static void agrees_with_a_plain_walk(void **state) {
  (void)state;
  srand(1);
  for (int round = 0; round < 2000; round++) {
    char tokens[24][8], json[1024] = "{\"capabilities\":[";
    int count = rand() % 24;
    for (int i = 0; i < count; i++) {
      int n = 1 + rand() % 4;
      for (int j = 0; j < n; j++) tokens[i][j] = (char)('a' + rand() % 2);
      if (rand() % 3 == 0) tokens[i][n - 1] = '*';
      tokens[i][n] = '\0';
      sprintf(json + strlen(json), "%s\"%s:%s\"", i ? "," : "", i % 5 ? "state:read" : "state:write", tokens[i]);
    }
    strcat(json, "]}");
    struct nx_capabilities set = set_of(json);
    for (int probe = 0; probe < 63; probe++) {
      char name[8] = "";
      for (int bits = probe + 1, n = 0; bits > 1; bits /= 2) name[n++] = (char)('a' + bits % 2);
      bool expected = false;
      for (int i = 0; i < count; i++) {
        size_t n = strlen(tokens[i]);
        bool pattern = tokens[i][n - 1] == '*';
        expected |= i % 5 && (pattern ? !strncmp(name, tokens[i], n - 1) : !strcmp(name, tokens[i]));
      }
      if (allows(&set, NX_CAP_STATE_READ, name) != expected) fail_msg("%s: '%s' expected %d", json, name, expected);
    }
    nx_capabilities_deinit(&set);
  }
}

static void errors_name_the_place(void **state) {
  (void)state;
  static const struct { const char *json, *text; } cases[] = {
    {"{\"capabilities\":{}}", "capabilities: must be a list of strings"},
    {"{\"capabilities\":null}", "capabilities: must be a list of strings"},
    {"{\"capabilities\":[\"ext:a\",1]}", "capabilities[1]: must be a string"},
    {"{\"capabilities\":[\"ext:a\",\"ext:b\",\"state:delete:x\"]}",
     "capabilities[2]: 'state:delete:x' is not a capability"},
    {"{\"capabilities\":[\"\"]}", "capabilities[0]: '' is not a capability"},
    {"{\"capabilities\":[\"*\"]}", "capabilities[0]: '*' is not a capability"},
    {"{\"capabilities\":[\"state:*\"]}", "capabilities[0]: 'state:*' is not a capability"},
    {"{\"capabilities\":[\"State:read:x\"]}", "capabilities[0]: 'State:read:x' is not a capability"},
    {"{\"capabilities\":[\" ext:x\"]}", "capabilities[0]: ' ext:x' is not a capability"},
    {"{\"capabilities\":[\"ext:\"]}", "capabilities[0]: 'ext:' names nothing"},
    {"{\"capabilities\":[\"state:read:a*b\"]}", "capabilities[0]: 'state:read:a*b' has a '*' that is not at its end"},
    {"{\"capabilities\":[\"state:read:**\"]}", "capabilities[0]: 'state:read:**' has a '*' that is not at its end"},
    {"{\"capabilities\":[\"x\\u0000\\n\\u007f\"]}", "capabilities[0]: 'x?\?\?' is not a capability"},
    {"{\"extensions\":[]}", "extensions: must be an object of method lists"},
    {"{\"extensions\":{\"http\":\"get\"}}", "extensions.http: must be a list of method names"},
    {"{\"extensions\":{\"http\":[\"get\",{}]}}", "extensions.http[1]: must be a string"},
    {"{\"extensions\":{\"http\":[\"\"]}}", "extensions.http[0]: '' names nothing"},
    {"{\"extensions\":{\"http\":[\"g*t\"]}}", "extensions.http[0]: 'g*t' has a '*' that is not at its end"},
    {"{\"extensions\":{\"\":[]}}", "extensions.: the name must have 1 to 256 bytes"},
    {"{\"extensions\":{\"*\":[\"*\"]}}", "extensions.*: only methods may have a '*'"},
    {"{\"extensions\":{\"a\\u0000b\":[]}}", "extensions.a?b: the name holds a NUL"},
    {"{\"extensions\":{\"a\":[],\"b\":[],\"a\":[]}}", "extensions.a: is given twice"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_capabilities set = {0};
    struct nx_error err = {0};
    assert_int_equal(parse(&set, cases[i].json, &err), -NX_ERR_INVALID);
    if (strncmp(err.text, cases[i].text, strlen(cases[i].text)))
      fail_msg("%s: got \"%s\", expected \"%s\"", cases[i].json, err.text, cases[i].text);
    assert_null(set._items);
  }
}

/* A list of `count` tokens, each `bytes` long. */
static char *list_of(const char *field, int count, size_t bytes) {
  char *json = malloc((size_t)count * (bytes + 3) + 64), *at = json + sprintf(json, "{\"%s\":[", field);
  for (int i = 0; i < count; i++) at += sprintf(at, "%s\"ext:%0*d\"", i ? "," : "", (int)bytes - 4, i);
  strcpy(at, "]}");
  return json;
}

static void bounds_hold(void **state) {
  (void)state;
  struct nx_error err = {0};
  struct nx_capabilities set = {0};
  char *json = list_of("capabilities", 256, 256);
  assert_int_equal(parse(&set, json, &err), 0);
  char name[300];
  for (int i = 0; i < 256; i++) {
    sprintf(name, "%0252d", i);
    assert_true(allows(&set, NX_CAP_EXT, name));
  }
  assert_false(allows(&set, NX_CAP_EXT, name + 1));
  nx_capabilities_deinit(&set);
  free(json);
  json = list_of("capabilities", 257, 8);
  assert_int_equal(parse(&set, json, &err), -NX_ERR_INVALID);
  assert_string_equal(err.text, "capabilities: 257 tokens are more than the 256 allowed");
  free(json);
  json = list_of("capabilities", 2, 257);
  assert_int_equal(parse(&set, json, &err), -NX_ERR_INVALID);
  assert_non_null(strstr(err.text, "capabilities[0]: 'ext:000"));
  assert_non_null(strstr(err.text, "...' is longer than 256 bytes"));
  free(json);
  struct nx_buf many = {0};
  nx_buf_str(&many, "{\"extensions\":{\"a\":[\"m\"");
  for (int i = 0; i < 256; i++) nx_buf_str(&many, ",\"m\"");
  nx_buf_str(&many, "]}}");
  nx_buf_char(&many, '\0');
  assert_int_equal(parse(&set, many.data, &err), -NX_ERR_INVALID);
  assert_string_equal(err.text, "extensions.a[256]: more than 256 methods in all");
  nx_buf_deinit(&many);
}

static void long_texts_are_cut_between_characters(void **state) {
  (void)state;
  struct nx_buf json = {0};
  nx_buf_str(&json, "{\"capabilities\":[\"x");
  for (int i = 0; i < 60; i++) nx_buf_str(&json, "\xe2\x82\xac");
  nx_buf_str(&json, "\"]}");
  nx_buf_char(&json, '\0');
  struct nx_capabilities set = {0};
  struct nx_error err = {0};
  assert_int_equal(parse(&set, json.data, &err), -NX_ERR_INVALID);
  assert_non_null(strstr(err.text, "\xe2\x82\xac...' is not"));
  nx_buf_deinit(&json);
}

static void extension_methods(void **state) {
  (void)state;
  struct nx_capabilities set =
    set_of("{\"extensions\":{\"http\":[\"get\",\"put*\"],\"all\":[\"*\"],\"none\":[],\"ht\":[\"x\"]}}");
  assert_true(method(&set, "http", "get"));
  assert_false(method(&set, "http", "getAll"));
  assert_true(method(&set, "http", "put"));
  assert_true(method(&set, "http", "putAll"));
  assert_true(method(&set, "all", "whatever"));
  assert_false(method(&set, "all", ""));
  assert_false(method(&set, "none", "x"));
  assert_false(method(&set, "", "get"));
  assert_false(method(&set, "al", "l"));
  assert_false(nx_capability_names_method(&set, "all\0x", 5, "y", 1));
  assert_false(nx_capability_names_method(&set, "al", 2, "l\0whatever", 10));
  char huge[600];
  memset(huge, 'm', sizeof huge);
  assert_false(nx_capability_names_method(&set, "all", 3, huge, sizeof huge));
  assert_false(nx_capability_names_method(&set, huge, sizeof huge, "x", 1));
  assert_true(nx_capability_names_method(&set, "all", 3, huge, 256));
  nx_capabilities_deinit(&set);
}

static void writes_what_it_was_given(void **state) {
  (void)state;
  static const char *const texts[] = {
    "{}",
    "{\"capabilities\":[]}",
    "{\"extensions\":{}}",
    "{\"capabilities\":[\"state:read:b\",\"state:read:*\",\"state:read:b\",\"ext:x*\"],\"extensions\":{}}",
    "{\"capabilities\":[\"view:update:\\\"q\\\\\\u0001\"],"
    "\"extensions\":{\"z\":[],\"a\":[\"*\",\"m\",\"n*\"],\"k\":[\"j\"]}}",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct nx_capabilities set = set_of(texts[i]);
    NX_BUF_AUTO out = {0};
    nx_buf_char(&out, '{');
    assert_int_equal(nx_capabilities_write(&set, &out), i > 0);
    nx_buf_char(&out, '}');
    assert_text(&out, texts[i]);
    nx_capabilities_deinit(&set);
  }
}

/* rights */

static bool right(const struct nx_capabilities *grants, const struct nx_capabilities *request, const char *name) {
  struct nx_rights rights = {.grants = grants, .request = request};
  return nx_rights_allow(&rights, NX_CAP_STATE_READ, name, strlen(name));
}

static bool right_method(const struct nx_capabilities *grants, const struct nx_capabilities *request,
                         const char *extension, const char *name) {
  struct nx_rights rights = {.grants = grants, .request = request};
  return nx_rights_allow_method(&rights, extension, strlen(extension), name, strlen(name));
}

static void rights_are_intersections(void **state) {
  (void)state;
  struct nx_capabilities ab = set_of("{\"capabilities\":[\"state:read:a\",\"state:read:b\"]}");
  struct nx_capabilities bc = set_of("{\"capabilities\":[\"state:read:b\",\"state:read:c\"]}");
  struct nx_capabilities empty = set_of("{\"capabilities\":[]}"), absent = {0};
  assert_false(right(NULL, NULL, "a"));                                 /* /run without grants */
  assert_true(right(&ab, NULL, "a"));                                   /* /run */
  assert_true(right(NULL, &ab, "a") && !right(NULL, &ab, "c"));         /* inline code */
  assert_true(right(&ab, &bc, "b"));
  assert_false(right(&ab, &bc, "a") || right(&ab, &bc, "c"));
  assert_true(right(&ab, &absent, "a") && !right(&ab, &absent, "c"));   /* the request names none */
  assert_false(right(&ab, &empty, "a"));                                /* … or names nothing */
  assert_false(right(&absent, &ab, "a") || right(&empty, &ab, "a"));    /* grants that grant nothing */
  assert_false(right(NULL, &absent, "a"));
  nx_capabilities_deinit(&ab);
  nx_capabilities_deinit(&bc);
  nx_capabilities_deinit(&empty);
}

static void methods_need_capability_and_map_in_each_set(void **state) {
  (void)state;
  struct nx_capabilities both = set_of("{\"capabilities\":[\"ext:http\"],\"extensions\":{\"http\":[\"get\",\"put\"]}}");
  struct nx_capabilities get =
    set_of("{\"capabilities\":[\"ext:*\"],\"extensions\":{\"http\":[\"get\"],\"x\":[\"*\"]}}");
  struct nx_capabilities token = set_of("{\"capabilities\":[\"ext:http\"]}");
  struct nx_capabilities map = set_of("{\"extensions\":{\"http\":[\"get\"]}}");
  assert_true(right_method(NULL, &both, "http", "put"));
  assert_false(right_method(NULL, &token, "http", "get")); /* no map */
  assert_false(right_method(NULL, &map, "http", "get"));   /* no capability */
  assert_true(right_method(&both, NULL, "http", "put"));
  assert_true(right_method(&both, &get, "http", "get"));
  assert_false(right_method(&both, &get, "http", "put"));
  assert_false(right_method(&both, &get, "x", "y"));
  assert_true(right_method(&both, &token, "http", "put")); /* the request leaves the map as granted */
  assert_true(right_method(&both, &map, "http", "get"));   /* … or the capabilities */
  assert_false(right_method(&both, &map, "http", "put"));
  assert_false(right_method(&token, &both, "http", "get"));
  struct nx_rights rights = {.request = &get};
  assert_true(nx_rights_allow_all(&rights, NX_CAP_EXT));
  assert_false(nx_rights_allow_all(&rights, NX_CAP_STATE_READ));
  rights.grants = &both;
  assert_false(nx_rights_allow_all(&rights, NX_CAP_EXT));
  nx_capabilities_deinit(&both);
  nx_capabilities_deinit(&get);
  nx_capabilities_deinit(&token);
  nx_capabilities_deinit(&map);
}

static void time_is_always_allowed(void **state) {
  (void)state;
  struct nx_capabilities empty = set_of("{\"capabilities\":[],\"extensions\":{}}");
  assert_true(right_method(NULL, NULL, "time", "sleep"));
  assert_true(right_method(&empty, &empty, "time", "anything"));
  struct nx_rights none = {0};
  assert_true(nx_rights_allow(&none, NX_CAP_EXT, "time", 4));
  assert_false(nx_rights_allow(&none, NX_CAP_STATE_READ, "time", 4));
  assert_false(right_method(NULL, NULL, "times", "x"));
  assert_false(right_method(NULL, NULL, "tim", "x"));
  nx_capabilities_deinit(&empty);
}

/* Any bytes that are JSON: parse never crashes, and what it takes it writes back the same. */
static void hostile_tokens(void **state) {
  (void)state;
  srand(2);
  static const char *const parts[] = {"state:read:", "state:", "read:", "ext:", "*", "a", ":", "\\u0000", "\xc3\xa9",
                                      "\\\"",
                                      "view:update:", "events:emit:"};
  for (int round = 0; round < 5000; round++) {
    NX_BUF_AUTO json = {0};
    nx_buf_str(&json, "{\"capabilities\":[");
    for (int i = 0, n = rand() % 5; i < n; i++) {
      nx_buf_str(&json, i ? ",\"" : "\"");
      for (int j = rand() % 4; j >= 0; j--) nx_buf_str(&json, parts[rand() % 12]);
      nx_buf_char(&json, '"');
    }
    nx_buf_str(&json, "]}");
    nx_buf_char(&json, '\0');
    struct nx_capabilities set = {0};
    if (parse(&set, json.data, NULL)) continue;
    NX_BUF_AUTO out = {0};
    nx_buf_char(&out, '{');
    nx_capabilities_write(&set, &out);
    nx_buf_char(&out, '}');
    assert_int_equal(out.len, json.len - 1);
    assert_memory_equal(out.data, json.data, out.len);
    nx_capabilities_deinit(&set);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_zero_set_allows_nothing),
    cmocka_unit_test(tokens_match_exactly_or_by_prefix),
    cmocka_unit_test(agrees_with_a_plain_walk),
    cmocka_unit_test(errors_name_the_place),
    cmocka_unit_test(bounds_hold),
    cmocka_unit_test(long_texts_are_cut_between_characters),
    cmocka_unit_test(extension_methods),
    cmocka_unit_test(writes_what_it_was_given),
    cmocka_unit_test(rights_are_intersections),
    cmocka_unit_test(methods_need_capability_and_map_in_each_set),
    cmocka_unit_test(time_is_always_allowed),
    cmocka_unit_test(hostile_tokens),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
