/* SPDX-License-Identifier: Apache-2.0
 *
 * The sandbox: every way in and out of the guest, and the promise that nothing stays behind. Runs once for each reset
 * method, so that the fallbacks are tested on every machine. */
#include "sandbox_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/guest_binding.h"
#include "sandbox/thread.h"

/* ---- Threads ---------------------------------------------------------------------------------------------------------- */

static _Atomic bool watching;
static pthread_t watchdog;

static void *watch(void *unused) {
  while (watching) {
    unsigned slow;
    nx_sandbox_watch(nx_clock_ns(), 2 * NX_NS_PER_MS, &slow);
    usleep(1000);
  }
  return unused;
}
void watchdog_start(void) {
  watching = true;
  pthread_create(&watchdog, NULL, watch, NULL);
}
void watchdog_stop(void) {
  watching = false;
  pthread_join(watchdog, NULL);
}

static void call(void *body) { ((void (*)(void))body)(); }

void on_guest_thread(void (*body)(void)) {
  struct nx_error err;
  assert_int_equal(nx_sandbox_run_thread(1 << 20, call, (void *)body, &err), 0);
}

/* ---- Ways out ------------------------------------------------------------------------------------------------------------ */

static void returns_and_throws(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "return $args.a + 1");
  assert_non_null(image);
  struct nx_guest_result result = world_run(&world, "{\"a\":41}");
  assert_int_equal(result.end, NX_GUEST_RETURNED);
  assert_int_equal(result.status, NX_STATUS_DONE);
  assert_string_equal(world.returned, "42");
  nx_image_release(image);

  image = world_load(&world, "const x = null;\nreturn x.y");
  world_run(&world, NULL);
  assert_non_null(strstr(world.thrown, "\"line\":2"));
  assert_string_equal(world.returned, "");
  nx_image_release(image);
  assert_null(world_load(&world, "let = ;"));
  world_close(&world);
}

static void deadline_body(void) {
  static const char *const endless[] = {
    "for (;;);",
    "/^(a+)+$/.test('a'.repeat(64) + 'b')",
    "[3,1,2].sort(() => { for (;;); })",
    "await (async () => { for (;;) await 0; })()",
    "JSON.stringify({ toJSON() { for (;;); } })",
    "'x'.replace(/x/, () => { for (;;); })",
    "new Proxy({}, { get() { for (;;); } }).a",
    "for (;;) Math.random()",
    "for (;;) Date.now()",
    "for (;;) try { for (;;) null.x } catch {} finally { continue }",
  };
  struct world world;
  world_open(&world);
  for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) {
    world.timeout_ns = 5 * NX_NS_PER_S;
    struct nx_image *image = world_load(&world, endless[i]);
    assert_non_null(image);
    world.timeout_ns = 20 * NX_NS_PER_MS;
    struct nx_guest_result result = world_run(&world, NULL);
    assert_int_equal(result.end, NX_GUEST_DEADLINE);
    nx_image_release(image);
  }
  world.timeout_ns = 5 * NX_NS_PER_S;
  struct nx_image *spin = world_load(&world, "for (;;);");
  world.timeout_ns = NX_NS_PER_S / 2; /* long enough to have computed for 2 ms on the busiest machine */
  assert_true(world_run(&world, NULL).was_slow);
  nx_image_release(spin);
  world.timeout_ns = 20 * NX_NS_PER_MS;
  assert_null(world_load(&world, "for (;;); export default () => 1")); /* body: parses as one, so it is a handler … */
  world_close(&world);
}

static void deadline_cuts_the_guest_anywhere(void **state) {
  (void)state;
  watchdog_start();
  on_guest_thread(deadline_body);
  watchdog_stop();
}

static void long_expected_body(void) {
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "const until = Date.now() + $args; while (Date.now() < until); $log(1); return 1");
  int nice = getpriority(PRIO_PROCESS, 0);
  world.long_expected = true;
  struct nx_guest_result result = world_run(&world, "0");
  assert_int_equal(world.nice_in_log, nice + 5);
  assert_false(result.was_slow); /* told by who expected it */
  assert_in_range(result.computed_ns, 1, result.duration_ns + NX_NS_PER_MS); /* by another clock */
  if (nx_sandbox_thread_is_spent()) goto end; /* may not raise its priority */
  assert_int_equal(getpriority(PRIO_PROCESS, 0), nice);
  world.long_expected = false;
  world_run(&world, "0");
  assert_int_equal(world.nice_in_log, nice);
  world_run(&world, "300");
  assert_int_equal(world.nice_in_log, nice + 5); /* by the watchdog */
  assert_int_equal(getpriority(PRIO_PROCESS, 0), nice);
