/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs: permits, the queue, compiling once, outcomes. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "exec/exec.h"
#include "exec/result.h"
#include "metrics/metrics.h"
#include "sandbox/thread.h"

static struct nx_config config;
static struct nx_ledger *ledger;
static struct nx_registry *registry;
static struct nx_exec *exec;
static struct nx_governor *governor;
static uint64_t idle_floor;

/* What others hold and give back when asked; meanwhile a job may come. */
static struct {
  _Atomic uint64_t holds;
  struct nx_job *comes;
} hoard;

static enum nx_reclaim give_back(void *unused, uint64_t want, uint64_t deadline_ns, uint64_t *freed) {
  (void)unused, (void)deadline_ns;
  usleep(2000);
  if (hoard.comes) assert_int_equal(nx_exec_submit(exec, hoard.comes), NX_JOB_QUEUED);
  hoard.comes = NULL;
  uint64_t bytes = hoard.holds;
  hoard.holds = 0;
  nx_governor_release(governor, NX_LAYER_HTTP, bytes);
  *freed += bytes;
  return bytes >= want ? NX_RECLAIM_DONE : NX_RECLAIM_NOTHING;
}

static void hoard_the_budget(void) {
  hoard.holds = nx_ledger_available(ledger);
  assert_true(nx_ledger_charge(ledger, NX_LAYER_HTTP, hoard.holds));
}

static _Atomic int wakes;
static void count_wake(void *unused) {
  (void)unused;
  wakes++;
}

static _Atomic int blocked, ever_blocked;
static pthread_t blocked_by;
static void count_blocked(void *unused) {
  (void)unused;
  blocked_by = pthread_self();
  blocked++;
  ever_blocked++;
}
static void count_unblocked(void *unused) {
  (void)unused;
  blocked--;
}

static int set_up(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_boot_image boot = nx_boot_image_linked();
  struct nx_machine machine = {.memory_limit_bytes = {NX_READING_VALUE, 1u << 30}, .cores = 1, .max_files = 4096,
                               .memory_bytes = {NX_READING_VALUE, 4ull << 30}};
  NX_BUF_AUTO problems = {0};
  static char *const environment[] = {(char *)"MAX_INSTANCES=2", (char *)"QUEUE_MAX=2", (char *)"QUEUE_TIMEOUT_MS=200",
                                      (char *)"TIMEOUT_MS=2000", NULL};
  assert_int_equal(nx_config_load(&config, environment, 0, NULL, &problems, &err), 0);
  assert_int_equal(nx_config_resolve(&config, &machine, &err), 0);
  assert_int_equal(nx_sandbox_init(NX_RESET_AUTO, &boot, &err), 0);
  ledger = aligned_alloc(64, sizeof *ledger);
  memset(ledger, 0, sizeof *ledger);
  struct nx_registry_opts opts = {.cache_max_bytes = 8 << 20, .cache_max_count = 10};
  assert_int_equal(nx_registry_create(&registry, &opts, &err), 0);
  const struct nx_governor_options memory = {
    .ledger = ledger, .limit_bytes = config.limit_bytes, .reserve_percent = config.memory_reserve_percent};
  assert_int_equal(nx_governor_create(&governor, &memory, &err), 0);
  nx_governor_add_reclaimer(governor, &(struct nx_reclaimer){NX_METRICS_RECLAIM_HANDLER_IMAGES, NULL, give_back});
  struct nx_exec_options options = {.config = &config, .ledger = ledger, .governor = governor, .registry = registry};
  struct nx_exec_hooks hooks = {.wake = count_wake, .thread_blocked = count_blocked, .thread_unblocked = count_unblocked};
  assert_int_equal(nx_exec_create(&exec, &options, &err), 0);
  assert_int_equal(nx_exec_start(exec, &hooks, &err), 0);
  return nx_sandbox_thread_enter(&err);
}

static int tear_down(void **state) {
  (void)state;
  nx_exec_destroy(exec);
  nx_registry_destroy(registry);
  for (unsigned i = 0; i < NX_LAYER_COUNT; i++) assert_int_equal(nx_ledger_current(ledger, (enum nx_layer)i), 0);
  nx_governor_destroy(governor);
  nx_sandbox_thread_leave();
  nx_sandbox_deinit();
  free(ledger);
  return 0;
}

