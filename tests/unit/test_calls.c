/* SPDX-License-Identifier: Apache-2.0
 * The list of open calls: what goes in comes out in order, and no block from outside makes it read beyond its bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "counting_account.h"
#include "hostile_bytes.h"
#include "suspend/calls.h"

static struct nx_call call_of(uint32_t id, enum nx_call_kind kind, uint64_t due_ms, const char *args) {
  return (struct nx_call){
    .id = id, .kind = kind, .due_ms = due_ms, .extension = "pay", .extension_bytes = 3, .method = "charge",
    .method_bytes = 6, .args = args, .args_bytes = (uint32_t)strlen(args)};
}

static void add(struct nx_calls *calls, struct nx_call call) { assert_true(nx_calls_add(calls, &call)); }

/* 1 caller's, 3 of time, 4 caller's without arguments, 9 of net. */
static struct nx_calls sample(void) {
  struct nx_calls calls = {0};
  add(&calls, call_of(1, NX_CALL_CALLER, 0, "[{\"order\":1}]"));
  add(&calls, call_of(3, NX_CALL_TIME, 5000, "[20]"));
  add(&calls, call_of(4, NX_CALL_CALLER, 0, ""));
  add(&calls, call_of(9, NX_CALL_NET, 4000, "[\"http://a/\"]"));
  return calls;
}

static bool find(const struct nx_calls *calls, uint32_t id, struct nx_call *out) {
  for (size_t at = 0; nx_calls_next(calls, &at, out);)
    if (out->id == id) return true;
  return false;
}

static void assert_ids(const struct nx_calls *calls, const char *expected) {
  char ids[64] = "";
  struct nx_call call;
  uint32_t callers = 0, count = 0;
  for (size_t at = 0; nx_calls_next(calls, &at, &call); count++) {
    snprintf(ids + strlen(ids), sizeof ids - strlen(ids), "%s%u", *ids ? " " : "", call.id);
    callers += call.kind == NX_CALL_CALLER;
  }
  assert_string_equal(ids, expected);
  assert_int_equal(calls->count, count);
  assert_int_equal(calls->callers, callers);
}

static void they_are_kept_in_order(void **state) {
  struct nx_calls calls = sample();
  struct nx_call call;
  assert_ids(&calls, "1 3 4 9");
  assert_true(find(&calls, 9, &call));
  assert_int_equal(call.kind, NX_CALL_NET);
  assert_int_equal(call.due_ms, 4000);
  assert_memory_equal(call.extension, "pay", 3);
  assert_memory_equal(call.method, "charge", 6);
  assert_int_equal(call.args_bytes, 13);
  assert_memory_equal(call.args, "[\"http://a/\"]", 13);
  assert_false(find(&calls, 2, &call));
  assert_false(find(&calls, 0, &call));
  assert_int_equal(nx_calls_due_ms(&calls), 4000);
  nx_calls_deinit(&calls);
}

static void they_are_closed(void **state) {
  struct nx_calls calls = sample();
  assert_false(nx_calls_close(&calls, 2));
  assert_true(nx_calls_close(&calls, 3));
  assert_false(nx_calls_close(&calls, 3));
  assert_false(nx_calls_have(&calls, NX_CALL_TIME));
  assert_ids(&calls, "1 4 9");
  assert_true(nx_calls_close(&calls, 9));
  assert_int_equal(nx_calls_due_ms(&calls), UINT64_MAX);
  assert_true(nx_calls_close(&calls, 1));
  assert_ids(&calls, "4");
  assert_true(nx_calls_close(&calls, 4));
  assert_ids(&calls, "");
  assert_int_equal(calls.block.len, 0);
  nx_calls_deinit(&calls);
}

static void one_is_closed_wherever_it_stands(void **state) {
  static const uint32_t ids[] = {1, 3, 4, 9};
  static const char *const left[] = {"3 4 9", "1 4 9", "1 3 9", "1 3 4"};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    struct nx_calls calls = sample();
    assert_true(nx_calls_close(&calls, ids[i]));
    assert_ids(&calls, left[i]);
    assert_false(nx_calls_close(&calls, ids[i]));
    nx_calls_deinit(&calls);
  }
}

static void what_is_not_open_is_not_closed(void **state) {
  struct nx_calls none = {0}, calls = sample();
  assert_false(nx_calls_close(&none, 1));
  for (uint32_t id = 0; id < 12; id++)
    if (id != 1 && id != 3 && id != 4 && id != 9) assert_false(nx_calls_close(&calls, id));
  assert_ids(&calls, "1 3 4 9");
  nx_calls_deinit(&calls);
}

static bool is_odd(void *self, const struct nx_call *call) {
  ++*(unsigned *)self;
  return call->id % 2;
}

static void many_are_closed_in_one_walk(void **state) {
  struct nx_calls calls = {0};
  unsigned asked = 0;
  for (uint32_t id = 1; id <= 10000; id++) add(&calls, call_of(id, NX_CALL_CALLER, 0, "[]"));
  nx_calls_close_if(&calls, is_odd, &asked);
  assert_int_equal(asked, 10000);
  assert_int_equal(calls.count, 5000);
  assert_int_equal(calls.callers, 5000);
  struct nx_call call;
  assert_true(find(&calls, 10000, &call));
  assert_false(find(&calls, 9999, &call));
  nx_calls_deinit(&calls);
}

