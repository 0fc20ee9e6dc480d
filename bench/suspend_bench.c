/* SPDX-License-Identifier: Apache-2.0
 *
 * suspend_bench: what suspending and resuming a small async handler costs, in process, on one thread, without HTTP, in the
 * store in memory. JSON on stdout.
 *
 *   suspend_bench [--rounds N]
 *
 *   suspend   what the server does from a request to its suspension: admit, acquire, run, patch, reset, keep
 *   resume    and from the answer to the result: lease, load, admit, acquire, restore, run, reset, commit
 *   steps     parts of both, each alone */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

#include "base/clock.h"
#include "exec/exec.h"
#include "memory/ledger.h"
#include "samples.h"
#include "suspend/suspensions.h"

#define ROUNDS_MAX 1000000u
/* Executions that are suspended all the while: tables and heap are not empty. */
#define OTHERS 10000u
#define LEASE_MS 60000u

enum step { SUSPEND, RESUME, INVOKE, PATCH, RESET, RESTORE, ANSWER, KEEP, TAKE, COMMIT, STEPS };

struct bench {
  unsigned rounds;
  struct nx_config config;
  struct nx_ledger ledger;
  struct nx_governor *governor;
  struct nx_registry *registry;
  struct nx_suspensions *suspensions;
  struct nx_exec *exec;
  struct nx_capabilities capabilities;
  struct nx_handler *handler;
  struct samples samples[STEPS];
  size_t item_bytes, patch_bytes;
  struct nx_error err;
  bool failed;
};

static const char source[] = "const order = await $ext.http.get('https://example.com/orders', {id: $args.id});\n"
                             "return order.total;";
static const struct nx_text args = {"{\"id\":7}", 8};
static const struct nx_text order = {"{\"total\":12.5}", 14};
static const char answers[] = "[{\"callId\":1,\"success\":true,\"value\":{\"total\":12.5}}]";

static bool fail(struct bench *bench, const char *what) {
  fprintf(stderr, "suspend_bench: %s: %s\n", what, bench->err.text[0] ? bench->err.text : "failed");
  bench->failed = true;
  return false;
}

static void took(struct bench *bench, enum step step, uint64_t began_ns) {
  samples_take(&bench->samples[step], nx_clock_ns() - began_ns);
}

/* ---- Whole: through the executor ---------------------------------------------------------------------------------- */

static bool suspend(struct bench *bench, struct nx_buf *name) {
  struct nx_job job = {.execution = {
    .handler = bench->handler,
    .rights.request = &bench->capabilities,
    .args = args,
    .limits = nx_exec_limits(&bench->config),
    .account = nx_governor_buffers(bench->governor),
  }};
  nx_execution_name(&job.execution);
  uint64_t began = nx_clock_ns();
  if (nx_exec_submit(bench->exec, &job) == NX_JOB_ADMITTED) nx_exec_run(bench->exec, &job);
  took(bench, SUSPEND, began);
  bool ok = job.state == NX_JOB_DONE && job.execution.outcome == NX_OUTCOME_SUSPENDED && job.name.len;
  nx_buf_add(name, job.name.data, job.name.len);
  bench->err = job.refusal;
  nx_job_deinit(&job);
  return ok || fail(bench, "suspend");
}

static bool resume(struct bench *bench, const struct nx_buf *name) {
  const struct nx_answer answer = {.success = true, .json = order};
  struct nx_job job = {
    .kind = NX_JOB_RESUME,
    .suspension = {name->data, (uint32_t)name->len},
    .answers = &answer,
    .answer_count = 1,
    .execution.account = nx_governor_buffers(bench->governor),
  };
  uint64_t began = nx_clock_ns();
  if (nx_exec_submit(bench->exec, &job) == NX_JOB_ADMITTED) nx_exec_run(bench->exec, &job);
  took(bench, RESUME, began);
  bool ok = job.state == NX_JOB_DONE && job.execution.outcome == NX_OUTCOME_SUCCESS && job.execution.value.len == 4 &&
            !memcmp(job.execution.value.data, "12.5", 4);
  bench->err = job.refusal;
  nx_job_deinit(&job);
  return ok || fail(bench, "resume");
}