static struct nx_job make_job(const char *source) {
  struct nx_error err;
  nx__thread_init_signals(&err); /* cmocka has put its own SIGSEGV handler in the place of ours */
  return (struct nx_job){
    .source = {source, (uint32_t)strlen(source)},
    .execution = {.limits = nx_exec_limits(&config)},
  };
}

static void run_here(struct nx_job *job) {
  enum nx_job_state job_state = nx_exec_submit(exec, job);
  while (job_state != NX_JOB_DONE) {
    if (job_state == NX_JOB_ADMITTED) job_state = nx_exec_run(exec, job);
    if (job_state != NX_JOB_DONE && nx_exec_next(exec)) job_state = job->state; /* it waited, and goes on */
  }
}

/* It is slow before it sleeps, and quick after. */
static void a_slow_thread_is_back_after_every_stay(void **state) {
  (void)state;
  struct nx_job job = make_job("const until = Date.now() + 100; while (Date.now() < until); await $ext.time.sleep(0); return 1");
  int before = ever_blocked;
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
  assert_true(ever_blocked > before);
  assert_int_equal(blocked, 0);
  nx_job_deinit(&job);
}

/* However often it comes back to the guest, its thread is replaced once, and then it is known that it will be. */
static void one_that_is_slow_again_and_again_is_replaced_once(void **state) {
  (void)state;
  for (int run = 0; run < 2; run++) {
    struct nx_job job = make_job("for (let i = 0; i < 5; i++) { const until = Date.now() + 100; while (Date.now() < until);"
                                 " await $ext.time.sleep(0) } return 1");
    int before = ever_blocked;
    run_here(&job);
    assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
    assert_int_equal(ever_blocked - before, 1);
    assert_int_equal(blocked, 0);
    nx_job_deinit(&job);
  }
}

/* The watchdog finds it out once. Then its thread is replaced before it begins, until it was quick again. */
static void one_that_was_long_stands_aside(void **state) {
  (void)state;
  static const struct {
    const char *ms;
    int blocked;
    bool by_watchdog;
  } runs[] = {{"1000", 1, true}, {"1000", 1, false}, {"0", 1, false}, {"0", 0, false}};
  int nice = getpriority(PRIO_PROCESS, 0);
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    struct nx_job job = make_job("const until = Date.now() + $args; while (Date.now() < until); return 1");
    job.execution.args = (struct nx_text){runs[i].ms, (uint32_t)strlen(runs[i].ms)};
    int before = ever_blocked;
    run_here(&job);
    assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
    assert_int_equal(ever_blocked - before, runs[i].blocked);
    assert_int_equal(blocked, 0);
    if (runs[i].blocked) assert_int_equal(!pthread_equal(blocked_by, pthread_self()), runs[i].by_watchdog);
    assert_true(getpriority(PRIO_PROCESS, 0) == nice || nx_sandbox_thread_is_spent());
    nx_job_deinit(&job);
  }
}

static const char *message_of(struct nx_job *job) {
  static char text[512];
  snprintf(text, sizeof text, "%.*s", (int)job->execution.error.message.len,
           job->execution.error.message.len ? job->execution.error.message.data : "");
  return text;
}

