/* SPDX-License-Identifier: Apache-2.0
 *
 * An execution that waits leaves one instance as bytes and appears in another, byte for byte; and however that ends, the
 * reset brings the clean image back. Runs once for each reset method. */
#include "sandbox_support.h"

#include <pthread.h>
#include <semaphore.h>

#include "counting_account.h"
#include "sandbox/instance.h"

static enum nx_reset_method method;

static int set_up(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_boot_image boot = nx_boot_image_linked();
  if (nx_sandbox_init(method, &boot, &err) || nx_sandbox_thread_enter(&err)) {
    print_error("%s\n", err.text);
    return -1;
  }
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  nx_sandbox_thread_leave();
  nx_sandbox_deinit();
  return 0;
}

static const char small[] = "return await $ext.http.get('https://example.com/', {id: $args.id})";
static const char grown[] = "const parts = []; for (let i = 0; i < 40; i++) parts.push(new Uint8Array(65536).fill(i));\n"
                            "parts.push(crypto.getRandomValues(new Uint8Array(50000)), new Uint8Array(1 << 20));\n"
                            "return await $ext.http.get('https://example.com/', parts.length)";

/* ---- Two instances ------------------------------------------------------------------------------------------------------ */

struct pair {
  struct world from, to;
  struct nx_image *image;
};

static void pair_open(struct pair *pair, const char *source) {
  struct nx_error err;
  world_open(&pair->from);
  world_open(&pair->to);
  pair->image = world_load(&pair->from, source);
  assert_non_null(pair->image);
  if (nx_instance_show(pair->to.instance, pair->image, &err)) fail_msg("%s", err.text);
}

static void pair_close(struct pair *pair) {
  world_close(&pair->from);
  world_close(&pair->to);
  nx_image_release(pair->image);
}

static void run_until_it_waits(struct world *world) {
  struct nx_guest_call call = world_call(world);
  struct nx_text none = {0};
  struct nx_guest_result result = nx_instance_invoke(world->instance, &call, text_of("{\"id\":7}"), none, none);
  assert_int_equal(result.end, NX_GUEST_RETURNED);
  assert_int_equal(result.status, NX_STATUS_WAITING);
}

static void assert_reset_is_clean(struct world *world) {
  nx_instance_reset(world->instance);
  uint32_t bad = nx_instance_verify(world->instance);
  if (bad) fail_msg("page %u differs from the image after a reset", bad - 1);
}

static int restore(struct world *world, const struct nx_buf *patch, struct nx_error *err) {
  return nx_instance_restore(world->instance, (const uint8_t *)patch->data, patch->len, world_grant, world, err);
}

/* All of linear memory but the stack, which is at rest: it must be the image's. */
static void assert_same_memory(const struct pair *pair) {
  const wasm_rt_memory_t *from = nx_wasm_memory(pair->from.instance->wasm);
  const wasm_rt_memory_t *to = nx_wasm_memory(pair->to.instance->wasm);
  uint32_t stack_pages = pair->image->globals.stack_pointer / NX_PAGE_BYTES;
  assert_int_equal(from->size, to->size);
  assert_int_equal(from->pages, to->pages);
  assert_int_equal(nx_wasm_stack_pointer(pair->to.instance->wasm), pair->image->globals.stack_pointer);
  for (uint32_t i = 0; i < from->size / NX_PAGE_BYTES; i++) {
    const uint8_t *wanted = i < stack_pages ? nx_image_page(pair->image, i) : from->data + (size_t)i * NX_PAGE_BYTES;
    if (memcmp(to->data + (size_t)i * NX_PAGE_BYTES, wanted, NX_PAGE_BYTES)) fail_msg("page %u differs", i);
  }
}

/* ---- Tests ---------------------------------------------------------------------------------------------------------------- */

/* Often enough for instances to settle and for lists of private pages to be reused. */
#define ROUNDS 40

static void move_often(const char *source) {
  struct pair pair;
  struct nx_error err;
  pair_open(&pair, source);
  for (unsigned i = 0; i < ROUNDS; i++) {
    NX_BUF_AUTO patch = {0};
    run_until_it_waits(&pair.from);
    if (nx_instance_suspend(pair.from.instance, &patch, &err)) fail_msg("%s", err.text);
    if (restore(&pair.to, &patch, &err)) fail_msg("%s", err.text);
    assert_same_memory(&pair);
    assert_reset_is_clean(&pair.from);
    assert_reset_is_clean(&pair.to);
  }
  pair_close(&pair);
}