static bool whole_round(struct bench *bench) {
  NX_BUF_AUTO name = {0};
  return suspend(bench, &name) && resume(bench, &name);
}

/* ---- Steps: an instance alone, the store alone ---------------------------------------------------------------------- */

static int32_t answer_later(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b,
                            uint32_t b_bytes) {
  (void)opaque, (void)a, (void)a_bytes, (void)b, (void)b_bytes;
  return op == NX_OP_EXT_CALL ? 1 : NX_REPLY_OK;
}

static bool grant_all(void *nobody, size_t bytes) {
  (void)nobody, (void)bytes;
  return true;
}

static struct nx_guest_call new_call(const struct bench *bench) {
  return (struct nx_guest_call){
    .deadline_ns = nx_clock_ns() + bench->config.timeout_ms * NX_NS_PER_MS,
    .memory_limit_bytes = (uint32_t)bench->config.memory_limit_bytes,
    .stack_limit_bytes = nx_sandbox_usable_stack_bytes((uint32_t)bench->config.stack_size_bytes),
    .host_call = answer_later,
    .grant = grant_all,
  };
}

static void reset(struct bench *bench, struct nx_instance *instance) {
  uint64_t began = nx_clock_ns();
  nx_instance_reset(instance);
  took(bench, RESET, began);
}

static bool suspend_instance(struct bench *bench, struct nx_instance *instance, struct nx_buf *patch) {
  const struct nx_text absent = {0};
  struct nx_guest_call call = new_call(bench);
  uint64_t began = nx_clock_ns();
  struct nx_guest_result result = nx_instance_invoke(instance, &call, args, absent, absent);
  took(bench, INVOKE, began);
  if (result.end != NX_GUEST_RETURNED || result.status != NX_STATUS_WAITING) return fail(bench, "the guest does not wait");
  began = nx_clock_ns();
  if (nx_instance_suspend(instance, patch, &bench->err)) return fail(bench, "patch");
  took(bench, PATCH, began);
  bench->patch_bytes = patch->len;
  reset(bench, instance);
  return true;
}

static bool resume_instance(struct bench *bench, struct nx_instance *instance, const struct nx_buf *patch) {
  struct nx_guest_call call = new_call(bench);
  uint64_t began = nx_clock_ns();
  if (nx_instance_restore(instance, (const uint8_t *)patch->data, patch->len, grant_all, NULL, &bench->err))
    return fail(bench, "restore");
  took(bench, RESTORE, began);
  began = nx_clock_ns();
  struct nx_guest_result result = nx_instance_resume(instance, &call, (struct nx_text){answers, sizeof answers - 1});
  took(bench, ANSWER, began);
  if (result.end != NX_GUEST_RETURNED || result.status != NX_STATUS_DONE) return fail(bench, "the guest does not end well");
  reset(bench, instance);
  return true;
}

static bool instance_round(struct bench *bench, struct nx_instance *instance) {
  NX_BUF_AUTO patch = {0};
  return suspend_instance(bench, instance, &patch) && resume_instance(bench, instance, &patch);
}

/* With the record of a suspended execution. */
static bool store_round(struct bench *bench, struct nx_record *record) {
  const struct nx_bytes text = {source, sizeof source - 1};
  NX_BUF_AUTO name = {0};
  struct nx_taken taken = {0};
  struct nx_refusal refused;
  struct nx_record finished = *record;
  finished.sections[NX_RECORD_PATCH] = (struct nx_bytes){0};
  uint64_t began = nx_clock_ns();
  if (nx_suspensions_keep(bench->suspensions, record, text, 0, &name, &refused, &bench->err)) return fail(bench, "keep");
  took(bench, KEEP, began);
  began = nx_clock_ns();
  if (nx_suspensions_take(bench->suspensions, &(struct nx_tenant){0}, name.data, name.len, LEASE_MS, &taken, &bench->err)) return fail(bench, "take");
  took(bench, TAKE, began);
  began = nx_clock_ns();
  int status = nx_suspensions_put_back(bench->suspensions, &taken, &finished, NX_STORED_FINISHED, text, 0, &name, &refused,
                                       &bench->err);
  took(bench, COMMIT, began);
  nx_taken_deinit(&taken);
  return !status || fail(bench, "commit");
}

