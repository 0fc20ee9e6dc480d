/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/finding.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

static bool make_room(struct nx_findings *findings) {
  if (findings->count == NX_FINDINGS_MAX) return false;
  if (findings->count < findings->_capacity) return true;
  size_t capacity = findings->_capacity ? 2 * findings->_capacity : 8;
  struct nx_finding *items = reallocarray(findings->items, capacity, sizeof *items);
  if (!items) return false;
  findings->items = items;
  findings->_capacity = capacity;
  return true;
}

struct nx_finding *nx_findings_add(struct nx_findings *findings, const char *name, enum nx_severity severity) {
  static _Thread_local struct nx_finding unseen;
  bool first = !findings->count && !findings->left_out;
  if (first || severity < findings->worst) findings->worst = severity;
  struct nx_finding *finding = &unseen;
  if (make_room(findings))
    finding = &findings->items[findings->count++];
  else
    findings->left_out++;
  *finding = (struct nx_finding){.name = name, .severity = severity};
  return finding;
}

void nx_finding_say(struct nx_finding *finding, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(finding->message, sizeof finding->message, format, arguments);
  va_end(arguments);
}

void nx_finding_advise(struct nx_finding *finding, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(finding->advice, sizeof finding->advice, format, arguments);
  va_end(arguments);
}

void nx_finding_change(struct nx_finding *finding, enum nx_plan_variable variable, uint64_t value) {
  if (value && finding->change_count < NX_FINDING_CHANGES_MAX)
    finding->changes[finding->change_count++] = (struct nx_plan_change){variable, value};
}

static const char *suffix_of(const struct nx_plan_change *change, uint64_t *value) {
  const char *unit = nx_plan_variable_unit(change->variable);
  bool mebibytes = !strcmp(unit, "bytes") && change->value % NX_MIB == 0;
  *value = mebibytes ? change->value / NX_MIB : change->value;
  return mebibytes ? "Mi" : strcmp(unit, "m") ? "" : "m";
}

void nx_finding_advise_changes(struct nx_finding *finding) {
  size_t used = 0, size = sizeof finding->advice;
  for (unsigned i = 0; i < finding->change_count && used < size; i++) {
    uint64_t value;
    const char *suffix = suffix_of(&finding->changes[i], &value);
    used += (size_t)snprintf(finding->advice + used, size - used, "%s%s=%llu%s", i ? " or " : "",
                             nx_plan_variable_name(finding->changes[i].variable), (unsigned long long)value, suffix);
  }
}

void nx_findings_sort(struct nx_findings *findings) {
  for (size_t i = 1; i < findings->count; i++) {
    struct nx_finding moved = findings->items[i];
    size_t to = i;
    for (; to && findings->items[to - 1].severity > moved.severity; to--) findings->items[to] = findings->items[to - 1];
    findings->items[to] = moved;
  }
}

void nx_findings_deinit(struct nx_findings *findings) {
  free(findings->items);
  *findings = (struct nx_findings){0};
}

const char *nx_severity_name(enum nx_severity severity) {
  static const char *const names[] = {"error", "warning", "note"};
  return names[severity];
}

const char *nx_plan_variable_name(enum nx_plan_variable variable) {
  static const char *const names[] = {
#define X(symbol, name, unit) name,
    NX_PLAN_VARIABLES(X)
#undef X
  };
  return names[variable];
}

const char *nx_plan_variable_unit(enum nx_plan_variable variable) {
  static const char *const units[] = {
#define X(symbol, name, unit) unit,
    NX_PLAN_VARIABLES(X)
#undef X
  };
  return units[variable];
}