static void memory_moves_to_another_instance(void **state) {
  (void)state;
  move_often(small);
}

static void grown_memory_moves_too(void **state) {
  (void)state;
  move_often(grown);
}

static void a_restored_execution_can_be_suspended_again(void **state) {
  (void)state;
  struct pair pair;
  struct nx_error err;
  NX_BUF_AUTO first = {0};
  NX_BUF_AUTO second = {0};
  pair_open(&pair, grown);
  run_until_it_waits(&pair.from);
  if (nx_instance_suspend(pair.from.instance, &first, &err)) fail_msg("%s", err.text);
  if (restore(&pair.to, &first, &err)) fail_msg("%s", err.text);
  if (nx_instance_suspend(pair.to.instance, &second, &err)) fail_msg("%s", err.text);
  assert_int_equal(first.len, second.len);
  assert_memory_equal(first.data, second.data, first.len);
  assert_reset_is_clean(&pair.from);
  assert_reset_is_clean(&pair.to);
  pair_close(&pair);
}

static void a_small_execution_takes_little(void **state) {
  (void)state;
  struct pair pair;
  struct nx_error err;
  NX_BUF_AUTO patch = {0};
  pair_open(&pair, small);
  run_until_it_waits(&pair.from);
  if (nx_instance_suspend(pair.from.instance, &patch, &err)) fail_msg("%s", err.text);
  assert_in_range(patch.len, 100, 2400);
  assert_int_equal(patch.capacity, patch.len);
  assert_reset_is_clean(&pair.from);
  pair_close(&pair);
}

static void growth_is_granted_or_refused(void **state) {
  (void)state;
  struct pair pair;
  struct nx_error err;
  NX_BUF_AUTO patch = {0};
  pair_open(&pair, grown);
  run_until_it_waits(&pair.from);
  if (nx_instance_suspend(pair.from.instance, &patch, &err)) fail_msg("%s", err.text);
  size_t growth = nx_instance_reset(pair.from.instance);
  assert_true(growth > 0);

  pair.to.budget_bytes = growth - 1;
  assert_int_equal(restore(&pair.to, &patch, &err), -NX_ERR_OVERLOADED);
  assert_int_equal(pair.to.budget_bytes, growth - 1);
  assert_int_equal(nx_instance_reset(pair.to.instance), 0); /* nothing was granted, so there is nothing to give back */
  assert_int_equal(nx_instance_verify(pair.to.instance), 0);

  pair.to.budget_bytes = growth;
  assert_int_equal(restore(&pair.to, &patch, &err), 0);
  assert_int_equal(pair.to.budget_bytes, 0);
  assert_int_equal(nx_instance_reset(pair.to.instance), growth);
  pair_close(&pair);
}

static void a_refused_suspension_leaves_nothing(void **state) {
  (void)state;
  struct pair pair;
  struct nx_error err;
  struct counting_account account = COUNTING_ACCOUNT;
  account.limit = 20000; /* the random part of it alone is larger */
  NX_BUF_AUTO patch = {.account = &account.as_account};
  pair_open(&pair, grown);
  run_until_it_waits(&pair.from);
  assert_int_equal(nx_instance_suspend(pair.from.instance, &patch, &err), -NX_ERR_NO_MEMORY);
  assert_int_equal(account.charged, 0);
  assert_reset_is_clean(&pair.from);
  pair_close(&pair);
}

static void damaged_patches_are_reset_away(void **state) {
  (void)state;
  struct pair pair;
  struct nx_error err;
  NX_BUF_AUTO patch = {0};
  pair_open(&pair, small);
  run_until_it_waits(&pair.from);
  if (nx_instance_suspend(pair.from.instance, &patch, &err)) fail_msg("%s", err.text);
  assert_reset_is_clean(&pair.from);
  for (size_t i = 0; i < patch.len; i++) {
    patch.data[i] ^= 0x40;
    restore(&pair.to, &patch, &err);
    patch.data[i] ^= 0x40;
    nx_instance_reset(pair.to.instance);
  }
  assert_int_equal(nx_instance_verify(pair.to.instance), 0);
  pair_close(&pair);
}