end:
  nx_image_release(image);
  world_close(&world);
}

static void one_expected_to_be_long_begins_with_low_priority(void **state) {
  (void)state;
  if (getpriority(PRIO_PROCESS, 0) > 14) skip(); /* there is nothing below to go to */
  watchdog_start();
  on_guest_thread(long_expected_body);
  watchdog_stop();
}

/* A kill that comes while the host works for the guest is taken at the end of the call, not in it. */
static void deferred_body(void) {
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "$log('busy'); for (;;);");
  world.timeout_ns = 5 * NX_NS_PER_MS;
  world.busy_in_log_ns = 30 * NX_NS_PER_MS;
  struct nx_guest_result result = world_run(&world, NULL);
  assert_int_equal(result.end, NX_GUEST_DEADLINE);
  assert_int_equal(world.host_calls, 1);
  assert_true(result.duration_ns >= world.busy_in_log_ns);
  nx_image_release(image);
  world_close(&world);
}

static void host_calls_are_never_cut(void **state) {
  (void)state;
  watchdog_start();
  on_guest_thread(deferred_body);
  watchdog_stop();
}

static void stack_body(void) {
  struct world world;
  world_open(&world);
  world.memory_limit_bytes = 256 << 20;
  struct nx_image *image = world_load(&world, "const f = (n) => f(n + 1) + 1; try { return f(0) } catch (e) { return e.name }");
  world_run(&world, NULL);
  assert_string_equal(world.returned, "\"RangeError\"");
  nx_image_release(image);

  static const char *const deep[] = {
    "let a = []; for (let i = 0; i < 200000; i++) a = [a]; return JSON.stringify(a).length",
    "return JSON.parse('['.repeat(200000) + ']'.repeat(200000)).length",
    "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); return p.x",
    "return eval('('.repeat(200000))",
    "let f = () => 1; for (let i = 0; i < 100000; i++) f = f.bind(null); return f()",
    "return new RegExp('('.repeat(100000) + ')'.repeat(100000)).test('')",
  };
  for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
    image = world_load(&world, deep[i]);
    assert_non_null(image);
    struct nx_guest_result result = world_run(&world, NULL);
    bool rangeError = strstr(world.thrown, "RangeError") || strstr(world.thrown, "SyntaxError") ||
                      strstr(world.thrown, "InternalError");
    if (result.end != NX_GUEST_STACK && !(result.end == NX_GUEST_RETURNED && (rangeError || world.returned[0])))
      fail_msg("case %zu ended as %d (%s): %s", i, result.end, result.trap ? result.trap : "", world.thrown);
    nx_image_release(image);
  }
  world_close(&world);
}

static void deep_recursion_ends_at_a_guard(void **state) {
  (void)state;
  on_guest_thread(stack_body);
}

static void host_may_stop_the_guest(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "$log('a'); return 1");
  world.stop_at_log = true;
  assert_int_equal(world_run(&world, NULL).end, NX_GUEST_STOPPED);
  world.stop_at_log = false;
  assert_int_equal(world_run(&world, NULL).end, NX_GUEST_RETURNED);
  assert_string_equal(world.returned, "1");
  nx_image_release(image);
  world_close(&world);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------------------ */

static void memory_is_granted_and_taken_back(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "return new Uint8Array($args).length");
  size_t before = world.budget_bytes;
  struct nx_guest_result result = world_run(&world, "8000000");
  assert_string_equal(world.returned, "8000000");
  assert_true(result.memory_peak_bytes > 8000000);
  assert_true(before - world.budget_bytes >= result.memory_peak_bytes - image->memory_bytes);

  result = world_run(&world, "40000000"); /* the instance's own limit */
  assert_true(result.memory_refused);
  assert_false(result.budget_refused);
  world.budget_bytes = 1 << 20; /* the shared budget */
  result = world_run(&world, "8000000");
  assert_true(result.budget_refused);
  assert_false(result.memory_refused);
  world.budget_bytes = before;
  result = world_run(&world, "100");
  assert_int_equal(result.memory_peak_bytes, image->memory_bytes);
  nx_image_release(image);
  world_close(&world);
}

