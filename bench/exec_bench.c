/* SPDX-License-Identifier: Apache-2.0
 *
 * exec_bench: what one clean execution costs, in process, on one thread, without HTTP, and what suspending a small one
 * does. JSON on stdout.
 *
 *   exec_bench [--handler FILE] [--args FILE] [--method auto|scan+faults|scan|remap] [--rounds N]
 *
 * Two forms of the same round, one after the other:
 *   pool   what the server does per request: nx_pool_acquire, nx_execution_run, nx_pool_release
 *   bare   nx_instance_invoke and nx_instance_reset alone
 * Then, of a small handler of our own, in one instance: nx_instance_suspend when it waits, nx_instance_reset,
 * nx_instance_restore, nx_instance_reset.
 * Memory for all samples is touched before the clock starts: a page fault of this thread would make the next reset
 * scan, and be measured as the product's. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/json_text.h"
#include "config/config.h"
#include "exec/exec.h"
#include "memory/ledger.h"
#include "pool/pool.h"

#define FILE_MAX_BYTES (1u << 20)
#define ROUNDS_MAX 10000000u
/* Of what happens once per handler or instance: compiling, creating, first executions. */
#define RARE_ROUNDS 50u
/* A round of suspending is several times as long as one of the others. */
#define SUSPEND_ROUNDS_DIVISOR 4u
#define BUDGET_BYTES (UINT64_C(1) << 30)
#define LEASE_BYTES (UINT64_C(2) << 20)

struct samples {
  uint32_t *ns;
  unsigned count, capacity;
};

struct bench {
  const char *handler_path, *args_path;
  enum nx_reset_method method;
  unsigned rounds;
  struct nx_buf source, args;
  struct nx_config config;
  struct nx_ledger ledger;
  struct nx_governor *governor;
  struct nx_pool *pool;
  struct nx_image *image;
  uint64_t init_ns;
  struct samples whole, guest, reset;
  struct nx_error err;
  bool failed;
};

static const char usage[] =
  "usage: exec_bench [--handler FILE] [--args FILE] [--method auto|scan+faults|scan|remap] [--rounds N]\n";

/* ---- Samples ---------------------------------------------------------------------------------------------------- */

static bool samples_init(struct samples *samples, unsigned capacity) {
  samples->ns = malloc(capacity * sizeof *samples->ns);
  if (!samples->ns) return false;
  memset(samples->ns, 0xff, capacity * sizeof *samples->ns);
  samples->capacity = capacity;
  return true;
}