static void outcomes(void **state) {
  (void)state;
  static const struct {
    const char *source;
    enum nx_outcome outcome;
    const char *value_or_message;
  } table[] = {
    {"return 1 + 1", NX_OUTCOME_SUCCESS, "2"},
    {"export default () => ({ok: true})", NX_OUTCOME_SUCCESS, "{\"ok\":true}"},
    {"throw new Error('boom')", NX_OUTCOME_EXECUTION_ERROR, "boom"},
    {"let x = ;", NX_OUTCOME_COMPILATION_ERROR, "SyntaxError"},
    {"export const a = 1", NX_OUTCOME_INVALID_HANDLER, "default"},
    {"export default 1", NX_OUTCOME_INVALID_HANDLER, "default"},
    {"throw new Error('top'); export default () => 1", NX_OUTCOME_COMPILATION_ERROR, "top"},
    {"const t = await new Promise(() => {}); export default () => 1", NX_OUTCOME_COMPILATION_ERROR, "never settles"},
    {"await new Promise(() => {})", NX_OUTCOME_EXECUTION_ERROR, "never settles"},
    {"await new Promise((r) => setTimeout(r, 1)); return 1", NX_OUTCOME_SUCCESS, "1"},
    {"await $ext.net.fetch('http://127.0.0.1/')", NX_OUTCOME_PERMISSION_DENIED, "ext:net"},
    {"const a = []; for (;;) a.push(new Uint8Array(65536))", NX_OUTCOME_MEMORY_LIMIT, "32 MiB"},
    {"try { new Uint8Array(1e9) } catch { return 'caught' }", NX_OUTCOME_SUCCESS, "\"caught\""},
    {"for (let i = 0; ; i++) $log(i)", NX_OUTCOME_RESOURCE_LIMIT, "host calls"},
    {"$log('x'.repeat(5000000))", NX_OUTCOME_RESOURCE_LIMIT, "bytes"},
    {"return 'x'.repeat(5000000)", NX_OUTCOME_RESOURCE_LIMIT, "bytes"},
    {"$emit('a')", NX_OUTCOME_PERMISSION_DENIED, "events:emit:a"},
    {"$state.a = 1", NX_OUTCOME_PERMISSION_DENIED, "state:write:a"},
    {"return $state.a", NX_OUTCOME_PERMISSION_DENIED, "state:read:a"},
    {"const e = new Error('fake'); e.name = 'PermissionError'; throw e", NX_OUTCOME_EXECUTION_ERROR, "fake"},
    {"try { $emit('a') } catch { return 'caught' }", NX_OUTCOME_SUCCESS, "\"caught\""},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    struct nx_job job = make_job(table[i].source);
    run_here(&job);
    if (job.execution.outcome != table[i].outcome)
      fail_msg("%s: %s %s", table[i].source, nx_outcome_code(job.execution.outcome), message_of(&job));
    if (job.execution.outcome == NX_OUTCOME_SUCCESS) {
      assert_int_equal(job.execution.value.len, strlen(table[i].value_or_message));
      assert_memory_equal(job.execution.value.data, table[i].value_or_message, job.execution.value.len);
    } else if (!strstr(message_of(&job), table[i].value_or_message)) {
      fail_msg("%s: %s", table[i].source, message_of(&job));
    }
    nx_job_deinit(&job);
  }
}

static void deadlines(void **state) {
  (void)state;
  struct nx_job job = make_job("for (;;);");
  job.execution.limits.timeout_ns = 30 * NX_NS_PER_MS;
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_TIMEOUT);
  nx_job_deinit(&job);
  job = make_job("for (;;); export default () => 1");
  job.execution.limits.timeout_ns = 30 * NX_NS_PER_MS;
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_COMPILATION_ERROR);
  nx_job_deinit(&job);
}

static void equal_source_compiles_once(void **state) {
  (void)state;
  struct nx_job first = make_job("return 'once'"), second = make_job("return 'once'");
  run_here(&first);
  run_here(&second);
  assert_false(first.cache_hit);
  assert_true(first.compile_us > 0);
  assert_true(second.cache_hit);
  assert_int_equal(second.compile_us, 0);
  nx_job_deinit(&first);
  nx_job_deinit(&second);
}

/* Images are shared by everyone with the same source: one caller's limits must not show in them. */
static void callers_limits_do_not_enter_images(void **state) {
  (void)state;
  static const char source[] = "let big; try { big = new Array(3e5).fill(7).length } catch { big = 'short of memory' }\n"
                               "export default () => big";
  for (int i = 0; i < 2; i++) {
    struct nx_job job = make_job(source);
    if (i == 0) job.execution.limits.memory_bytes = 1 << 20;
    run_here(&job);
    assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
    assert_memory_equal(job.execution.value.data, "300000", 6);
    nx_job_deinit(&job);
  }
  struct nx_job job = make_job("let x; try { x = new Uint8Array(1e9) } catch {} export default () => 1");
  run_here(&job); /* refused memory once, though it went on */
  assert_int_equal(job.execution.outcome, NX_OUTCOME_COMPILATION_ERROR);
  nx_job_deinit(&job);
  job = make_job("const a = new Uint8Array(20e6).fill(1); export default () => a.length");
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_COMPILATION_ERROR);
  assert_non_null(strstr(message_of(&job), "8 MiB"));
  nx_job_deinit(&job);
}

