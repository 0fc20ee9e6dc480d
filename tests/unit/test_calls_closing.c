/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void add(struct nx_calls *calls, uint32_t id, enum nx_call_kind kind, const char *args) {
  const struct nx_call call = {
    .id = id, .kind = kind, .extension = "x", .extension_bytes = 1, .method = "get", .method_bytes = 3, .args = args,
    .args_bytes = (uint32_t)strlen(args),
  };
  assert_true(nx_calls_add(calls, &call));
}

static void add_three(struct nx_calls *calls) {
  add(calls, 2, NX_CALL_CALLER, "[1]");
  add(calls, 5, NX_CALL_TIME, "[100]");
  add(calls, 9, NX_CALL_CALLER, "[]");
}

static void assert_open(const struct nx_calls *calls, const uint32_t *ids, size_t count) {
  struct nx_call call;
  size_t at = 0;
  for (size_t i = 0; i < count; i++) {
    assert_true(nx_calls_next(calls, &at, &call));
    assert_int_equal(call.id, ids[i]);
  }
  assert_false(nx_calls_next(calls, &at, &call));
  assert_int_equal(calls->count, count);
}
#define ASSERT_OPEN(calls, ...) \
  assert_open(calls, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void one_is_closed_wherever_it_stands(void **state) {
  static const uint32_t ids[] = {2, 5, 9}, left[][2] = {{5, 9}, {2, 9}, {2, 5}};
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    struct nx_calls calls = {0};
    add_three(&calls);
    assert_true(nx_calls_close(&calls, ids[i]));
    assert_open(&calls, left[i], 2);
    assert_int_equal(calls.callers, i == 1 ? 2 : 1);
    assert_false(nx_calls_close(&calls, ids[i]));
    nx_calls_deinit(&calls);
  }
}

static void what_is_not_open_is_not_closed(void **state) {
  struct nx_calls calls = {0};
  (void)state;
  assert_false(nx_calls_close(&calls, 1));
  add_three(&calls);
  for (uint32_t id = 0; id < 12; id++)
    if (id != 2 && id != 5 && id != 9) assert_false(nx_calls_close(&calls, id));
  ASSERT_OPEN(&calls, 2, 5, 9);
  nx_calls_deinit(&calls);
}

static void marks_tell_which_are_open(void **state) {
  struct nx_calls calls = {0};
  struct nx_call_mark marks[] = {{.id = 9}, {.id = 7}, {.id = 5}, {.id = 0}};
  (void)state;
  add_three(&calls);
  nx_calls_mark(&calls, marks, 4);
  assert_true(nx_call_mark_find(marks, 4, 9)->is_open);
  assert_int_equal(nx_call_mark_find(marks, 4, 9)->kind, NX_CALL_CALLER);
  assert_int_equal(nx_call_mark_find(marks, 4, 5)->kind, NX_CALL_TIME);
  assert_false(nx_call_mark_find(marks, 4, 7)->is_open);
  assert_false(nx_call_mark_find(marks, 4, 0)->is_open);
  assert_null(nx_call_mark_find(marks, 4, 2));
  nx_calls_close_marked(&calls, marks, 4);
  ASSERT_OPEN(&calls, 2);
  assert_int_equal(calls.callers, 1);
  nx_calls_deinit(&calls);
}

static void a_call_marked_twice_is_one(void **state) {
  struct nx_calls calls = {0};
  struct nx_call_mark marks[] = {{.id = 5}, {.id = 5}, {.id = 5}};
  (void)state;
  add_three(&calls);
  nx_calls_mark(&calls, marks, 3);
  assert_int_equal(marks[0].is_open + marks[1].is_open + marks[2].is_open, 1);
  assert_true(nx_call_mark_find(marks, 3, 5)->is_open);
  nx_calls_deinit(&calls);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(one_is_closed_wherever_it_stands),
    cmocka_unit_test(what_is_not_open_is_not_closed),
    cmocka_unit_test(marks_tell_which_are_open),
    cmocka_unit_test(a_call_marked_twice_is_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