static void take(struct samples *samples, uint64_t ns) {
  if (samples->count < samples->capacity) samples->ns[samples->count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Prints and empties them. */
static void report(const char *name, struct samples *samples, const char *after) {
  uint64_t sum = 0;
  unsigned n = samples->count;
  qsort(samples->ns, n, sizeof *samples->ns, by_value);
  for (unsigned i = 0; i < n; i++) sum += samples->ns[i];
  double p50 = n ? samples->ns[n / 2] : 0, p99 = n ? samples->ns[(uint64_t)n * 99 / 100] : 0;
  printf("\"%s\":{\"p50\":%.2f,\"p99\":%.2f,\"mean\":%.2f,\"n\":%u}%s", name, p50 / 1000, p99 / 1000,
         n ? (double)sum / n / 1000 : 0, n, after);
  samples->count = 0;
}

/* ---- Failing ---------------------------------------------------------------------------------------------------- */

static bool fail(struct bench *bench, const char *what, const struct nx_buf *why) {
  fprintf(stderr, "exec_bench: %s: ", what);
  if (why && why->len)
    fprintf(stderr, "%.*s\n", (int)why->len, why->data);
  else
    fprintf(stderr, "%s\n", bench->err.text[0] ? bench->err.text : "failed");
  bench->failed = true;
  return false;
}

/* ---- One execution ---------------------------------------------------------------------------------------------- */

static struct nx_execution new_execution(const struct bench *bench) {
  return (struct nx_execution){
    .args = {bench->args.data, (uint32_t)bench->args.len},
    .limits = nx_exec_limits(&bench->config),
    .grant = nx_pool_grant,
  };
}

/* What an execution reserves at least. */
static struct nx_reservation reserve(struct bench *bench) {
  struct nx_reservation reservation = {0};
  uint64_t bytes = nx_pool_reservation_bytes(bench->pool, bench->image ? bench->image->memory_bytes : 0);
  if (!nx_pool_try_reserve(bench->pool, &reservation, bytes, NX_DEMAND_WORK)) bench->failed = true;
  return reservation;
}

static bool pool_round(struct bench *bench, bool measured) {
  struct nx_execution x = new_execution(bench);
  struct nx_lease lease;
  uint64_t began = nx_clock_ns();
  struct nx_reservation reservation = reserve(bench);
  if (nx_pool_acquire(bench->pool, bench->image, &reservation, &lease, &bench->err)) return fail(bench, "pool", NULL);
  x.budget = &lease;
  nx_execution_run(&x, lease.instance);
  uint64_t ran = nx_clock_ns();
  nx_pool_release(&lease);
  nx_pool_unreserve(bench->pool, &reservation);
  uint64_t ended = nx_clock_ns();
  bool ok = x.outcome == NX_OUTCOME_SUCCESS;
  if (!ok) fail(bench, nx_outcome_code(x.outcome), &x.error.message);
  if (measured) {
    take(&bench->whole, ended - began);
    take(&bench->guest, x.duration_ns);
    take(&bench->reset, ended - ran);
  }
  nx_execution_deinit(&x);
  return ok;
}

/* The guest reports its value by a host call; here it goes nowhere. */
static int32_t ignore_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b, uint32_t b_bytes) {
  (void)opaque, (void)op, (void)a, (void)a_bytes, (void)b, (void)b_bytes;
  return NX_REPLY_OK;
}

static bool grant_all(void *nobody, size_t bytes) {
  (void)nobody, (void)bytes;
  return true;
}

static bool bare_round(struct bench *bench, struct nx_instance *instance, bool measured) {
  const struct nx_text absent = {0}, args = {bench->args.data, (uint32_t)bench->args.len};
  uint64_t began = nx_clock_ns();
  struct nx_guest_call call = {
    .deadline_ns = began + bench->config.timeout_ms * NX_NS_PER_MS,
    .memory_limit_bytes = (uint32_t)bench->config.memory_limit_bytes,
    .stack_limit_bytes = nx_sandbox_usable_stack_bytes((uint32_t)bench->config.stack_size_bytes),
    .host_call = ignore_call,
    .grant = grant_all,
  };
  struct nx_guest_result result = nx_instance_invoke(instance, &call, args, absent, absent);
  uint64_t ran = nx_clock_ns();
  nx_instance_reset(instance);
  uint64_t ended = nx_clock_ns();
  if (result.end != NX_GUEST_RETURNED || result.status != NX_STATUS_DONE) return fail(bench, "the guest did not end well", NULL);
  if (measured) {
    take(&bench->whole, ended - began);
    take(&bench->guest, ran - began);
    take(&bench->reset, ended - ran);
  }
  return true;
}

/* ---- What is measured --------------------------------------------------------------------------------------------- */

/* CPU time of this thread: what a round costs even while others have the processor. */
static uint64_t cpu_ns(void) { return nx_clock_read_ns(CLOCK_THREAD_CPUTIME_ID); }

static void report_rounds(struct bench *bench, const char *name, uint32_t dirty_pages, uint64_t cpu_began_ns) {
  double cpu_us = (double)(cpu_ns() - cpu_began_ns) / bench->rounds / 1000;
  printf("\"%s\":{", name);
  report("whole_us", &bench->whole, ",");
  report("guest_us", &bench->guest, ",");
  report("reset_us", &bench->reset, ",");
  printf("\"cpu_mean_us\":%.2f,\"dirty_pages\":%u},", cpu_us, dirty_pages);
}

static bool measure_pool(struct bench *bench) {
  for (unsigned i = 0; i < bench->rounds; i++)
    if (!pool_round(bench, false)) return false;
  uint64_t began = cpu_ns();
  for (unsigned i = 0; i < bench->rounds; i++)
    if (!pool_round(bench, true)) return false;
  struct nx_lease lease;
  struct nx_reservation reservation = {0};
  if (nx_pool_acquire(bench->pool, bench->image, &reservation, &lease, &bench->err)) return fail(bench, "pool", NULL);
  uint32_t dirty = nx_instance_dirty_pages(lease.instance);
  nx_pool_release(&lease);
  nx_pool_unreserve(bench->pool, &reservation);
  report_rounds(bench, "pool", dirty, began);
  return true;
}

static bool measure_bare(struct bench *bench) {
  struct nx_instance *instance;
  if (nx_instance_create(&instance, &bench->err)) return fail(bench, "instance", NULL);
  bool ok = !nx_instance_show(instance, bench->image, &bench->err) || fail(bench, "image", NULL);
  for (unsigned i = 0; ok && i < bench->rounds; i++) ok = bare_round(bench, instance, false);
  uint64_t began = cpu_ns();
  for (unsigned i = 0; ok && i < bench->rounds; i++) ok = bare_round(bench, instance, true);
  if (ok) report_rounds(bench, "bare", nx_instance_dirty_pages(instance), began);
  if (ok && nx_instance_verify(instance)) ok = fail(bench, "the instance is not clean after the last reset", NULL);
  nx_instance_destroy(instance);
  return ok;
}

/* ---- Suspending ---------------------------------------------------------------------------------------------------- */

static const char waiting_source[] = "const order = await $ext.http.get('https://example.com/orders', {id: $args.id});\n"
                                     "return order.total;";

static int32_t answer_later(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b,
                            uint32_t b_bytes) {
  (void)opaque, (void)a, (void)a_bytes, (void)b, (void)b_bytes;
  return op == NX_OP_EXT_CALL ? 1 : NX_REPLY_OK;
}

static struct nx_guest_call waiting_call(const struct bench *bench) {
  return (struct nx_guest_call){
    .deadline_ns = nx_clock_ns() + bench->config.timeout_ms * NX_NS_PER_MS,
    .memory_limit_bytes = (uint32_t)bench->config.memory_limit_bytes,
    .stack_limit_bytes = nx_sandbox_usable_stack_bytes((uint32_t)bench->config.stack_size_bytes),
    .host_call = answer_later,
    .grant = grant_all,
  };
}

static bool show_waiting_handler(struct bench *bench, struct nx_instance *instance) {
  struct nx_guest_call call = waiting_call(bench);
  struct nx_image *image;
  call.frozen = true;
  nx_instance_compile(instance, &call, (struct nx_text){waiting_source, sizeof waiting_source - 1});
  if (nx_instance_capture(instance, NULL, &image, &bench->err)) return fail(bench, "capture", NULL);
  nx_instance_reset(instance);
  bool ok = !nx_instance_show(instance, image, &bench->err) || fail(bench, "image", NULL);
  nx_image_release(image);
  return ok;
}

struct suspend_samples {
  struct samples suspend, restore, reset;
  size_t patch_bytes;
};

static bool suspend_round(struct bench *bench, struct nx_instance *instance, struct suspend_samples *out) {
  NX_BUF_AUTO patch = {0};
  const struct nx_text absent = {0}, args = {"{\"id\":7}", 8};
  struct nx_guest_call call = waiting_call(bench);
  struct nx_guest_result result = nx_instance_invoke(instance, &call, args, absent, absent);
  if (result.end != NX_GUEST_RETURNED || result.status != NX_STATUS_WAITING)
    return fail(bench, "the guest does not wait", NULL);
  uint64_t began = nx_clock_ns();
  if (nx_instance_suspend(instance, &patch, &bench->err)) return fail(bench, "suspend", NULL);
  take(&out->suspend, nx_clock_ns() - began);
  nx_instance_reset(instance);
  began = nx_clock_ns();
  if (nx_instance_restore(instance, (const uint8_t *)patch.data, patch.len, grant_all, NULL, &bench->err))
    return fail(bench, "restore", NULL);
  uint64_t restored = nx_clock_ns();
  nx_instance_reset(instance);
  take(&out->restore, restored - began);
  take(&out->reset, nx_clock_ns() - restored);
  out->patch_bytes = patch.len;
  return true;
}

static bool suspend_rounds(struct bench *bench, struct suspend_samples *out) {
  struct nx_instance *instance;
  unsigned rounds = out->suspend.capacity;
  if (nx_instance_create(&instance, &bench->err)) return fail(bench, "instance", NULL);
  bool ok = show_waiting_handler(bench, instance);
  for (unsigned i = 0; ok && i < rounds; i++) ok = suspend_round(bench, instance, out);
  out->suspend.count = out->restore.count = out->reset.count = 0; /* that was to warm up */
  for (unsigned i = 0; ok && i < rounds; i++) ok = suspend_round(bench, instance, out);
  if (ok && nx_instance_verify(instance)) ok = fail(bench, "the instance is not clean after the last reset", NULL);
  nx_instance_destroy(instance);
  return ok;
}

static bool measure_suspend(struct bench *bench) {
  struct suspend_samples samples = {0};
  unsigned rounds = bench->rounds / SUSPEND_ROUNDS_DIVISOR + 1;
  bool ok = samples_init(&samples.suspend, rounds) && samples_init(&samples.restore, rounds) &&
            samples_init(&samples.reset, rounds) && suspend_rounds(bench, &samples);
  if (ok) {
    printf("\"suspend\":{");
    report("suspend_us", &samples.suspend, ",");
    report("restore_us", &samples.restore, ",");
    report("reset_us", &samples.reset, ",");
    printf("\"patch_bytes\":%zu},", samples.patch_bytes);
  }
  free(samples.suspend.ns);
  free(samples.restore.ns);
  free(samples.reset.ns);
  return ok;
}

/* ---- What happens once per handler or instance ------------------------------------------------------------------------ */

/* Every time in an instance of the pool that shows the base image, as the server does it. The last image stays. */
static bool measure_compile(struct bench *bench) {
  struct nx_text source = {bench->source.data, (uint32_t)bench->source.len};
  for (unsigned i = 0; i < RARE_ROUNDS; i++) {
    struct nx_execution x = new_execution(bench);
    struct nx_lease lease;
    nx_image_release(bench->image);
    bench->image = NULL;
    uint64_t began = nx_clock_ns();
    struct nx_reservation reservation = {0};
    if (nx_pool_acquire(bench->pool, nx_sandbox_base_image(), &reservation, &lease, &bench->err))
      return fail(bench, "pool", NULL);
    x.budget = &lease;
    nx_execution_compile(&x, lease.instance, source, NULL, &bench->image);
    nx_pool_release(&lease);
    nx_pool_unreserve(bench->pool, &reservation);
    take(&bench->whole, nx_clock_ns() - began);
    take(&bench->guest, x.duration_ns);
    bool ok = x.outcome == NX_OUTCOME_SUCCESS;
    if (!ok) fail(bench, nx_outcome_code(x.outcome), &x.error.message);
    nx_execution_deinit(&x);
    if (!ok) return false;
  }
  printf("\"first_compile_us\":%.2f,", bench->whole.ns[0] / 1000.0);
  report("compile_us", &bench->whole, ",");
  report("compile_guest_us", &bench->guest, ",");
  printf("\"image_pages\":%u,", bench->image->page_count);
  return true;
}

/* Creating, showing the handler, and the first execution: every page it touches is a fault. */
static bool measure_fresh(struct bench *bench) {
  struct samples create = {0}, show = {0}, first = {0};
  bool ok = samples_init(&create, RARE_ROUNDS) && samples_init(&show, RARE_ROUNDS) && samples_init(&first, RARE_ROUNDS);
  for (unsigned i = 0; ok && i < RARE_ROUNDS; i++) {
    struct nx_instance *instance;
    uint64_t began = nx_clock_ns();
    if (nx_instance_create(&instance, &bench->err)) return fail(bench, "instance", NULL);
    uint64_t created = nx_clock_ns();
    ok = !nx_instance_show(instance, bench->image, &bench->err) || fail(bench, "image", NULL);
    uint64_t shown = nx_clock_ns();
    ok = ok && bare_round(bench, instance, false);
    take(&create, created - began);
    take(&show, shown - created);
    take(&first, nx_clock_ns() - shown);
    nx_instance_destroy(instance);
  }
  report("instance_create_us", &create, ",");
  report("instance_show_us", &show, ",");
  report("first_execution_us", &first, ",");
  free(create.ns);
  free(show.ns);
  free(first.ns);
  return ok;
}

/* On a thread of its own, for a native stack of the size the server gives. */
static void *measure(void *argument) {
  struct bench *bench = argument;
  unsigned capacity = bench->rounds > RARE_ROUNDS ? bench->rounds : RARE_ROUNDS;
  if (nx_sandbox_thread_enter(&bench->err)) {
    fail(bench, "thread", NULL);
    return NULL;
  }
  if (!samples_init(&bench->whole, capacity) || !samples_init(&bench->guest, capacity) ||
      !samples_init(&bench->reset, capacity)) {
    fail(bench, "no memory for samples", NULL);
  } else {
    printf("{\"handler\":");
    NX_BUF_AUTO name = {0};
    nx_buf_json_string(&name, bench->handler_path, strlen(bench->handler_path));
    printf("%.*s,\"method\":\"%s\",\"rounds\":%u,\"sandbox_init_us\":%.2f,", (int)name.len, name.data,
           nx_reset_method_name(nx_sandbox_reset_method()), bench->rounds, (double)bench->init_ns / 1000);
    if (measure_compile(bench) && measure_fresh(bench) && measure_pool(bench) && measure_bare(bench) &&
        measure_suspend(bench))
      printf("\"clean\":true}\n");
  }
  nx_sandbox_thread_leave();
  return NULL;
}

/* ---- Setting up --------------------------------------------------------------------------------------------------- */

static bool parse_method(const char *name, enum nx_reset_method *out) {
  static const struct {
    const char *name;
    enum nx_reset_method method;
  } methods[] = {
    {"auto", NX_RESET_AUTO}, {"scan+faults", NX_RESET_SCAN_FAULTS}, {"scan", NX_RESET_SCAN}, {"remap", NX_RESET_REMAP},
  };
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    if (strcmp(methods[i].name, name)) continue;
    *out = methods[i].method;
    return true;
  }
  return false;
}