/* Escaping makes texts up to six times as long: the limit is on what is sent. */
static void output_is_bounded_as_it_is_sent(void **state) {
  (void)state;
  struct nx_job job = make_job("$log('first'); $log('\\x01'.repeat(1e6))");
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_RESOURCE_LIMIT);
  NX_BUF_AUTO out = {0};
  nx_result_write(&job, &out);
  assert_true(out.len < 4096);
  nx_buf_char(&out, 0);
  assert_non_null(strstr(out.data, "\"logs\":[{\"level\":\"info\",\"message\":\"first\"}]"));
  nx_job_deinit(&job);
}

static void effects_of_a_failure_are_not_shown(void **state) {
  (void)state;
  struct nx_job job = make_job("$log('said'); $log.warn('twice'); throw new TypeError('no')");
  run_here(&job);
  NX_BUF_AUTO out = {0};
  nx_result_write(&job, &out);
  nx_buf_char(&out, 0);
  assert_non_null(strstr(out.data, "\"logs\":[{\"level\":\"info\",\"message\":\"said\"},{\"level\":\"warn\""));
  assert_non_null(strstr(out.data, "\"error\":{\"code\":\"EXECUTION_ERROR\",\"message\":\"TypeError: no\""));
  assert_non_null(strstr(out.data, "\"location\":{\"line\":1,"));
  assert_non_null(strstr(out.data, "\"snippet\":\"1 |"));
  nx_job_deinit(&job);
}

static void queue_is_bounded_and_in_order(void **state) {
  (void)state;
  struct nx_job jobs[6];
  enum nx_job_state expected[] = {NX_JOB_ADMITTED, NX_JOB_ADMITTED, NX_JOB_QUEUED, NX_JOB_QUEUED, NX_JOB_REFUSED,
                                  NX_JOB_REFUSED};
  for (size_t i = 0; i < 6; i++) {
    jobs[i] = make_job("return 1");
    assert_int_equal(nx_exec_submit(exec, &jobs[i]), expected[i]);
  }
  assert_int_equal(jobs[4].refusal.code, NX_ERR_OVERLOADED);
  assert_null(nx_exec_next(exec)); /* no permit is free */
  nx_exec_run(exec, &jobs[0]);
  assert_ptr_equal(nx_exec_next(exec), &jobs[2]);
  assert_null(nx_exec_next(exec));
  nx_exec_run(exec, &jobs[2]);
  nx_exec_run(exec, &jobs[1]);
  assert_ptr_equal(nx_exec_next(exec), &jobs[3]);
  nx_exec_run(exec, &jobs[3]);
  struct nx_exec_stats stats;
  nx_exec_read_stats(exec, &stats);
  assert_int_equal(stats.active, 0);
  assert_int_equal(stats.queue_depth, 0);
  for (size_t i = 0; i < 6; i++) nx_job_deinit(&jobs[i]);
}

static void who_waits_too_long_is_told(void **state) {
  (void)state;
  struct nx_job jobs[3];
  wakes = 0;
  for (size_t i = 0; i < 3; i++) {
    jobs[i] = make_job("return 1");
    nx_exec_submit(exec, &jobs[i]);
  }
  uint64_t began = nx_clock_ns();
  struct nx_job *expired = NULL;
  while (!expired && nx_clock_ns() - began < 5 * NX_NS_PER_S) {
    if (wakes) expired = nx_exec_next(exec); /* the watchdog asks for someone to look */
    usleep(1000);
  }
  assert_ptr_equal(expired, &jobs[2]);
  assert_int_equal(jobs[2].state, NX_JOB_EXPIRED);
  assert_true(nx_clock_ns() - began >= 200 * NX_NS_PER_MS);
  nx_exec_run(exec, &jobs[0]);
  nx_exec_run(exec, &jobs[1]);
  for (size_t i = 0; i < 3; i++) nx_job_deinit(&jobs[i]);
}

