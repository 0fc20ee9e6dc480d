/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus plan [--json] [--limit SIZE] [--request SIZE] … [FLAGS of serve]: what this container, or one of the given size,
 * can hold. Everything that is not said is as serve would see it. Exit status 1 when it cannot be.
 * With --manifest FILE: cli/plan_manifest.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/plan_manifest.h"
#include "cli/plan_options.h"
#include "cli/plan_print.h"

#define HPA_PERCENT 80u /* unless said otherwise, where there is a request */

/* ---- The container ----------------------------------------------------------------------------------------------------------- */

static int read_machine(const struct nx_plan_options *o, struct nx_machine *machine, struct nx_error *err) {
  struct nx_cgroup *cgroup;
  struct rlimit files;
  int rc = nx_cgroup_open(&cgroup, "/", err);
  if (rc) return rc;
  *machine = nx_cli_machine(cgroup);
  nx_cgroup_close(cgroup);
  if (!getrlimit(RLIMIT_NOFILE, &files)) machine->max_files = files.rlim_max; /* serve raises its limit to that */
  if (o->cores) machine->cores = o->cores;
  if (o->limit_is_given) { /* of a container that may run elsewhere */
    machine->memory_limit_bytes = nx_reading_of(o->limit_bytes);
    machine->memory_bytes = nx_reading_unknown();
  }
  return 0;
}

/* What the kernel enforces; CONTAINER_MEMORY_LIMIT says it where the kernel does not. */
static struct nx_reading container_limit(const struct nx_config *config, const struct nx_machine *machine) {
  switch (config->limit_origin) {
  case NX_LIMIT_FROM_MACHINE: return nx_reading_unlimited();
  case NX_LIMIT_GUESSED: return nx_reading_unknown();
  default: break;
  }
  return nx_reading_is_value(machine->memory_limit_bytes) ? machine->memory_limit_bytes
                                                          : nx_reading_of(config->limit_bytes);
}

static int print(const struct nx_plan_options *o, const struct nx_config *config, const struct nx_machine *machine) {
  struct nx_plan_input input = nx_plan_input_of(config);
  input.container_limit_bytes = container_limit(config, machine);
  input.request_is_known = o->request_is_given || o->limit_is_given;
  input.request_bytes = o->request_bytes;
  input.autoscaler_percent = o->hpa_percent;
  input.pods_min = o->pods_min;
  input.pods_max = o->pods_max;
  input.alert_percent = o->alert_percent;
  struct nx_plan plan;
  struct nx_findings findings = {0};
  nx_plan_make(&input, &plan);
  nx_plan_describe(&input, &plan, &findings);
  const struct nx_plan_report report = {
    .input = &input, .plan = &plan, .findings = &findings, .verdict = nx_plan_finding_name(plan.verdict)};
  int printed = nx_plan_print(&report, o->json);
  bool cannot_be = findings.count && findings.worst == NX_SEVERITY_ERROR;
  nx_findings_deinit(&findings);
  return printed || cannot_be ? NX_EXIT_FAILURE : NX_EXIT_OK;
}

static void set_defaults(struct nx_plan_options *o) {
  if (!o->hpa_percent && o->request_is_given) o->hpa_percent = HPA_PERCENT;
  if (!o->pods_min) o->pods_min = 1;
  if (!o->pods_max) o->pods_max = o->pods_min > 10 ? o->pods_min : 10;
}

static int plan(struct nx_plan_options *o, int argc, char **argv) {
  struct nx_config config;
  struct nx_machine machine;
  struct nx_error err;
  nx_plan_options_parse(o, argc - 1, argv + 1);
  if (o->manifest) return nx_plan_of_manifest(o);
  set_defaults(o);
  if (nx_config_load(&config, environ, o->serve_count, o->serve, o->problems, &err) || o->problems->len) {
    fprintf(stderr, "%.*s%s", (int)o->problems->len, o->problems->len ? o->problems->data : "", nx_plan_usage);
    return NX_EXIT_USAGE;
  }
  if (read_machine(o, &machine, &err)) {
    fprintf(stderr, "nexus plan: %s\n", err.text);
    return NX_EXIT_FAILURE;
  }
  if (nx_config_derive(&config, &machine, &err)) {
    fprintf(stderr, "nexus plan: %s\n", err.text);
    return NX_EXIT_USAGE;
  }
  return print(o, &config, &machine);
}

int nx_cmd_plan(int argc, char **argv) {
  NX_BUF_AUTO problems = {0};
  struct nx_plan_options options = {.alert_percent = 70, .problems = &problems};
  options.serve = calloc((size_t)argc, sizeof *options.serve);
  if (!options.serve) {
    fputs("nexus plan: no memory\n", stderr);
    return NX_EXIT_FAILURE;
  }
  int status = plan(&options, argc, argv);
  free(options.serve);
  return status;
}