static void reset_says_how_much_had_grown(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "globalThis.x = new Uint8Array(10000000); return 1");
  struct nx_guest_call call = world_call(&world);
  struct nx_text none = {0};
  size_t before = world.budget_bytes;
  struct nx_guest_result result = nx_instance_invoke(world.instance, &call, none, none, none);
  size_t grown = nx_instance_reset(world.instance);
  assert_int_equal(grown, result.memory_peak_bytes - image->memory_bytes);
  assert_int_equal(grown, before - world.budget_bytes);
  assert_int_equal(nx_instance_reset(world.instance), 0);
  nx_image_release(image);
  world_close(&world);
}

/* ---- Nothing stays ------------------------------------------------------------------------------------------------------------ */

static const char hostile[] =
  "const act = [\n"
  "  () => { Object.prototype.evil = $args.seed; Array.prototype.push = () => 7; },\n"
  "  () => { globalThis.leak = 'x'.repeat($args.size); },\n"
  "  () => { const a = []; for (let i = 0; i < $args.size; i++) a.push({ i, s: 'k' + i }); globalThis.a = a; },\n"
  "  () => { new Uint32Array($args.size * 16).fill($args.seed); },\n"
  "  () => { const m = new Map(); for (let i = 0; i < $args.size; i++) m.set(i, [i]); globalThis.m = m; },\n"
  "  () => { throw new Error('seed ' + $args.seed); },\n"
  "  () => { for (;;); },\n"
  "  () => { const f = () => f(); f(); },\n"
  "  () => { JSON.stringify = Math.random = Promise.prototype.then = undefined; delete globalThis.Array; },\n"
  "  () => { const keep = []; for (;;) keep.push(new Uint8Array(1 << 20).fill(1)); },\n"
  "  () => { Promise.resolve().then(() => { globalThis.late = 1; for (let i = 0; i < $args.size; i++) Symbol.for('s' + i); }); },\n"
  "  () => { let s = 'ab'; for (let i = 0; i < 18; i++) s += s; globalThis.s = s.split('a'); },\n"
  "  () => { /(a*)*b/.exec('a'.repeat(22)); RegExp.prototype.exec = null; },\n"
  "  () => { globalThis.g = (function* () { yield* Array($args.size % 1000).keys(); })(); [...g]; },\n"
  "];\n"
  "for (const i of $args.acts) try { act[i](); } catch (e) { if (e.message.startsWith('seed')) throw e; }\n"
  "return [typeof leak, Object.keys({}).length]";

static const char canary[] = "return [typeof leak, typeof a, ({}).evil === undefined, [].push(1), Math.max(1, 2)]";

static int rounds(void) {
  const char *text = getenv("NX_TEST_ROUNDS");
  return text ? atoi(text) : 1500;
}

static void random_hostility_body(void) {
  struct world world;
  struct nx_error err;
  world_open(&world);
  struct nx_image *bad = world_load(&world, hostile), *good = world_load(&world, canary);
  assert_non_null(bad);
  assert_non_null(good);
  srandom(20240601);
  for (int round = 0; round < rounds(); round++) {
    char args[256];
    int acts[4];
    for (size_t i = 0; i < 4; i++) acts[i] = (int)(random() % 14);
    snprintf(args, sizeof args, "{\"seed\":%ld,\"size\":%ld,\"acts\":[%d,%d,%d,%d]}", random() % 1000,
             random() % 3000, acts[0], acts[1], acts[2], acts[3]);
    world.timeout_ns = 4 * NX_NS_PER_MS;
    world.memory_limit_bytes = (uint32_t)(8 + random() % 24) << 20;
    assert_int_equal(nx_instance_show(world.instance, bad, &err), 0);
    for (long n = random() % 3; n >= 0; n--) world_run(&world, args);
    if (round % 5 == 0) {
      world.timeout_ns = 5 * NX_NS_PER_S;
      assert_int_equal(nx_instance_show(world.instance, good, &err), 0);
      world_run(&world, NULL);
      assert_string_equal(world.returned, "[\"undefined\",\"undefined\",true,1,2]");
    }
    if (round % 100 == 50) nx_instance_trim(world.instance);
  }
  nx_image_release(bad);
  nx_image_release(good);
  world_close(&world);
}

static void random_hostile_executions_leave_nothing(void **state) {
  (void)state;
  watchdog_start();
  on_guest_thread(random_hostility_body);
  watchdog_stop();
}

/* The shortcut's list belongs to one thread: another thread that enters in between must not be believed. */
static struct world shared_world;