static void *run_waiting(void *job) {
  struct nx_error err;
  nx_sandbox_thread_enter(&err);
  nx_exec_run_waiting(exec, job);
  nx_sandbox_thread_leave();
  return NULL;
}

static uint32_t heap_of(const char *source) {
  struct nx_job job = make_job(source);
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
  uint32_t bytes = job.execution.memory_used_bytes;
  nx_job_deinit(&job);
  return bytes;
}

static void much_garbage_of_a_top_level_is_collected(void **state) {
  (void)state;
  uint32_t none = heap_of("export default () => 1");
  uint32_t much = heap_of("for (let i = 0; i < 20000; i++) { const a = {}; a.itself = a }; export default () => 1");
  assert_in_range(much, none, none + (256u << 10));
}

/* A file's source is compiled on a thread of its own; one that is known needs no permit. */
static void files_compile_once(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_job first = make_job("export default () => 'file'"), busy[2] = {make_job("return 1"), make_job("return 2")};
  struct nx_job bad = make_job("export default () => )");
  first.kind = bad.kind = NX_JOB_COMPILE;
  assert_int_equal(nx_exec_compile(exec, &first, &err), 0);
  assert_int_equal(first.state, NX_JOB_DONE);
  assert_int_equal(first.execution.outcome, NX_OUTCOME_SUCCESS);
  assert_false(first.cache_hit);
  assert_true(nx_profile_is_light(&first.execution.handler->profile, 0));
  for (int i = 0; i < 2; i++) assert_int_equal(nx_exec_submit(exec, &busy[i]), NX_JOB_ADMITTED);
  struct nx_job again = make_job("export default () => 'file'");
  again.kind = NX_JOB_COMPILE;
  assert_int_equal(nx_exec_compile(exec, &again, &err), 0);
  assert_int_equal(again.state, NX_JOB_DONE);
  assert_true(again.cache_hit);
  assert_ptr_equal(again.execution.handler, first.execution.handler);
  for (int i = 0; i < 2; i++) nx_exec_run(exec, &busy[i]);
  assert_int_equal(nx_exec_compile(exec, &bad, &err), 0);
  assert_int_equal(bad.execution.outcome, NX_OUTCOME_COMPILATION_ERROR);
  nx_job_deinit(&first);
  nx_job_deinit(&again);
  nx_job_deinit(&bad);
  for (int i = 0; i < 2; i++) nx_job_deinit(&busy[i]);
}

static void work_that_is_no_request_waits(void **state) {
  (void)state;
  struct nx_job first = make_job("return 1"), second = make_job("return 2"), waiting = make_job("return 3");
  nx_exec_submit(exec, &first);
  nx_exec_submit(exec, &second);
  pthread_t thread;
  pthread_create(&thread, NULL, run_waiting, &waiting);
  nx_exec_run(exec, &first);
  pthread_join(thread, NULL);
  assert_int_equal(waiting.execution.outcome, NX_OUTCOME_SUCCESS);
  nx_exec_run(exec, &second);
  nx_job_deinit(&first);
  nx_job_deinit(&second);
  nx_job_deinit(&waiting);
}

static void *run_admitted(void *job) {
  struct nx_error err;
  nx_sandbox_thread_enter(&err);
  nx_exec_run(exec, job);
  nx_sandbox_thread_leave();
  return NULL;
}

/* Two that compute without end hold both permits: a light one is let through beside them, a heavy one is not, and what
 * is shown is never more than there are. */
