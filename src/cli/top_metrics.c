/* SPDX-License-Identifier: Apache-2.0
 * prometheus.io/docs/instrumenting/exposition_formats */
#include "cli/top_metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- One line: name{label="value",…} number [timestamp] ---------------------------------------------------------- */

/* The line is cut up where it stands: NULs end the strings, and unescaping only shortens. It ends with a NUL itself. */
static char *skip_blanks(char *at) { return at + strspn(at, " \t"); }

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':'; }

/* The end of the name that begins here; NULL when none does. */
static char *name_end(char *at) {
  if (!is_letter(*at)) return NULL;
  while (is_letter(*at) || (*at >= '0' && *at <= '9')) at++;
  return at;
}

/* Past the closing quote; NULL when there is none, or an escape that the format does not have. */
static char *take_quoted(char *at, const char **value) {
  if (*at++ != '"') return NULL;
  *value = at;
  char *to = at;
  for (; *at && *at != '"'; at++) {
    if (*at == '\\') {
      at++;
      if (*at != '\\' && *at != '"' && *at != 'n') return NULL;
      *to++ = *at == 'n' ? '\n' : *at;
    } else {
      *to++ = *at;
    }
  }
  if (*at != '"') return NULL;
  *to = 0;
  return at + 1;
}

/* `at` is behind the opening brace. Past the closing one; NULL when the labels are not of the format. */
static char *take_labels(char *at, struct nx_top_sample *sample) {
  for (at = skip_blanks(at); *at != '}'; at = skip_blanks(at)) {
    if (sample->label_count == NX_TOP_LABELS_MAX) return NULL;
    struct nx_top_label *label = &sample->labels[sample->label_count++];
    label->name = at;
    char *end = name_end(at);
    if (!end) return NULL;
    at = skip_blanks(end);
    if (*at != '=') return NULL;
    *end = 0;
    at = take_quoted(skip_blanks(at + 1), &label->value);
    if (!at) return NULL;
    at = skip_blanks(at);
    if (*at == ',')
      at++;
    else if (*at != '}')
      return NULL;
  }
  return at + 1;
}

/* What strtod takes besides (hexadecimal, "infinity", NaN with a payload) is not of the format. */
static bool is_number(const char *token) {
  const char *unsigned_token = token + (*token == '+' || *token == '-');
  if (!strcmp(token, "NaN") || !strcmp(unsigned_token, "Inf")) return true;
  return *token && !token[strspn(token, "0123456789+-.eE")];
}

static bool take_number(char *at, double *value) {
  char *token = at = skip_blanks(at);
  at += strcspn(at, " \t");
  char *rest = skip_blanks(at);
  if (rest[strspn(rest, "0123456789-")]) return false; /* a timestamp may follow, and nothing else */
  *at = 0;
  char *end;
  *value = strtod(token, &end);
  return end == at && is_number(token);
}

static bool take_sample(char *line, struct nx_top_sample *sample) {
  *sample = (struct nx_top_sample){.name = line};
  char *end = name_end(line), *at = end ? skip_blanks(end) : NULL;
  if (!end || (at == end && *at != '{')) return false;
  bool labels = *at == '{';
  *end = 0;
  if (labels) at = take_labels(at + 1, sample);
  return at && take_number(at, &sample->value);
}

/* ---- All lines --------------------------------------------------------------------------------------------------- */

/* Names point into the text, so their addresses are the order of the lines. */
static int by_name(const void *a, const void *b) {
  const struct nx_top_sample *x = a, *y = b;
  int order = strcmp(x->name, y->name);
  return order ? order : (x->name > y->name) - (x->name < y->name);
}

