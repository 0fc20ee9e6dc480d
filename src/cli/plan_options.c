/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "config/config.h"
#include "memory/plan.h"

#define CORES_MAX 65536u

const char nx_plan_usage[] =
  "usage: nexus plan [--json] [--manifest FILE] [--limit SIZE] [--request SIZE] [--instance SIZE] [--cache SIZE]\n"
  "                  [--cores N] [--hpa PERCENT] [--min-pods N] [--max-pods N] [--alert PERCENT] [FLAGS of serve]\n";

static void add_problem(struct nx_plan_options *o, const char *flag, const char *value, const char *expected) {
  nx_buf_printf(o->problems, "%s=", flag);
  nx_buf_json_string(o->problems, value, strnlen(value, 64));
  nx_buf_printf(o->problems, ": expected %s\n", expected);
}

/* Sizes are what the setting CONTAINER_MEMORY_LIMIT says they are. */
static bool parse_size(struct nx_plan_options *o, const char *flag, const char *value, uint64_t *bytes) {
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
static void parse_mib(struct nx_plan_options *o, const char *flag, const char *value, const char *serve_flag,
                      char text[48]) {
  uint64_t bytes;
  if (!parse_size(o, flag, value, &bytes)) return;
  if (bytes % NX_MIB) {
    add_problem(o, flag, value, "a multiple of 1Mi");
    return;
  }
  snprintf(text, 48, "--%s=%llu", serve_flag, (unsigned long long)(bytes / NX_MIB));
  o->serve[o->serve_count++] = text;
}

static void parse_count(struct nx_plan_options *o, const char *flag, const char *value, unsigned most, unsigned *count) {
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
                                      "--hpa",   "--min-pods", "--max-pods", "--alert", "--manifest"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (is(argument, len, flags[i])) return true;
  return false;
}

static void take(struct nx_plan_options *o, const char *flag, const char *value) {
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
  else if (!strcmp(flag, "--manifest"))
    o->manifest = value;
  else
    parse_count(o, flag, value, 100, &o->alert_percent);
}

void nx_plan_options_parse(struct nx_plan_options *o, int argc, char **argv) {
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
  if (o->pods_max && o->pods_max < o->pods_min) nx_buf_lit(o->problems, "--max-pods: expected at least --min-pods\n");
}