static bool parse(struct bench *bench, int argc, char **argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    char *end;
    if (!strcmp(name, "--handler"))
      bench->handler_path = value;
    else if (!strcmp(name, "--args"))
      bench->args_path = value;
    else if (!strcmp(name, "--rounds") && (bench->rounds = (unsigned)strtoul(value, &end, 10)) && !*end &&
             bench->rounds <= ROUNDS_MAX)
      continue;
    else if (strcmp(name, "--method") || !parse_method(value, &bench->method))
      return false;
  }
  return argc % 2 == 1;
}

static int prepare(struct bench *bench) {
  struct nx_error *err = &bench->err;
  struct nx_json_fault fault;
  NX_BUF_AUTO problems = {0};
  int status = nx_fs_read_file(bench->handler_path, FILE_MAX_BYTES, &bench->source, err);
  if (!status) status = nx_fs_read_file(bench->args_path, FILE_MAX_BYTES, &bench->args, err);
  if (!status && !nx_json_is_valid(bench->args.data, bench->args.len, &fault))
    status = nx_error_set(err, NX_ERR_INVALID, "%s: not valid JSON: %s", bench->args_path, fault.reason);
  if (!status) status = nx_config_load(&bench->config, NULL, 0, NULL, &problems, err); /* the defaults */
  if (status) return status;
  struct nx_boot_image boot = nx_boot_image_linked();
  uint64_t began = nx_clock_ns();
  status = nx_sandbox_init(bench->method, &boot, err);
  bench->init_ns = nx_clock_ns() - began;
  const struct nx_governor_options governor = {.ledger = &bench->ledger, .limit_bytes = BUDGET_BYTES};
  if (!status) status = nx_governor_create(&bench->governor, &governor, err);
  return status ? status : nx_pool_create(&bench->pool, 1, LEASE_BYTES, bench->governor, err);
}

static void finish(struct bench *bench) {
  nx_pool_destroy(bench->pool);
  nx_governor_destroy(bench->governor);
  nx_image_release(bench->image);
  nx_buf_deinit(&bench->source);
  nx_buf_deinit(&bench->args);
  free(bench->whole.ns);
  free(bench->guest.ns);
  free(bench->reset.ns);
  nx_sandbox_deinit();
}

int main(int argc, char **argv) {
  static struct bench bench = {
    .handler_path = "examples/handlers/cart.js",
    .args_path = "examples/cart.json",
    .method = NX_RESET_AUTO,
    .rounds = 20000,
  };
  if (!parse(&bench, argc, argv)) {
    fputs(usage, stderr);
    return 2;
  }
  if (prepare(&bench)) {
    fail(&bench, "start", NULL);
    return 1;
  }
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, nx_sandbox_native_stack_bytes(bench.config.stack_size_bytes));
  if ((errno = pthread_create(&thread, &attributes, measure, &bench))) {
    perror("exec_bench: cannot start a thread");
    bench.failed = true;
  } else {
    pthread_join(thread, NULL);
  }
  pthread_attr_destroy(&attributes);
  finish(&bench);
  return bench.failed;
}