static void marks_tell_which_are_open(void **state) {
  struct nx_calls calls = sample();
  struct nx_call_mark marks[] = {{.id = 9}, {.id = 7}, {.id = 3}, {.id = 1}, {.id = 0}};
  nx_calls_mark(&calls, marks, 5);
  assert_true(nx_call_mark_find(marks, 5, 9)->is_open);
  assert_int_equal(nx_call_mark_find(marks, 5, 9)->kind, NX_CALL_NET);
  assert_int_equal(nx_call_mark_find(marks, 5, 3)->kind, NX_CALL_TIME);
  assert_int_equal(nx_call_mark_find(marks, 5, 1)->kind, NX_CALL_CALLER);
  assert_false(nx_call_mark_find(marks, 5, 7)->is_open);
  assert_false(nx_call_mark_find(marks, 5, 0)->is_open);
  assert_null(nx_call_mark_find(marks, 5, 4));
  nx_calls_close_marked(&calls, marks, 5);
  assert_ids(&calls, "4");
  assert_int_equal(calls.callers, 1);
  nx_calls_deinit(&calls);
}

static void a_call_marked_twice_is_one(void **state) {
  struct nx_calls calls = sample();
  struct nx_call_mark marks[] = {{.id = 4}, {.id = 4}, {.id = 4}};
  nx_calls_mark(&calls, marks, 3);
  assert_int_equal(marks[0].is_open + marks[1].is_open + marks[2].is_open, 1);
  assert_true(nx_call_mark_find(marks, 3, 4)->is_open);
  nx_calls_deinit(&calls);
}

static void a_block_is_loaded_again(void **state) {
  struct nx_calls calls = sample(), loaded = {0};
  assert_true(nx_calls_load(&loaded, calls.block.data, calls.block.len));
  assert_ids(&loaded, "1 3 4 9");
  assert_true(nx_calls_load(&loaded, NULL, 0));
  assert_ids(&loaded, "");
  nx_calls_deinit(&loaded);
  nx_calls_deinit(&calls);
}

static void assert_not_loaded(const struct nx_calls *calls) {
  struct nx_calls loaded = {0};
  assert_false(nx_calls_load(&loaded, calls->block.data, calls->block.len));
  nx_calls_deinit(&loaded);
}

static void ids_must_rise(void **state) {
  static const uint32_t ids[][2] = {{1, 1}, {2, 1}, {0, 1}, {UINT32_MAX, 0}};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    struct nx_calls calls = {0};
    add(&calls, call_of(ids[i][0], NX_CALL_CALLER, 0, "[]"));
    add(&calls, call_of(ids[i][1], NX_CALL_CALLER, 0, "[]"));
    assert_not_loaded(&calls);
    nx_calls_deinit(&calls);
  }
}

static void kinds_that_there_are_not_are_refused(void **state) {
  struct nx_calls calls = {0};
  add(&calls, call_of(1, (enum nx_call_kind)(NX_CALL_NET + 1), 0, "[]"));
  assert_not_loaded(&calls);
  nx_calls_deinit(&calls);
}

/* Whatever is loaded can be walked, and is what its counts say. */
static void load(const uint8_t *bytes, size_t size) {
  struct nx_calls calls = {0};
  struct nx_call call;
  uint32_t count = 0, last = 0;
  if (nx_calls_load(&calls, (const char *)bytes, size)) {
    for (size_t at = 0; nx_calls_next(&calls, &at, &call); count++) {
      assert_true(call.id > last);
      assert_true(call.args + call.args_bytes <= calls.block.data + calls.block.len);
      last = call.id;
    }
    assert_int_equal(count, calls.count);
    nx_calls_due_ms(&calls);
  }
  nx_calls_deinit(&calls);
}

static void damaged_blocks_are_harmless(void **state) {
  struct nx_calls calls = sample();
  decode_damaged(calls.block.data, calls.block.len, load);
  nx_calls_deinit(&calls);
}

static void without_memory_nothing_is_added(void **state) {
  struct counting_account account = COUNTING_ACCOUNT;
  account.limit = 300;
  struct nx_calls calls = {.block.account = &account.as_account};
  struct nx_call call = call_of(1, NX_CALL_CALLER, 0, "[]");
  uint32_t added = 0;
  for (; nx_calls_add(&calls, &call); call.id++) added++;
  assert_in_range(added, 1, 10);
  assert_int_equal(calls.count, added);
  nx_calls_deinit(&calls);
  assert_int_equal(account.charged, 0);
  char block[400] = {0};
  assert_false(nx_calls_load(&calls, block, sizeof block));
  assert_true(calls.block.failed);
  nx_calls_deinit(&calls);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(they_are_kept_in_order),
    cmocka_unit_test(they_are_closed),
    cmocka_unit_test(one_is_closed_wherever_it_stands),
    cmocka_unit_test(what_is_not_open_is_not_closed),
    cmocka_unit_test(many_are_closed_in_one_walk),
    cmocka_unit_test(marks_tell_which_are_open),
    cmocka_unit_test(a_call_marked_twice_is_one),
    cmocka_unit_test(a_block_is_loaded_again),
    cmocka_unit_test(ids_must_rise),
    cmocka_unit_test(kinds_that_there_are_not_are_refused),
    cmocka_unit_test(damaged_blocks_are_harmless),
    cmocka_unit_test(without_memory_nothing_is_added),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