static int take_lines(struct nx_top_metrics *out, char *text, size_t bytes, struct nx_error *err) {
  size_t number = 0;
  for (char *line = text, *end; line < text + bytes; line = end + 1) {
    number++;
    end = memchr(line, '\n', (size_t)(text + bytes - line));
    if (!end || memchr(line, 0, (size_t)(end - line)))
      return nx_error_set(err, NX_ERR_INVALID, "line %zu of the metrics is %s", number, end ? "not text" : "cut off");
    *end = 0;
    if (end > line && end[-1] == '\r') end[-1] = 0;
    char *begin = skip_blanks(line);
    if (!*begin || *begin == '#') continue;
    if (out->count == NX_TOP_SAMPLES_MAX) return nx_error_set(err, NX_ERR_TOO_LARGE, "more metrics than nexus has");
    if (!take_sample(begin, &out->samples[out->count++]))
      return nx_error_set(err, NX_ERR_INVALID, "line %zu is not of the Prometheus format", number);
  }
  return 0;
}

/* No more samples than lines. */
static size_t count_lines(const char *text, size_t bytes) {
  size_t lines = 1;
  for (size_t i = 0; i < bytes && lines < NX_TOP_SAMPLES_MAX; i++) lines += text[i] == '\n';
  return lines;
}

int nx_top_metrics_parse(struct nx_top_metrics *out, const char *text, size_t bytes, struct nx_error *err) {
  *out = (struct nx_top_metrics){
    .samples = calloc(count_lines(text, bytes), sizeof *out->samples),
    ._text = malloc(bytes + 1),
  };
  int status = 0;
  if (out->samples && out->_text) {
    if (bytes) memcpy(out->_text, text, bytes);
    out->_text[bytes] = 0;
    status = take_lines(out, out->_text, bytes, err);
  } else {
    status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the metrics");
  }
  if (status)
    nx_top_metrics_deinit(out);
  else
    qsort(out->samples, out->count, sizeof *out->samples, by_name);
  return status;
}

void nx_top_metrics_deinit(struct nx_top_metrics *metrics) {
  free(metrics->samples);
  free(metrics->_text);
  *metrics = (struct nx_top_metrics){0};
}

/* ---- Looking up -------------------------------------------------------------------------------------------------- */

const struct nx_top_sample *nx_top_metrics_find(const struct nx_top_metrics *metrics, const char *name, size_t *count) {
  size_t low = 0, high = metrics->count;
  while (low < high) { /* the first that is not before the name */
    size_t middle = low + (high - low) / 2;
    if (strcmp(metrics->samples[middle].name, name) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  for (high = low; high < metrics->count && !strcmp(metrics->samples[high].name, name);) high++;
  *count = high - low;
  return high > low ? &metrics->samples[low] : NULL;
}

const char *nx_top_sample_label(const struct nx_top_sample *sample, const char *name) {
  for (unsigned i = 0; i < sample->label_count; i++)
    if (!strcmp(sample->labels[i].name, name)) return sample->labels[i].value;
  return NULL;
}

double nx_top_metrics_value(const struct nx_top_metrics *metrics, const char *name, const char *label, const char *value) {
  size_t count;
  const struct nx_top_sample *samples = nx_top_metrics_find(metrics, name, &count);
  for (size_t i = 0; i < count; i++) {
    const char *have = label ? nx_top_sample_label(&samples[i], label) : NULL;
    if (!label || (have && !strcmp(have, value))) return samples[i].value;
  }
  return NAN;
}

static bool same_labels(const struct nx_top_sample *a, const struct nx_top_sample *b) {
  if (a->label_count != b->label_count) return false;
  for (unsigned i = 0; i < a->label_count; i++)
    if (strcmp(a->labels[i].name, b->labels[i].name) || strcmp(a->labels[i].value, b->labels[i].value)) return false;
  return true;
}

const struct nx_top_sample *nx_top_metrics_same(const struct nx_top_metrics *metrics, const struct nx_top_sample *sample) {
  size_t count;
  const struct nx_top_sample *samples = nx_top_metrics_find(metrics, sample->name, &count);
  for (size_t i = 0; i < count; i++)
    if (same_labels(&samples[i], sample)) return &samples[i];
  return NULL;
}