/* A thread that is there before it is needed: making it would be faults of the thread that resets. */
struct other_thread {
  sem_t go, done;
  void (*body)(struct pair *pair, const struct nx_buf *patch);
  struct pair *pair;
  struct nx_buf patch;
};

static void *wait_and_work(void *argument) {
  struct other_thread *other = argument;
  struct nx_error err;
  assert_int_equal(nx_sandbox_thread_enter(&err), 0);
  sem_wait(&other->go);
  other->body(other->pair, &other->patch);
  sem_post(&other->done);
  nx_sandbox_thread_leave();
  return NULL;
}

static void restore_here(struct pair *pair, const struct nx_buf *patch) {
  struct nx_error err;
  if (restore(&pair->to, patch, &err)) fail_msg("%s", err.text);
}

static void run_here(struct pair *pair, const struct nx_buf *patch) {
  (void)patch;
  run_until_it_waits(&pair->to);
}

/* What this thread knows of the private pages must not outlive what another one does to them. */
static void reset_after_another_thread(void (*body)(struct pair *pair, const struct nx_buf *patch)) {
  struct pair pair;
  struct nx_error err;
  pthread_t thread;
  struct other_thread other = {.body = body, .pair = &pair};
  pair_open(&pair, small);
  run_until_it_waits(&pair.from);
  if (nx_instance_suspend(pair.from.instance, &other.patch, &err)) fail_msg("%s", err.text);
  sem_init(&other.go, 0, 0);
  sem_init(&other.done, 0, 0);
  assert_int_equal(pthread_create(&thread, NULL, wait_and_work, &other), 0);
  for (unsigned i = 0; i < 8; i++) nx_instance_reset(pair.to.instance);
  sem_post(&other.go);
  sem_wait(&other.done);
  assert_reset_is_clean(&pair.to);
  pthread_join(thread, NULL);
  nx_buf_deinit(&other.patch);
  pair_close(&pair);
}

static void a_thread_may_restore_and_another_reset(void **state) {
  (void)state;
  reset_after_another_thread(restore_here);
}

static void a_thread_may_run_and_another_reset(void **state) {
  (void)state;
  reset_after_another_thread(run_here);
}

static void only_a_stack_at_rest_is_suspended(void **state) {
  (void)state;
  struct pair pair;
  struct nx_error err;
  NX_BUF_AUTO patch = {0};
  pair_open(&pair, "$log.info('here'); await $ext.http.get('/')");
  pair.from.stop_at_log = true;
  struct nx_guest_call call = world_call(&pair.from);
  struct nx_text none = {0};
  assert_int_equal(nx_instance_invoke(pair.from.instance, &call, none, none, none).end, NX_GUEST_STOPPED);
  assert_int_equal(nx_instance_suspend(pair.from.instance, &patch, &err), -NX_ERR_INVALID);
  assert_int_equal(patch.len, 0);
  assert_reset_is_clean(&pair.from);
  pair_close(&pair);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(memory_moves_to_another_instance),
    cmocka_unit_test(grown_memory_moves_too),
    cmocka_unit_test(a_restored_execution_can_be_suspended_again),
    cmocka_unit_test(a_small_execution_takes_little),
    cmocka_unit_test(growth_is_granted_or_refused),
    cmocka_unit_test(a_refused_suspension_leaves_nothing),
    cmocka_unit_test(damaged_patches_are_reset_away),
    cmocka_unit_test(a_thread_may_restore_and_another_reset),
    cmocka_unit_test(a_thread_may_run_and_another_reset),
    cmocka_unit_test(only_a_stack_at_rest_is_suspended),
  };
  int failed = 0;
  static const enum nx_reset_method methods[] = {NX_RESET_SCAN_FAULTS, NX_RESET_SCAN, NX_RESET_REMAP};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    method = methods[i];
    failed += cmocka_run_group_tests_name(nx_reset_method_name(method), tests, set_up, tear_down);
  }
  return failed;
}