static void run_shared(void) {
  for (int i = 0; i < 40; i++) {
    world_run(&shared_world, i % 7 == 3 ? "200000" : "3");
    assert_string_equal(shared_world.returned, i % 7 == 3 ? "200000" : "3");
  }
}

static void instances_move_between_threads(void **state) {
  (void)state;
  world_open(&shared_world);
  struct nx_image *image = world_load(&shared_world, "globalThis.x = new Array($args).fill({}); return x.length");
  assert_non_null(image);
  for (int i = 0; i < 10; i++) {
    run_shared();
    on_guest_thread(run_shared);
  }
  nx_image_release(image);
  world_close(&shared_world);
}

static void trim_gives_pages_back(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "globalThis.x = new Array($args).fill(1); return x.length");
  for (int i = 0; i < 40; i++) world_run(&world, "20000");
  if (nx_sandbox_reset_method() != NX_RESET_REMAP) assert_true(nx_instance_dirty_pages(world.instance) > 40);
  nx_instance_trim(world.instance);
  assert_int_equal(nx_instance_verify(world.instance), 0);
  assert_int_equal(nx_instance_resident_bytes(world.instance), 0);
  assert_ptr_equal(nx_instance_image(world.instance), nx_sandbox_base_image());
  struct nx_error err;
  assert_int_equal(nx_instance_show(world.instance, image, &err), 0);
  world_run(&world, "20000");
  assert_string_equal(world.returned, "20000");
  nx_image_release(image);
  world_close(&world);
}

/* ---- Determinism ---------------------------------------------------------------------------------------------------------------- */

static void same_source_makes_the_same_image(void **state) {
  (void)state;
  static const char source[] = "const t = [Date.now(), Math.random(), crypto.randomUUID()];\n"
                               "const m = new Map(Array.from({length: 500}, (_, i) => ['k' + i, i]));\n"
                               "export default () => [t, m.size];";
  struct world one, two;
  world_open(&one);
  world_open(&two);
  struct nx_image *warm_up = world_load(&two, "return 1");
  for (int i = 0; i < 5; i++) world_run(&two, NULL);
  struct nx_image *a = world_load(&one, source), *b = world_load(&two, source);
  assert_memory_equal(a->hash, b->hash, NX_HASH_BYTES);
  world_run(&one, NULL);
  assert_non_null(strstr(one.returned, "[[0,"));
  nx_image_release(warm_up);
  nx_image_release(a);
  nx_image_release(b);
  world_close(&one);
  world_close(&two);
}

static void executions_differ_in_randomness(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  struct nx_image *image = world_load(&world, "return [Math.random(), crypto.randomUUID(), Date.now() > 1e12]");
  char seen[20][4096];
  for (int i = 0; i < 20; i++) {
    world_run(&world, NULL);
    strcpy(seen[i], world.returned);
    assert_non_null(strstr(seen[i], "true"));
    for (int j = 0; j < i; j++) assert_string_not_equal(seen[i], seen[j]);
  }
  nx_image_release(image);
  world_close(&world);
}

/* ---- A guest that calls the host as it likes -------------------------------------------------------------------------------------- */

static wasm_rt_memory_t *attacked;

static int32_t bad_calls(void *argument) {
  (void)argument;
  static const u32 values[] = {0, 1, 4096, 0x7fffffff, 0x80000000, 0xffff0000, 0xfffffffe, 0xffffffff};
  const size_t n = sizeof values / sizeof *values;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++)
      for (size_t k = 0; k < n; k++) {
        u32 reply = Z_nexusZ_call(NULL, values[i], values[j], values[k], values[k], values[j]);
        bool inside = (u64)values[j] + values[k] <= attacked->size && (u64)values[k] + values[j] <= attacked->size;
        if (!inside && reply != (u32)NX_REPLY_BAD_CALL) return 1;
        Z_nexusZ_random(NULL, values[j], values[k] > 65536 ? values[k] : 0);
        Z_nexusZ_clock(NULL, values[i]);
      }
  return 0;
}

static int32_t count_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b, uint32_t b_bytes) {
  (void)op;
  volatile char sum = 0; /* what passes the check must be readable */
  if (a_bytes) sum = (char)(sum + a[0] + a[a_bytes - 1]);
  if (b_bytes) sum = (char)(sum + b[0] + b[b_bytes - 1]);
  ++*(int *)opaque;
  return NX_REPLY_OK;
}

