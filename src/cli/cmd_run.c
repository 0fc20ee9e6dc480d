/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus run FILE …: one execution, the result on stdout as the API would give it. Exit status 0 for success. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <yyjson.h>

#include "base/fs.h"
#include "base/json_text.h"
#include "cli/cli.h"
#include "exec/result.h"

#define CAPABILITIES_MAX 64

struct options {
  const char *file, *args, *state, *scope;
  const char *capabilities[CAPABILITIES_MAX];
  size_t capability_count;
};

struct run {
  struct options options;
  struct nx_config config;
  struct nx_ledger ledger;
  struct nx_governor *governor;
  struct nx_registry *registry;
  struct nx_exec *exec;
  struct nx_net *net;
  struct nx_capabilities capabilities;
  struct nx_job job;
  sem_t wake; /* the job may go on */
  struct nx_buf source, result;
  struct nx_error err;
  int status;
};

static const char usage[] =
  "usage: nexus run FILE [--args JSON] [--state JSON] [--scope JSON] [--cap TOKEN]…\n";

static bool parse(struct options *options, int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (argv[i][0] != '-' || !argv[i][1]) {
      if (options->file) return false;
      options->file = argv[i];
      continue;
    }
    if (i + 1 == argc) return false;
    const char *name = argv[i], *value = argv[++i];
    if (!strcmp(name, "--args"))
      options->args = value;
    else if (!strcmp(name, "--state"))
      options->state = value;
    else if (!strcmp(name, "--scope"))
      options->scope = value;
    else if (!strcmp(name, "--cap") && options->capability_count < CAPABILITIES_MAX)
      options->capabilities[options->capability_count++] = value;
    else
      return false;
  }
  return options->file != NULL;
}

static int take_text(struct nx_text *out, const char *json, const char *what, struct nx_error *err) {
  struct nx_json_fault fault;
  if (!json) return 0;
  if (!nx_json_is_valid(json, strlen(json), &fault))
    return nx_error_set(err, NX_ERR_INVALID, "%s: not valid JSON: %s at byte %zu", what, fault.reason, fault.offset);
  *out = (struct nx_text){json, (uint32_t)strlen(json)};
  return 0;
}

static void add_string(struct nx_buf *json, const char *before, const char *text) {
  nx_buf_str(json, before);
  nx_buf_json_string(json, text, strlen(text));
}

/* {"capabilities": […], "extensions": {NAME: ["*"]}}: who may call an extension may call all of its methods. */
static void write_capabilities(const struct options *options, struct nx_buf *json) {
  nx_buf_lit(json, "{\"capabilities\":[");
  for (size_t i = 0; i < options->capability_count; i++) add_string(json, i ? "," : "", options->capabilities[i]);
  nx_buf_lit(json, "],\"extensions\":{");
  bool first = true;
  for (size_t i = 0; i < options->capability_count; i++) {
    const char *token = options->capabilities[i];
    if (strncmp(token, "ext:", 4) || strchr(token, '*')) continue; /* extensions are named one by one */
    add_string(json, first ? "" : ",", token + 4);
    nx_buf_lit(json, ":[\"*\"]");
    first = false;
  }
  nx_buf_lit(json, "}}");
}

/* The operator's own machine and state: all of it may be read unless capabilities are named. */
static int take_capabilities(struct run *run) {
  NX_BUF_AUTO json = {0};
  write_capabilities(&run->options, &json);
  yyjson_doc *doc = json.failed ? NULL : yyjson_read(json.data, json.len, 0);
  if (!doc) return nx_error_set(&run->err, NX_ERR_NO_MEMORY, "no memory");
  yyjson_val *root = yyjson_doc_get_root(doc);
  int status = nx_capabilities_parse(&run->capabilities, yyjson_obj_get(root, "capabilities"),
                                     yyjson_obj_get(root, "extensions"), &run->err);
  yyjson_doc_free(doc);
  run->job.execution.rights.request = &run->capabilities;
  return status;
}

static void wake(void *self) { sem_post(&((struct run *)self)->wake); }