static void light_ones_run_beside_spinners(void **state) {
  (void)state;
  struct nx_job compiled = make_job("return 'light'"), spinners[2], large = make_job("return 'heavy'"), small[2], *job;
  compiled.kind = NX_JOB_COMPILE;
  run_here(&compiled);
  uint64_t queue_timeout_ms = config.queue_timeout_ms;
  config.queue_timeout_ms = 600000;
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    spinners[i] = make_job("for (;;);");
    assert_int_equal(nx_exec_submit(exec, &spinners[i]), NX_JOB_ADMITTED);
    pthread_create(&threads[i], NULL, run_admitted, &spinners[i]);
  }
  assert_int_equal(nx_exec_submit(exec, &large), NX_JOB_QUEUED);
  for (int i = 0; i < 2; i++) {
    small[i] = make_job("");
    small[i].execution.handler = nx_handler_hold(compiled.execution.handler);
    small[i]._owns_handler = true;
    if (nx_exec_submit(exec, &small[i]) == NX_JOB_QUEUED) {
      while (!(job = nx_exec_next(exec))) usleep(1000);
      assert_ptr_equal(job, &small[i]);
    }
    struct nx_exec_stats stats;
    nx_exec_read_stats(exec, &stats);
    assert_int_equal(stats.active, 2);
    assert_int_equal(stats.max, 2);
    assert_int_equal(stats.queue_depth, 1);
    nx_exec_run(exec, &small[i]);
    assert_int_equal(small[i].execution.outcome, NX_OUTCOME_SUCCESS);
  }
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  assert_ptr_equal(nx_exec_next(exec), &large);
  nx_exec_run(exec, &large);
  config.queue_timeout_ms = queue_timeout_ms;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(spinners[i].execution.outcome, NX_OUTCOME_TIMEOUT);
    nx_job_deinit(&spinners[i]);
    nx_job_deinit(&small[i]);
  }
  nx_job_deinit(&large);
  nx_job_deinit(&compiled);
}

static void trim(void) {
  uint64_t freed = 0;
  assert_int_equal(nx_exec_reclaim_instances(exec, UINT64_MAX, UINT64_MAX, &freed), NX_RECLAIM_NOTHING);
}

/* The ledger is back at its floor after whatever happened: every charge is returned exactly once. */
static void memory_is_returned(void **state) {
  (void)state;
  static const char *const sources[] = {
    "return new Uint8Array(20000000).length", "const a = []; for (;;) a.push({})", "return 1", "let x = ;", "null.x",
  };
  trim();
  idle_floor = nx_ledger_current(ledger, NX_LAYER_INSTANCES);
  for (int round = 0; round < 40; round++) {
    struct nx_job job = make_job(sources[(size_t)round % (sizeof sources / sizeof *sources)]);
    run_here(&job);
    nx_job_deinit(&job);
  }
  trim();
  assert_true(nx_ledger_current(ledger, NX_LAYER_INSTANCES) <= idle_floor + (1u << 20));
}

static struct nx_job *wait_for_next(void) {
  struct nx_job *job = NULL;
  for (int i = 0; !job && i < 5000; i++) {
    job = nx_exec_next(exec);
    usleep(1000);
  }
  assert_non_null(job);
  return job;
}

static void without_budget_jobs_wait_and_are_refused(void **state) {
  (void)state;
  nx_ledger_set_budget(ledger, 0);
  struct nx_job job = make_job("return 'no room'");
  assert_int_equal(nx_exec_submit(exec, &job), NX_JOB_QUEUED);
  assert_ptr_equal(wait_for_next(), &job);
  assert_int_equal(job.state, NX_JOB_EXPIRED);
  assert_int_equal(job.refusal.code, NX_ERR_OVERLOADED);
  assert_string_equal(job.refused.layer, "container");
  assert_int_equal(job.refused.limit_bytes, 0);
  assert_true(job.refused.requested_bytes > 1u << 20);
  nx_job_deinit(&job);
}