/* ---- The run ---------------------------------------------------------------------------------------------------------- */

static bool run_whole(struct bench *bench, unsigned rounds) {
  for (unsigned i = 0; i < rounds; i++)
    if (!whole_round(bench)) return false;
  return true;
}

static bool run_instance(struct bench *bench, unsigned rounds) {
  struct nx_instance *instance;
  if (nx_instance_create(&instance, &bench->err)) return fail(bench, "instance");
  bool ok = !nx_instance_show(instance, bench->handler->image, &bench->err) || fail(bench, "image");
  for (unsigned i = 0; ok && i < rounds; i++) ok = instance_round(bench, instance);
  if (ok && nx_instance_verify(instance)) ok = fail(bench, "the instance is not clean after the last reset");
  nx_instance_destroy(instance);
  return ok;
}

static bool run_store(struct bench *bench, unsigned rounds) {
  NX_BUF_AUTO name = {0};
  struct nx_taken taken = {0};
  bool ok = suspend(bench, &name);
  if (ok && nx_suspensions_read(bench->suspensions, &(struct nx_tenant){0}, name.data, name.len, &taken, &bench->err)) ok = fail(bench, "read");
  bench->item_bytes = taken.bytes.len;
  for (unsigned i = 0; ok && i < rounds; i++) ok = store_round(bench, &taken.record);
  nx_taken_deinit(&taken);
  return ok;
}

static bool run(struct bench *bench, unsigned rounds) {
  return run_whole(bench, rounds) && run_instance(bench, rounds) && run_store(bench, rounds);
}

static bool suspend_others(struct bench *bench) {
  for (unsigned i = 0; i < OTHERS; i++) {
    NX_BUF_AUTO name = {0};
    if (!suspend(bench, &name)) return false;
  }
  return true;
}

static void report(struct bench *bench) {
  static const char *const names[STEPS] = {
    [SUSPEND] = "suspend_us", [RESUME] = "resume_us", [INVOKE] = "invoke_us", [PATCH] = "patch_us", [RESET] = "reset_us",
    [RESTORE] = "restore_us", [ANSWER] = "answer_us", [KEEP] = "keep_us", [TAKE] = "take_us", [COMMIT] = "commit_us",
  };
  printf("{");
  for (int i = 0; i < STEPS; i++) samples_report(names[i], &bench->samples[i], ",");
  printf("\"patch_bytes\":%zu,\"item_bytes\":%zu}\n", bench->patch_bytes, bench->item_bytes);
}

static bool compile(struct bench *bench) {
  struct nx_job job = {
    .kind = NX_JOB_COMPILE,
    .source = {source, sizeof source - 1},
    .execution.limits = nx_exec_limits(&bench->config),
  };
  nx_exec_run_waiting(bench->exec, &job);
  if (job.execution.outcome != NX_OUTCOME_SUCCESS || !job.execution.handler) return fail(bench, "compile");
  bench->handler = job.execution.handler;
  job._owns_handler = false;
  nx_job_deinit(&job);
  return true;
}

/* The warm-up's times are forgotten. */
static void measure(void *argument) {
  struct bench *bench = argument;
  bool ok = compile(bench) && suspend_others(bench) && run(bench, bench->rounds / 4);
  for (int i = 0; i < STEPS; i++) bench->samples[i].count = 0;
  if (ok && run(bench, bench->rounds)) report(bench);
}

/* ---- Setting up --------------------------------------------------------------------------------------------------- */