static void imports_survive_any_arguments(void **state) {
  (void)state;
  struct world world;
  world_open(&world);
  nx_wasm *wasm = *(nx_wasm **)world.instance; /* its first member */
  attacked = nx_wasm_memory(wasm);
  int calls = 0;
  struct nx_guest_call call = world_call(&world);
  call.host_call = count_call;
  call.opaque = &calls;
  struct nx_guest_result result = nx__thread_run(nx__thread_self(), attacked, &call, bad_calls, NULL);
  assert_int_equal(result.end, NX_GUEST_RETURNED);
  assert_int_equal(result.status, 0);
  assert_true(calls > 0);
  world_close(&world);
}

static int32_t touch(void *argument) { return *(volatile char *)argument; }

/* A fault that is not generated code's is a crash with a report, never a way out of the guest. */
static void faults_of_the_host_are_crashes(void **state) {
  (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  skip();
#endif
  struct world world;
  world_open(&world);
  nx_wasm *wasm = *(nx_wasm **)world.instance;
  pid_t child = fork();
  if (!child) {
    close(STDERR_FILENO);
    struct nx_guest_call call = world_call(&world);
    nx__thread_run(nx__thread_self(), nx_wasm_memory(wasm), &call, touch, nx_wasm_memory(wasm)->data + (1u << 31));
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  world_close(&world);
}

/* ---- Runs ------------------------------------------------------------------------------------------------------------------------- */

static enum nx_reset_method method;

static int set_up(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_boot_image boot = nx_boot_image_linked();
  if (nx_sandbox_init(method, &boot, &err)) {
    print_message("reset method %s: %s\n", nx_reset_method_name(method), err.text);
    return -1;
  }
  assert_int_equal(nx_sandbox_reset_method(), method);
  return nx_sandbox_thread_enter(&err);
}

static int tear_down(void **state) {
  (void)state;
  nx_sandbox_thread_leave();
  nx_sandbox_deinit();
  return 0;
}

/* What is linked in must be what booting gives now, on this machine. */
static void boot_image_is_reproducible(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_boot_image boot = nx_boot_image_linked();
  uint8_t linked[NX_HASH_BYTES];
  char guest_id[65];
  assert_int_equal(nx_sandbox_init(NX_RESET_AUTO, &boot, &err), 0);
  memcpy(linked, nx_sandbox_base_image()->hash, NX_HASH_BYTES);
  strcpy(guest_id, nx_sandbox_guest_id());
  nx_sandbox_deinit();
  for (int i = 0; i < 2; i++) {
    assert_int_equal(nx_sandbox_init(NX_RESET_AUTO, NULL, &err), 0);
    assert_memory_equal(nx_sandbox_base_image()->hash, linked, NX_HASH_BYTES);
    assert_string_equal(nx_sandbox_guest_id(), guest_id);
    NX_BUF_AUTO bytes = {0};
    nx_sandbox_write_boot_image(&bytes);
    assert_int_equal(bytes.len, boot.size);
    assert_memory_equal(bytes.data, boot.bytes, boot.size);
    nx_sandbox_deinit();
  }
}

int main(void) {
  const struct CMUnitTest once[] = {cmocka_unit_test(boot_image_is_reproducible)};
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(returns_and_throws),
    cmocka_unit_test(deadline_cuts_the_guest_anywhere),
    cmocka_unit_test(one_expected_to_be_long_begins_with_low_priority),
    cmocka_unit_test(host_calls_are_never_cut),
    cmocka_unit_test(deep_recursion_ends_at_a_guard),
    cmocka_unit_test(host_may_stop_the_guest),
    cmocka_unit_test(memory_is_granted_and_taken_back),
    cmocka_unit_test(reset_says_how_much_had_grown),
    cmocka_unit_test(random_hostile_executions_leave_nothing),
    cmocka_unit_test(instances_move_between_threads),
    cmocka_unit_test(trim_gives_pages_back),
    cmocka_unit_test(same_source_makes_the_same_image),
    cmocka_unit_test(executions_differ_in_randomness),
    cmocka_unit_test(imports_survive_any_arguments),
    cmocka_unit_test(faults_of_the_host_are_crashes),
  };
  int failed = cmocka_run_group_tests(once, NULL, NULL);
  static const enum nx_reset_method methods[] = {NX_RESET_SCAN_FAULTS, NX_RESET_SCAN, NX_RESET_REMAP};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    method = methods[i];
    failed += cmocka_run_group_tests_name(nx_reset_method_name(method), tests, set_up, tear_down);
  }
  return failed;
}
