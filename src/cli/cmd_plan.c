/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus plan [--json] [--limit SIZE] [--request SIZE] … [FLAGS of serve]: what this container, or one of the given size,
 * can hold. Everything that is not said is as serve would see it. Exit status 1 when it cannot be. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/plan_print.h"

#define MIB (UINT64_C(1) << 20)
#define CORES_MAX 65536u
#define HPA_PERCENT 80u /* unless said otherwise, where there is a request */

static const char usage[] =
  "usage: nexus plan [--json] [--limit SIZE] [--request SIZE] [--instance SIZE] [--cache SIZE] [--cores N]\n"
  "                  [--hpa PERCENT] [--min-pods N] [--max-pods N] [--alert PERCENT] [FLAGS of serve]\n";

struct options {
  bool json, limit_is_given, request_is_given;
  uint64_t limit_bytes, request_bytes;
  unsigned cores, hpa_percent, pods_min, pods_max, alert_percent;
  char memory_flag[48], cache_flag[48]; /* what --instance and --cache mean to serve */
  char **serve;                         /* its arguments, in their order */
  int serve_count;
  struct nx_buf *problems;
};

/* ---- Arguments ------------------------------------------------------------------------------------------------------------- */

static void add_problem(struct options *o, const char *flag, const char *value, const char *expected) {
  nx_buf_printf(o->problems, "%s=", flag);
  nx_buf_json_string(o->problems, value, strnlen(value, 64));
  nx_buf_printf(o->problems, ": expected %s\n", expected);
}

/* Sizes are what the setting CONTAINER_MEMORY_LIMIT says they are. */
static bool parse_size(struct options *o, const char *flag, const char *value, uint64_t *bytes) {
  char argument[80];
  char *arguments[] = {argument};
  struct nx_config config;
  NX_BUF_AUTO unused = {0};
  snprintf(argument, sizeof argument, "--container-memory-limit=%s", value);
  bool right = strlen(value) < 40 && !nx_config_load(&config, NULL, 1, arguments, &unused, NULL) &&
               config.state[NX_SETTING_CONTAINER_MEMORY_LIMIT] == NX_CONFIG_VALUE;
  if (right)
    *bytes = config.container_memory_limit_bytes;
  else
    add_problem(o, flag, value, "bytes, or a whole number with Ki, Mi, Gi, Ti, k, M or G, from 1Mi to 1024Ti");
  return right;
}

/* A size that a setting of serve counts in MiB: its flag takes the place of this one. */
static void parse_mib(struct options *o, const char *flag, const char *value, const char *serve_flag, char text[48]) {
  uint64_t bytes;
  if (!parse_size(o, flag, value, &bytes)) return;
  if (bytes % MIB) {
    add_problem(o, flag, value, "a multiple of 1Mi");
    return;
  }
  snprintf(text, 48, "--%s=%llu", serve_flag, (unsigned long long)(bytes / MIB));
  o->serve[o->serve_count++] = text;
}

static void parse_count(struct options *o, const char *flag, const char *value, unsigned most, unsigned *count) {
  size_t digits = strspn(value, "0123456789");
  unsigned long number = digits && digits < 10 && !value[digits] ? strtoul(value, NULL, 10) : 0;
  if (number >= 1 && number <= most) {
    *count = (unsigned)number;
    return;
  }
  char expected[60];
  snprintf(expected, sizeof expected, "a whole number from 1 to %u", most);
  add_problem(o, flag, value, expected);
}

static bool is(const char *argument, size_t len, const char *flag) {
  return strlen(flag) == len && !memcmp(argument, flag, len);
}

