/* SPDX-License-Identifier: Apache-2.0
 *
 * exec_bench: what one clean execution costs, in process, on one thread, without HTTP. JSON on stdout.
 *
 *   exec_bench [--handler FILE] [--args FILE] [--method auto|scan+faults|scan|remap] [--rounds N]
 *
 * Two forms of the same round, one after the other:
 *   pool   what the server does per request: nx_pool_acquire, nx_execution_run, nx_pool_release
 *   bare   nx_instance_invoke and nx_instance_reset alone */
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
#include "samples.h"

#define FILE_MAX_BYTES (1u << 20)
#define ROUNDS_MAX 10000000u
/* Of what happens once per handler or instance: compiling, creating, first executions. */
#define RARE_ROUNDS 50u
#define BUDGET_BYTES (UINT64_C(1) << 30)
#define LEASE_BYTES (UINT64_C(2) << 20)

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
    samples_take(&bench->whole, ended - began);
    samples_take(&bench->guest, x.duration_ns);
    samples_take(&bench->reset, ended - ran);
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
    samples_take(&bench->whole, ended - began);
    samples_take(&bench->guest, ran - began);
    samples_take(&bench->reset, ended - ran);
  }
  return true;
}

/* ---- What is measured --------------------------------------------------------------------------------------------- */

/* CPU time of this thread: what a round costs even while others have the processor. */
static uint64_t cpu_ns(void) { return nx_clock_read_ns(CLOCK_THREAD_CPUTIME_ID); }

static void report_rounds(struct bench *bench, const char *name, uint32_t dirty_pages, uint64_t cpu_began_ns) {
  double cpu_us = (double)(cpu_ns() - cpu_began_ns) / bench->rounds / 1000;
  printf("\"%s\":{", name);
  samples_report("whole_us", &bench->whole, ",");
  samples_report("guest_us", &bench->guest, ",");
  samples_report("reset_us", &bench->reset, ",");
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
    samples_take(&bench->whole, nx_clock_ns() - began);
    samples_take(&bench->guest, x.duration_ns);
    bool ok = x.outcome == NX_OUTCOME_SUCCESS;
    if (!ok) fail(bench, nx_outcome_code(x.outcome), &x.error.message);
    nx_execution_deinit(&x);
    if (!ok) return false;
  }
  printf("\"first_compile_us\":%.2f,", bench->whole.ns[0] / 1000.0);
  samples_report("compile_us", &bench->whole, ",");
  samples_report("compile_guest_us", &bench->guest, ",");
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
    samples_take(&create, created - began);
    samples_take(&show, shown - created);
    samples_take(&first, nx_clock_ns() - shown);
    nx_instance_destroy(instance);
  }
  samples_report("instance_create_us", &create, ",");
  samples_report("instance_show_us", &show, ",");
  samples_report("first_execution_us", &first, ",");
  free(create.ns);
  free(show.ns);
  free(first.ns);
  return ok;
}

static void measure(void *argument) {
  struct bench *bench = argument;
  unsigned capacity = bench->rounds > RARE_ROUNDS ? bench->rounds : RARE_ROUNDS;
  if (!samples_init(&bench->whole, capacity) || !samples_init(&bench->guest, capacity) ||
      !samples_init(&bench->reset, capacity)) {
    fail(bench, "no memory for samples", NULL);
  } else {
    printf("{\"handler\":");
    NX_BUF_AUTO name = {0};
    nx_buf_json_string(&name, bench->handler_path, strlen(bench->handler_path));
    printf("%.*s,\"method\":\"%s\",\"rounds\":%u,\"sandbox_init_us\":%.2f,", (int)name.len, name.data,
           nx_reset_method_name(nx_sandbox_reset_method()), bench->rounds, (double)bench->init_ns / 1000);
    if (measure_compile(bench) && measure_fresh(bench) && measure_pool(bench) && measure_bare(bench))
      printf("\"clean\":true}\n");
  }
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
  if (nx_sandbox_run_thread(bench.config.stack_size_bytes, measure, &bench, &bench.err)) fail(&bench, "thread", NULL);
  finish(&bench);
  return bench.failed;
}