static void what_fits_later_runs_later(void **state) {
  (void)state;
  nx_ledger_set_budget(ledger, 0);
  struct nx_job job = make_job("return 'patience'");
  assert_int_equal(nx_exec_submit(exec, &job), NX_JOB_QUEUED);
  assert_null(nx_exec_next(exec));
  nx_ledger_set_budget(ledger, config.budget_bytes);
  assert_ptr_equal(wait_for_next(), &job);
  assert_int_equal(job.state, NX_JOB_ADMITTED);
  nx_exec_run(exec, &job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
  nx_job_deinit(&job);
}

/* A job may come while room is made for another, and go first: its wait was short, not one of centuries. */
static void waits_that_began_meanwhile_are_short(void **state) {
  (void)state;
  struct nx_job known = make_job("export default () => 'light'");
  known.kind = NX_JOB_COMPILE;
  run_here(&known);
  struct nx_job heavy = make_job("return 'heavy'"), light = make_job("");
  light.execution.handler = known.execution.handler;
  hoard_the_budget();
  assert_int_equal(nx_exec_submit(exec, &heavy), NX_JOB_QUEUED);
  hoard.comes = &light;
  assert_ptr_equal(wait_for_next(), &light); /* room is made every 20 ms at most */
  assert_ptr_equal(wait_for_next(), &heavy);
  nx_exec_run(exec, &light);
  nx_exec_run(exec, &heavy);
  assert_int_equal(light.execution.outcome, NX_OUTCOME_SUCCESS);
  assert_int_equal(heavy.execution.outcome, NX_OUTCOME_SUCCESS);
  struct nx_metrics_totals totals;
  nx_metrics_totals(&totals);
  assert_in_range(totals.queue_wait_max_ns, 1, 3600 * NX_NS_PER_S);
  nx_job_deinit(&light);
  nx_job_deinit(&heavy);
  nx_job_deinit(&known);
}

/* Nobody is in the queue who would have asked for it. */
static void room_is_made_for_work_that_is_no_request(void **state) {
  (void)state;
  struct nx_job job = make_job("return 'at last'");
  hoard_the_budget();
  pthread_t thread;
  pthread_create(&thread, NULL, run_waiting, &job);
  for (int i = 0; hoard.holds && i < 2000; i++) usleep(1000);
  uint64_t kept = hoard.holds;
  if (kept) give_back(NULL, kept, 0, &(uint64_t){0});
  pthread_join(thread, NULL);
  assert_int_equal(kept, 0);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
  nx_job_deinit(&job);
}

static void growth_past_the_budget_is_refused(void **state) {
  (void)state;
  nx_ledger_set_budget(ledger, nx_ledger_total(ledger) + (30u << 20)); /* 16 of them are kept for serving */
  struct nx_job job = make_job("return new Uint8Array(24000000).length");
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_RESOURCE_LIMIT);
  assert_string_equal(job.refused.layer, "container");
  assert_in_range(job.refused.requested_bytes, 1u << 20, 24u << 20);
  nx_job_deinit(&job);
  nx_ledger_set_budget(ledger, config.budget_bytes);
  job = make_job("return new Uint8Array(24000000).length");
  run_here(&job);
  assert_int_equal(job.execution.outcome, NX_OUTCOME_SUCCESS);
  nx_job_deinit(&job);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(outcomes),
    cmocka_unit_test(a_slow_thread_is_back_after_every_stay),
    cmocka_unit_test(one_that_is_slow_again_and_again_is_replaced_once),
    cmocka_unit_test(one_that_was_long_stands_aside),
    cmocka_unit_test(deadlines), cmocka_unit_test(equal_source_compiles_once),
    cmocka_unit_test(callers_limits_do_not_enter_images), cmocka_unit_test(output_is_bounded_as_it_is_sent),
    cmocka_unit_test(effects_of_a_failure_are_not_shown), cmocka_unit_test(queue_is_bounded_and_in_order),
    cmocka_unit_test(much_garbage_of_a_top_level_is_collected),
    cmocka_unit_test(who_waits_too_long_is_told), cmocka_unit_test(files_compile_once), cmocka_unit_test(work_that_is_no_request_waits),
    cmocka_unit_test(light_ones_run_beside_spinners), cmocka_unit_test(memory_is_returned), cmocka_unit_test(without_budget_jobs_wait_and_are_refused),
    cmocka_unit_test(what_fits_later_runs_later),
    cmocka_unit_test(waits_that_began_meanwhile_are_short),
    cmocka_unit_test(room_is_made_for_work_that_is_no_request),
    cmocka_unit_test(growth_past_the_budget_is_refused),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
