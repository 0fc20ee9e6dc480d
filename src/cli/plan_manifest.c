/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/plan_print.h"
#include "manifest/contradictions.h"
#include "manifest/yaml.h"

/* ---- The file -------------------------------------------------------------------------------------------------------- */

static int read_all(int fd, const char *name, struct nx_buf *text, struct nx_error *err) {
  enum { STEP = 64 << 10 };
  for (;;) {
    char *room = nx_buf_reserve(text, STEP);
    if (!room)
      return nx_error_set(err, NX_ERR_TOO_LARGE, "%.80s: more than %zu MiB, or no memory", name,
                          NX_YAML_TEXT_MAX >> 20);
    ssize_t bytes = read(fd, room, STEP);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return nx_error_sys(err, "%.80s", name);
    if (!bytes) return 0;
    text->len += (size_t)bytes;
  }
}

/* Pipes as well: --manifest <(kubectl kustomize DIR). */
static int read_file(const char *path, struct nx_buf *text, struct nx_error *err) {
  if (!strcmp(path, "-")) return read_all(STDIN_FILENO, "standard input", text, err);
  NX_FD_AUTO fd = open(path, O_RDONLY | O_CLOEXEC);
  return fd < 0 ? nx_error_sys(err, "%.80s", path) : read_all(fd, path, text, err);
}

/* ---- The configuration ----------------------------------------------------------------------------------------------- */

static void refuse(const struct nx_manifest *m, const char *text, size_t bytes, struct nx_findings *findings) {
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_SETTINGS_REFUSED, m->place);
  nx_finding_say(f, "%.*s", (int)bytes, text);
}

static void refuse_each(const struct nx_manifest *m, const struct nx_buf *problems, struct nx_findings *findings) {
  const char *line = problems->data, *end = problems->data + problems->len;
  for (const char *next; line < end; line = next + 1) {
    next = memchr(line, '\n', (size_t)(end - line));
    if (!next) break;
    refuse(m, line, (size_t)(next - line), findings);
  }
}

/* As the container would load it; the flags of this command go last. False when it would refuse. */
static bool load(const struct nx_plan_options *o, const struct nx_manifest *m, struct nx_config *config,
                 struct nx_findings *findings) {
  size_t count = m->argument_count + (size_t)o->serve_count;
  char **arguments = calloc(count + 1, sizeof *arguments);
  NX_BUF_AUTO problems = {0};
  struct nx_error err;
  if (!arguments) {
    refuse(m, "no memory", 9, findings);
    return false;
  }
  if (m->argument_count) memcpy(arguments, m->arguments, m->argument_count * sizeof *arguments);
  if (o->serve_count) memcpy(arguments + m->argument_count, o->serve, (size_t)o->serve_count * sizeof *arguments);
  bool right = !nx_config_load(config, m->environment, (int)count, arguments, &problems, &err);
  free(arguments);
  right &= !nx_cli_check_net_allow(config, &problems, &err);
  if (problems.len) refuse_each(m, &problems, findings);
  return right;
}

/* ---- The plan -------------------------------------------------------------------------------------------------------- */

static struct nx_plan_input input_of(const struct nx_plan_options *o, const struct nx_manifest *m,
                                     const struct nx_config *config) {
  struct nx_plan_input input = nx_plan_input_of(config);
  input.container_limit_bytes = m->memory.has_limit ? nx_reading_of(m->memory.limit) : nx_reading_unlimited();
  input.limit_is_told = !m->memory.has_limit;
  input.request_is_known = true;
  input.request_bytes = m->memory.request;
  input.pod_qos = m->qos;
  input.alert_percent = o->alert_percent;
  if (m->hpa.is_there) {
    input.autoscaler_percent = (unsigned)m->hpa.memory_percent;
    input.pods_min = (unsigned)m->hpa.pods_min;
    input.pods_max = (unsigned)nx_manifest_pods_max(m);
  }
  return input;
}

static const char *verdict_of(const struct nx_plan *plan, const struct nx_findings *findings) {
  if (findings->count && findings->worst != NX_SEVERITY_NOTE) return findings->items[0].name;
  return nx_plan_finding_name(plan ? plan->verdict : NX_PLAN_FINDING_COUNT);
}

static int plan(const struct nx_plan_options *o, const struct nx_manifest *m, struct nx_findings *findings) {
  struct nx_config config;
  struct nx_machine machine = nx_manifest_machine(m);
  struct nx_error err;
  bool is_loaded = load(o, m, &config, findings);
  bool is_derived = is_loaded && !nx_config_derive(&config, &machine, &err);
  struct nx_plan_input input;
  struct nx_plan made;
  if (is_derived) {
    input = input_of(o, m, &config);
    nx_plan_make(&input, &made);
    nx_plan_describe(&input, &made, findings);
  }
  nx_manifest_check(m, is_loaded ? &config : NULL, findings);
  nx_findings_sort(findings);
  const struct nx_plan *told = is_derived ? &made : NULL;
  const struct nx_plan_report report = {
    .input = &input, .plan = told, .manifest = m, .findings = findings, .verdict = verdict_of(told, findings)};
  bool contradicts = findings->count && findings->worst != NX_SEVERITY_NOTE;
  return nx_plan_print(&report, o->json) || contradicts ? NX_EXIT_FAILURE : NX_EXIT_OK;
}

/* ---- The command ----------------------------------------------------------------------------------------------------- */

/* Flags that are wrong by themselves are this command's usage, not the manifest's fault. */
static bool check_flags(const struct nx_plan_options *o) {
  char key[] = "SUSPEND_KEY=0000000000000000000000000000000000000000000000000000000000000000", *environment[] = {key, NULL};
  struct nx_config unused;
  struct nx_error err;
  if (!nx_config_load(&unused, environment, o->serve_count, o->serve, o->problems, &err) && !o->problems->len) return true;
  fprintf(stderr, "%.*s%s", (int)o->problems->len, o->problems->len ? o->problems->data : "", nx_plan_usage);
  return false;
}

int nx_plan_of_manifest(const struct nx_plan_options *options) {
  const struct nx_manifest_overrides overrides = {
    .memory_limit_bytes = options->limit_bytes, .memory_request_bytes = options->request_bytes, .cores = options->cores,
    .hpa_percent = options->hpa_percent, .pods_min = options->pods_min, .pods_max = options->pods_max};
  const char *name = strcmp(options->manifest, "-") ? options->manifest : "standard input";
  struct nx_manifest *manifest;
  struct nx_findings findings = {0};
  struct nx_error err;
  NX_BUF_AUTO text = {.limit = NX_YAML_TEXT_MAX + (128 << 10)};
  if (!check_flags(options)) return NX_EXIT_USAGE;
  if (read_file(options->manifest, &text, &err) ||
      nx_manifest_read(&manifest, name, text.data, text.len, &overrides, &err)) {
    fprintf(stderr, "nexus plan: %s\n", err.text);
    return NX_EXIT_USAGE;
  }
  int status = plan(options, manifest, &findings);
  nx_findings_deinit(&findings);
  nx_manifest_destroy(manifest);
  return status;
}