static int allow_http(struct bench *bench) {
  static const char json[] = "{\"capabilities\":[\"ext:http\"],\"extensions\":{\"http\":[\"get\"]}}";
  yyjson_doc *doc = yyjson_read(json, sizeof json - 1, 0);
  yyjson_val *root = yyjson_doc_get_root(doc);
  int status = nx_capabilities_parse(&bench->capabilities, yyjson_obj_get(root, "capabilities"),
                                     yyjson_obj_get(root, "extensions"), &bench->err);
  yyjson_doc_free(doc);
  return status;
}

static int open_parts(struct bench *bench) {
  struct nx_error *err = &bench->err;
  const struct nx_registry_opts registry = {.cache_max_count = 10, .cache_max_bytes = 8u << 20};
  const struct nx_governor_options governor = {.ledger = &bench->ledger, .limit_bytes = bench->config.limit_bytes};
  int status = nx_governor_create(&bench->governor, &governor, err);
  if (!status) status = nx_registry_create(&bench->registry, &registry, err);
  if (status) return status;
  const struct nx_suspensions_options suspensions = {
    .config = &bench->config,
    .guest_id = nx_sandbox_guest_id(),
    .account = nx_governor_account(bench->governor, NX_LAYER_SUSPENDED, NX_DEMAND_GROWTH),
    .governor = bench->governor,
  };
  status = nx_suspensions_create(&bench->suspensions, &suspensions, err);
  const struct nx_exec_options exec = {
    .config = &bench->config,
    .ledger = &bench->ledger,
    .governor = bench->governor,
    .registry = bench->registry,
    .suspensions = bench->suspensions,
  };
  const struct nx_exec_hooks hooks = {0};
  if (!status) status = nx_exec_create(&bench->exec, &exec, err);
  return status ? status : nx_exec_start(bench->exec, &hooks, err);
}

static int prepare(struct bench *bench) {
  struct nx_error *err = &bench->err;
  NX_BUF_AUTO problems = {0};
  struct nx_boot_image boot = nx_boot_image_linked();
  const struct nx_machine machine = {.memory_limit_bytes = {NX_READING_VALUE, 1u << 30}, .cores = 1, .max_files = 4096,
                                     .memory_bytes = {NX_READING_VALUE, 1u << 30}};
  unsigned samples = 2 * bench->rounds + OTHERS;
  for (int i = 0; i < STEPS; i++)
    if (!samples_init(&bench->samples[i], samples)) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for samples");
  int status = nx_config_load(&bench->config, NULL, 0, NULL, &problems, err); /* the defaults */
  if (!status) status = nx_config_resolve(&bench->config, &machine, err);
  if (!status) status = nx_sandbox_init(NX_RESET_AUTO, &boot, err);
  if (!status) status = open_parts(bench);
  return status ? status : allow_http(bench);
}

static void finish(struct bench *bench) {
  nx_handler_release(bench->handler);
  nx_exec_destroy(bench->exec);
  nx_suspensions_destroy(bench->suspensions);
  nx_registry_destroy(bench->registry);
  nx_governor_destroy(bench->governor);
  nx_capabilities_deinit(&bench->capabilities);
  for (int i = 0; i < STEPS; i++) free(bench->samples[i].ns);
  nx_sandbox_deinit();
}

static bool parse(struct bench *bench, int argc, char **argv) {
  char *end;
  if (argc == 1) return true;
  if (argc != 3 || strcmp(argv[1], "--rounds")) return false;
  bench->rounds = (unsigned)strtoul(argv[2], &end, 10);
  return !*end && bench->rounds && bench->rounds <= ROUNDS_MAX;
}

int main(int argc, char **argv) {
  static struct bench bench = {.rounds = 10000};
  if (!parse(&bench, argc, argv)) {
    fputs("usage: suspend_bench [--rounds N]\n", stderr);
    return 2;
  }
  if (prepare(&bench)) {
    fail(&bench, "start");
    return 1;
  }
  if (nx_sandbox_run_thread(bench.config.stack_size_bytes, measure, &bench, &bench.err)) fail(&bench, "thread");
  finish(&bench);
  return bench.failed;
}