static int prepare(struct run *run) {
  struct nx_error *err = &run->err;
  struct nx_execution *x = &run->job.execution;
  int status = nx_fs_read_file(run->options.file, run->config.max_body_bytes, &run->source, err);
  if (!status) status = take_text(&x->args, run->options.args, "--args", err);
  if (!status) status = take_text(&x->state, run->options.state, "--state", err);
  if (!status) status = take_text(&x->scope, run->options.scope, "--scope", err);
  if (!status) status = take_capabilities(run);
  if (status) return status;
  sem_init(&run->wake, 0, 0);
  struct nx_boot_image boot = nx_boot_image_linked();
  struct nx_registry_opts registry = {.cache_max_count = 1, .cache_max_bytes = SIZE_MAX};
  const struct nx_governor_options governor = {
    .ledger = &run->ledger,
    .limit_bytes = run->config.limit_bytes,
    .reserve_percent = (unsigned)run->config.memory_reserve_percent,
  };
  status = nx_sandbox_init(NX_RESET_AUTO, &boot, err);
  if (!status) status = nx_governor_create(&run->governor, &governor, err);
  if (!status) status = nx_registry_create(&run->registry, &registry, err);
  if (!status) status = nx_cli_open_net(&run->net, &run->config, nx_governor_buffers(run->governor), err);
  struct nx_exec_options options = {
    .config = &run->config,
    .ledger = &run->ledger,
    .governor = run->governor,
    .registry = run->registry,
    .net = run->net,
  };
  struct nx_exec_hooks hooks = {.self = run, .wake = wake};
  run->job.owner = run;
  if (!status) status = nx_exec_create(&run->exec, &options, err);
  if (!status) status = nx_exec_start(run->exec, &hooks, err);
  return status;
}

/* The execution sleeps, or waits for a response. */
static enum nx_job_state go_on(struct run *run) {
  struct nx_job *job;
  while (!(job = nx_exec_next(run->exec))) sem_wait(&run->wake);
  return job->state == NX_JOB_ADMITTED ? nx_exec_run(run->exec, job) : job->state;
}

/* What waits for a call that only its caller can answer has done what it can do here. */
static bool is_good(enum nx_outcome outcome) { return outcome == NX_OUTCOME_SUCCESS || outcome == NX_OUTCOME_SUSPENDED; }

static void execute(void *argument) {
  struct run *run = argument;
  struct nx_job *job = &run->job;
  job->source = (struct nx_text){run->source.data ? run->source.data : "", (uint32_t)run->source.len};
  job->execution.limits = nx_exec_limits(&run->config);
  nx_execution_name(&job->execution);
  enum nx_job_state state = nx_exec_run_waiting(run->exec, job);
  while (nx_job_is_elsewhere(state)) state = go_on(run);
  nx_result_write(job, &run->result);
  nx_buf_char(&run->result, '\n');
  run->status = is_good(job->execution.outcome) ? NX_EXIT_OK : NX_EXIT_FAILURE;
}

static void finish(struct run *run) {
  nx_job_deinit(&run->job);
  nx_net_destroy(run->net);
  nx_exec_destroy(run->exec);
  nx_registry_destroy(run->registry);
  nx_governor_destroy(run->governor);
  nx_capabilities_deinit(&run->capabilities);
  nx_buf_deinit(&run->source);
  nx_buf_deinit(&run->result);
  nx_sandbox_deinit();
  sem_destroy(&run->wake);
}

int nx_cmd_run(int argc, char **argv) {
  struct run run = {.status = NX_EXIT_FAILURE};
  struct nx_cgroup *cgroup;
  if (!parse(&run.options, argc, argv)) {
    fputs(usage, stderr);
    return NX_EXIT_USAGE;
  }
  int status = nx_cli_load(&run.config, &cgroup, 1, argv);
  if (status) return status;
  nx_cgroup_close(cgroup);
  nx_log_init(STDERR_FILENO, NX_LOG_WARN, run.config.log_json);
  if (prepare(&run)) {
    fprintf(stderr, "nexus run: %s\n", run.err.text);
    return NX_EXIT_FAILURE;
  }
  if (nx_sandbox_run_thread(run.config.stack_size_bytes, execute, &run, &run.err))
    fprintf(stderr, "nexus run: %s\n", run.err.text);
  else
    fwrite(run.result.data, 1, run.result.len, stdout);
  finish(&run);
  return run.status;
}