static bool is_of_plan(const char *argument, size_t len) {
  static const char *const flags[] = {"--limit", "--request",  "--instance", "--cache", "--cores",
                                      "--hpa",   "--min-pods", "--max-pods", "--alert"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (is(argument, len, flags[i])) return true;
  return false;
}

static void take(struct options *o, const char *flag, const char *value) {
  if (!strcmp(flag, "--limit"))
    o->limit_is_given |= parse_size(o, flag, value, &o->limit_bytes);
  else if (!strcmp(flag, "--request"))
    o->request_is_given |= parse_size(o, flag, value, &o->request_bytes);
  else if (!strcmp(flag, "--instance"))
    parse_mib(o, flag, value, "memory-limit-mb", o->memory_flag);
  else if (!strcmp(flag, "--cache"))
    parse_mib(o, flag, value, "cache-max-mb", o->cache_flag);
  else if (!strcmp(flag, "--cores"))
    parse_count(o, flag, value, CORES_MAX, &o->cores);
  else if (!strcmp(flag, "--hpa"))
    parse_count(o, flag, value, NX_PLAN_PERCENT_MAX, &o->hpa_percent);
  else if (!strcmp(flag, "--min-pods"))
    parse_count(o, flag, value, NX_PLAN_PODS_MAX, &o->pods_min);
  else if (!strcmp(flag, "--max-pods"))
    parse_count(o, flag, value, NX_PLAN_PODS_MAX, &o->pods_max);
  else
    parse_count(o, flag, value, 100, &o->alert_percent);
}

/* Takes what is the plan's; the rest, with its values, is for nx_config_load to judge. */
static void parse(struct options *o, int argc, char **argv) {
  for (int i = 0; i < argc; i++) {
    size_t len = strcspn(argv[i], "=");
    bool has_value = argv[i][len], has_next = i + 1 < argc;
    if (!strcmp(argv[i], "--json")) {
      o->json = true;
    } else if (!is_of_plan(argv[i], len)) {
      o->serve[o->serve_count++] = argv[i];
      if (!has_value && has_next && !strncmp(argv[i], "--", 2)) o->serve[o->serve_count++] = argv[++i];
    } else if (has_value || has_next) {
      char flag[16];
      snprintf(flag, sizeof flag, "%.*s", (int)len, argv[i]);
      take(o, flag, has_value ? argv[i] + len + 1 : argv[i + 1]);
      i += !has_value;
    } else {
      nx_buf_printf(o->problems, "\"%s\": the value is missing\n", argv[i]);
    }
  }
  if (!o->hpa_percent && o->request_is_given) o->hpa_percent = HPA_PERCENT;
  if (!o->pods_max) o->pods_max = o->pods_min > 10 ? o->pods_min : 10;
  if (o->pods_max < o->pods_min) nx_buf_lit(o->problems, "--max-pods: expected at least --min-pods\n");
}

/* ---- The container ----------------------------------------------------------------------------------------------------------- */

static int read_machine(const struct options *o, struct nx_machine *machine, struct nx_error *err) {
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

static int print(const struct options *o, const struct nx_config *config, const struct nx_machine *machine) {
  struct nx_plan_input input = {
    .fit = nx_config_get_fit(config),
    .container_limit_bytes = container_limit(config, machine),
    .request_is_known = o->request_is_given || o->limit_is_given,
    .request_bytes = o->request_bytes,
    .max_instances = config->max_instances,
    .max_connections = config->max_connections,
    .connection_bytes = NX_CONFIG_CONNECTION_BYTES,
    .suspended_max_bytes = config->suspend_max_bytes,
    .autoscaler_percent = o->hpa_percent,
    .pods_min = o->pods_min,
    .pods_max = o->pods_max,
    .alert_percent = o->alert_percent,
  };
  struct nx_plan plan;
  nx_plan_make(&input, &plan);
  NX_BUF_AUTO out = {0};
  if (o->json)
    nx_plan_print_json(&input, &plan, &out);
  else
    nx_plan_print_text(&input, &plan, &out);
  fwrite(out.data, 1, out.len, stdout);
  bool cannot_be = plan.finding_count && nx_plan_finding_severity(plan.findings[0].kind) == NX_PLAN_ERROR;
  return cannot_be || out.failed || fflush(stdout) ? NX_EXIT_FAILURE : NX_EXIT_OK;
}

static int plan(struct options *o, int argc, char **argv) {
  struct nx_config config;
  struct nx_machine machine;
  struct nx_error err;
  parse(o, argc - 1, argv + 1);
  if (nx_config_load(&config, environ, o->serve_count, o->serve, o->problems, &err) || o->problems->len) {
    fprintf(stderr, "%.*s%s", (int)o->problems->len, o->problems->len ? o->problems->data : "", usage);
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
  struct options options = {.pods_min = 1, .alert_percent = 70, .problems = &problems};
  options.serve = calloc((size_t)argc, sizeof *options.serve);
  if (!options.serve) {
    fputs("nexus plan: no memory\n", stderr);
    return NX_EXIT_FAILURE;
  }
  int status = plan(&options, argc, argv);
  free(options.serve);
  return status;
}
