/* SPDX-License-Identifier: Apache-2.0
 *
 * The lines, from the top: who and since when, state, memory by layer, instances, rates, handlers. Below 28 rows the blank
 * lines between are left out, and the rest is 24. */
#include "cli/top_screen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/top_rates.h"

#define ABSENT "–"
#define FAMILY "nexus_"
enum {
  NAME_COLUMNS = 12,
  FIGURE_COLUMNS = 36, /* right of the bars */
  BAR_LEAST = 5,       /* smaller ones say nothing */
  LABEL_COLUMNS = 24,
  HANDLERS_SHOWN = 5,
  HANDLERS_MAX = 128,  /* nexus has 102 */
  GROUPS_MAX = 16,
  ROOMY = 28,
};

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

/* Three digits, in the unit that leaves so many; whole numbers stay whole. */
static const char *format_scaled(char *text, double number, double step, const char *const *units, size_t unit_count) {
  size_t unit = 0;
  if (isnan(number)) return strcpy(text, ABSENT);
  if (isinf(number)) return strcpy(text, number < 0 ? "-inf" : "inf");
  for (; fabs(number) >= 999.5 && unit + 1 < unit_count; unit++) number /= step;
  int decimals = fabs(number) >= 99.95 || (!unit && number == floor(number)) ? 0 : fabs(number) >= 9.995 ? 1 : 2;
  snprintf(text, NX_TOP_NUMBER_BYTES, fabs(number) < 1e4 ? "%.*f%s" : "%.*e%s", decimals, number, units[unit]);
  return text;
}
#define FORMAT_SCALED(text, number, step, units) format_scaled(text, number, step, units, sizeof units / sizeof *units)

const char *nx_top_format_bytes(char text[NX_TOP_NUMBER_BYTES], double bytes) {
  static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
  return FORMAT_SCALED(text, bytes, 1024, units);
}

const char *nx_top_format_number(char text[NX_TOP_NUMBER_BYTES], double number) {
  static const char *const units[] = {"", "k", "M", "G"};
  return FORMAT_SCALED(text, number, 1000, units);
}

const char *nx_top_format_seconds(char text[NX_TOP_NUMBER_BYTES], double seconds) {
  static const char *const units[] = {" µs", " ms", " s"};
  return FORMAT_SCALED(text, seconds * 1e6, 1000, units);
}

static const char *format_percent(char *text, double part, double whole) {
  double percent = part / whole * 100;
  if (!isfinite(percent)) return strcpy(text, ABSENT);
  if (fabs(percent) >= 9999) return strcpy(text, percent < 0 ? "<0 %" : ">9999 %");
  snprintf(text, NX_TOP_NUMBER_BYTES, "%.1f %%", percent);
  return text;
}

static const char *format_uptime(char *text, double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return strcpy(text, ABSENT);
  unsigned s = (unsigned)seconds;
  if (s < 86400)
    snprintf(text, NX_TOP_NUMBER_BYTES, "%02u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
  else
    snprintf(text, NX_TOP_NUMBER_BYTES, "%ud %02u:%02u", s / 86400, s / 3600 % 24, s / 60 % 60);
  return text;
}

/* ---- The pen: columns are counted, and what is too much is not written ------------------------------------------- */

struct pen {
  struct nx_buf *out;
  const struct nx_top_view *view;
  struct nx_top_span span;
  unsigned column, line;
  unsigned bar_columns;
  bool roomy;
};

static bool is_below(const struct pen *pen) { return pen->view->rows && pen->line >= pen->view->rows; }

/* Text of ours, in UTF-8 of one column per character. */
static void put(struct pen *pen, const char *text) {
  if (is_below(pen)) return;
  for (; *text; text++) {
    bool begins = (*text & 0xc0) != 0x80;
    if (begins && pen->column == pen->view->columns) return;
    pen->column += begins;
    nx_buf_char(pen->out, *text);
  }
}

static void put_spaces_to(struct pen *pen, unsigned column) {
  while (pen->column < column && pen->column < pen->view->columns && !is_below(pen)) put(pen, " ");
}

static unsigned columns_of(const char *text) {
  unsigned columns = 0;
  for (; *text; text++) columns += (*text & 0xc0) != 0x80;
  return columns;
}

/* So that it ends at that column. */
static void put_right(struct pen *pen, unsigned column, const char *text) {
  unsigned columns = columns_of(text);
  put_spaces_to(pen, column > columns ? column - columns : 0);
  put(pen, text);
}

/* Text of the server's. */
static void put_foreign(struct pen *pen, const char *text, unsigned columns_max) {
  for (unsigned i = 0; text[i] && i < columns_max; i++) {
    bool last = i + 1 == columns_max && text[i + 1];
    char shown[2] = {text[i] >= ' ' && text[i] <= '~' ? text[i] : '?', 0};
    put(pen, last ? "…" : shown);
  }
}

#define RED "31"
#define GREEN "32"
#define YELLOW "33"
#define BOLD "1"

static void begin_style(struct pen *pen, const char *style) {
  if (pen->view->colour && !is_below(pen)) nx_buf_printf(pen->out, "\x1b[%sm", style);
}
static void end_style(struct pen *pen) { begin_style(pen, "0"); }

static void end_line(struct pen *pen) {
  if (!is_below(pen)) nx_buf_char(pen->out, '\n');
  pen->line++;
  pen->column = 0;
}

static void put_title(struct pen *pen, const char *title) {
  begin_style(pen, BOLD);
  put(pen, title);
  end_style(pen);
}

/* The title at the beginning of a line. */
static void begin_titled(struct pen *pen, const char *title) {
  put_title(pen, title);
  put_spaces_to(pen, NAME_COLUMNS);
}

static void begin_section(struct pen *pen, const char *title) {
  if (pen->roomy) end_line(pen);
  begin_titled(pen, title);
}

typedef const char *format_fn(char *text, double number);

static void put_number(struct pen *pen, const char *before, format_fn *format, double number, const char *after) {
  char text[NX_TOP_NUMBER_BYTES];
  put(pen, before);
  put(pen, format(text, number));
  put(pen, after);
}

/* Green, then yellow from where nexus calls itself degraded. */
static const char *style_of(double share) { return share >= 0.9 ? RED : share >= 0.7 ? YELLOW : GREEN; }

/* [||||||   :    ]: the share, and a colon where its peak was. */
static void put_bar(struct pen *pen, double share, double peak_share) {
  if (pen->bar_columns < BAR_LEAST) return;
  unsigned cells = pen->bar_columns - 2;
  double filled = isnan(share) ? 0 : fmin(fmax(share, 0), 1) * cells;
  double peak = isnan(peak_share) ? 0 : fmin(fmax(peak_share, 0), 1) * cells;
  unsigned filled_cells = (unsigned)(filled + 0.5), peak_cell = (unsigned)ceil(peak);
  if (filled > 0 && !filled_cells) filled_cells = 1;
  put(pen, "[");
  begin_style(pen, style_of(share));
  for (unsigned i = 1; i <= cells; i++) put(pen, i <= filled_cells ? "|" : i == peak_cell ? ":" : " ");
  end_style(pen);
  put(pen, "]");
}

/* ---- State ------------------------------------------------------------------------------------------------------- */

static double value_of(const struct pen *pen, const char *name) {
  return nx_top_metrics_value(pen->span.now, name, NULL, NULL);
}

/* The label of the sample that is 1, of a family that has one sample per state. */
static const char *state_of(const struct pen *pen, const char *family, const char *label) {
  size_t count;
  const struct nx_top_sample *samples = nx_top_metrics_find(pen->span.now, family, &count);
  for (size_t i = 0; i < count; i++)
    if (samples[i].value == 1 && nx_top_sample_label(&samples[i], label)) return nx_top_sample_label(&samples[i], label);
  return NULL;
}

static void put_state(struct pen *pen, const char *before, const char *state, const char *good, const char *bad) {
  put(pen, before);
  if (!state) {
    put(pen, ABSENT);
    return;
  }
  begin_style(pen, !strcmp(state, good) ? GREEN : !strcmp(state, bad) ? RED : YELLOW);
  put_foreign(pen, state, LABEL_COLUMNS);
  end_style(pen);
}

static void draw_title(struct pen *pen) {
  size_t count = 0;
  const struct nx_top_sample *build = NULL;
  if (pen->span.now) build = nx_top_metrics_find(pen->span.now, FAMILY "build_info", &count);
  const char *version = build ? nx_top_sample_label(build, "version") : NULL;
  begin_style(pen, BOLD);
  put(pen, "nexus ");
  if (version) put_foreign(pen, version, LABEL_COLUMNS);
  end_style(pen);
  put(pen, version ? "  " : " ");
  put_foreign(pen, pen->view->server, pen->view->columns);
  if (pen->span.now) {
    char text[NX_TOP_NUMBER_BYTES];
    put(pen, "  up ");
    put(pen, format_uptime(text, pen->view->now_s - value_of(pen, "process_start_time_seconds")));
  }
  end_line(pen);
}

static void draw_trouble(struct pen *pen) {
  begin_style(pen, RED);
  put(pen, "no answer since ");
  put(pen, pen->view->since);
  put(pen, ": ");
  put_foreign(pen, pen->view->trouble, pen->view->columns);
  end_style(pen);
  end_line(pen);
}

static void draw_state(struct pen *pen) {
  char text[NX_TOP_NUMBER_BYTES];
  put_state(pen, "", state_of(pen, FAMILY "health_status", "status"), "healthy", "unhealthy");
  put_state(pen, "   governor ", state_of(pen, FAMILY "governor_state", "state"), "normal", "shedding");
  put(pen, "   pressure ");
  put(pen, format_percent(text, value_of(pen, FAMILY "memory_pressure_ratio"), 1));
  if (pen->span.before) {
    snprintf(text, sizeof text, "%.1f", fmin(pen->span.seconds, 1e6));
    put(pen, "   rates of the last ");
    put(pen, text);
    put(pen, " s");
  } else {
    put(pen, "   no rates yet");
  }
  end_line(pen);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* `peak_bytes` NULL: there is none by nature. */
static void draw_memory_row(struct pen *pen, const char *name, double bytes, const double *peak_bytes, double whole_bytes) {
  char text[NX_TOP_NUMBER_BYTES];
  put_foreign(pen, name, NAME_COLUMNS - 1);
  put_spaces_to(pen, NAME_COLUMNS);
  put_bar(pen, bytes / whole_bytes, peak_bytes ? *peak_bytes / whole_bytes : NAN);
  unsigned column = NAME_COLUMNS + pen->bar_columns;
  put_right(pen, column + 11, nx_top_format_bytes(text, bytes));
  put_right(pen, column + 11 + 9, format_percent(text, bytes, whole_bytes));
  if (peak_bytes) {
    put(pen, "  peak");
    put_right(pen, column + FIGURE_COLUMNS, nx_top_format_bytes(text, *peak_bytes));
  }
  end_line(pen);
}

/* What there is to divide: without a limit, the budget. */
static double whole_of(double limit, double budget) {
  return isfinite(limit) && limit > 0 ? limit : isfinite(budget) && budget > 0 ? budget : NAN;
}

static void draw_layers(struct pen *pen, double whole) {
  size_t count;
  const struct nx_top_sample *layers = nx_top_metrics_find(pen->span.now, FAMILY "memory_used_bytes", &count);
  for (size_t i = 0; i < count && i < GROUPS_MAX; i++) {
    const char *layer = nx_top_sample_label(&layers[i], "layer");
    if (!layer) continue;
    double peak = nx_top_metrics_value(pen->span.now, FAMILY "memory_layer_peak_bytes", "layer", layer);
    draw_memory_row(pen, layer, layers[i].value, &peak, whole);
  }
}

static void draw_memory(struct pen *pen) {
  double limit = value_of(pen, FAMILY "memory_limit_bytes"), budget = value_of(pen, FAMILY "memory_budget_bytes");
  double whole = whole_of(limit, budget), peak = value_of(pen, FAMILY "memory_peak_bytes");
  begin_section(pen, "MEMORY");
  if (isinf(limit))
    put(pen, "limit none");
  else
    put_number(pen, "limit ", nx_top_format_bytes, limit, "");
  put_number(pen, "   budget ", nx_top_format_bytes, budget, "");
  put_number(pen, "   unaccounted ", nx_top_format_bytes, value_of(pen, FAMILY "memory_unaccounted_bytes"), "");
  end_line(pen);
  draw_layers(pen, whole);
  draw_memory_row(pen, "sum/budget", value_of(pen, FAMILY "memory_accounted_bytes"), &peak, budget);
  draw_memory_row(pen, "working set", value_of(pen, FAMILY "memory_working_set_bytes"), NULL, whole);
}

/* ---- Executions -------------------------------------------------------------------------------------------------- */

static void draw_instances(struct pen *pen) {
  char text[NX_TOP_NUMBER_BYTES];
  double active = nx_top_metrics_value(pen->span.now, FAMILY "instances", "state", "active");
  double max = value_of(pen, FAMILY "instances_max");
  begin_section(pen, "INSTANCES");
  put_bar(pen, active / max, NAN);
  put_right(pen, NAME_COLUMNS + pen->bar_columns + 8, isnan(active) ? ABSENT : nx_top_format_number(text, active));
  put_number(pen, " of ", nx_top_format_number, max, "");
  put_number(pen, "   queue ", nx_top_format_number, value_of(pen, FAMILY "queue_depth"), "");
  end_line(pen);
}

static void put_hit_rate(struct pen *pen, double hits, double misses) {
  char text[NX_TOP_NUMBER_BYTES];
  put(pen, format_percent(text, hits, hits + misses));
}

static void draw_stores(struct pen *pen) {
  static const char hits[] = FAMILY "handler_cache_hits_total", misses[] = FAMILY "handler_cache_misses_total";
  begin_titled(pen, "SUSPENDED");
  put_number(pen, "", nx_top_format_number, value_of(pen, FAMILY "suspended_executions"), "");
  put_number(pen, ", ", nx_top_format_bytes, value_of(pen, FAMILY "suspended_bytes"), "   ");
  put_title(pen, "CACHE");
  put_number(pen, " ", nx_top_format_bytes, value_of(pen, FAMILY "cache_size_bytes"), ", hits ");
  put_hit_rate(pen, nx_top_increase(&pen->span, hits), nx_top_increase(&pen->span, misses));
  put(pen, " (ever ");
  put_hit_rate(pen, value_of(pen, hits), value_of(pen, misses));
  put(pen, ")");
  end_line(pen);
}

/* The total per second, then what it is made of. */
static void draw_rates(struct pen *pen, const char *family, const char *label, format_fn *format) {
  struct nx_top_group groups[GROUPS_MAX];
  size_t count = nx_top_increase_by(&pen->span, family, label, groups, GROUPS_MAX);
  put_number(pen, "", format, nx_top_increase(&pen->span, family) / pen->span.seconds, "/s");
  for (size_t i = 0; i < count; i++) {
    if (!(groups[i].increase > 0)) continue;
    put(pen, "   ");
    put_foreign(pen, groups[i].key, LABEL_COLUMNS);
    put_number(pen, " ", format, groups[i].increase / pen->span.seconds, "");
  }
  end_line(pen);
}

static double increase_of_codes(const struct pen *pen, const char *first) {
  struct nx_top_group groups[64];
  size_t count = nx_top_increase_by(&pen->span, FAMILY "http_requests_total", "code", groups, sizeof groups / sizeof *groups);
  double sum = pen->span.before && count ? 0 : NAN;
  for (size_t i = 0; i < count; i++)
    if (groups[i].key[0] == *first) sum += groups[i].increase;
  return sum;
}

static void draw_durations(struct pen *pen) {
  double count = nx_top_increase(&pen->span, FAMILY "handler_execution_duration_seconds_count");
  double sum_s = nx_top_increase(&pen->span, FAMILY "handler_execution_duration_seconds_sum");
  double requests = nx_top_increase(&pen->span, FAMILY "http_requests_total");
  bool beyond;
  double p99_s = nx_top_quantile(&pen->span, FAMILY "handler_execution_duration_seconds_bucket", 0.99, &beyond);
  begin_titled(pen, "DURATION");
  put_number(pen, "mean ", nx_top_format_seconds, count > 0 ? sum_s / count : NAN, "");
  put_number(pen, beyond ? "   p99 > " : "   p99 ", nx_top_format_seconds, p99_s, "   ");
  put_title(pen, "REQUESTS");
  put_number(pen, " ", nx_top_format_number, requests / pen->span.seconds, "/s");
  put_number(pen, "   4xx ", nx_top_format_number, increase_of_codes(pen, "4") / pen->span.seconds, "");
  put_number(pen, "   5xx ", nx_top_format_number, increase_of_codes(pen, "5") / pen->span.seconds, "");
  end_line(pen);
}

static void draw_executions(struct pen *pen) {
  begin_section(pen, "EXECUTIONS");
  draw_rates(pen, FAMILY "handler_executions_total", "status", nx_top_format_number);
  draw_durations(pen);
  begin_titled(pen, "REFUSED");
  draw_rates(pen, FAMILY "memory_refusals_total", "layer", nx_top_format_number);
  begin_titled(pen, "RECLAIMED");
  draw_rates(pen, FAMILY "memory_reclaimed_bytes_total", "action", nx_top_format_bytes);
}

/* ---- Handlers ---------------------------------------------------------------------------------------------------- */

static void draw_handlers(struct pen *pen) {
  struct nx_top_group groups[HANDLERS_MAX];
  char text[NX_TOP_NUMBER_BYTES];
  size_t count = nx_top_increase_by(&pen->span, FAMILY "handler_executions_total", "handler", groups, HANDLERS_MAX);
  double all = nx_top_increase(&pen->span, FAMILY "handler_executions_total");
  unsigned columns = pen->view->columns < 200 ? pen->view->columns : 200;
  unsigned names = columns > NAME_COLUMNS + 33 ? columns - 33 : NAME_COLUMNS;
  begin_section(pen, "HANDLERS");
  put_right(pen, names + 12, "per second");
  put_right(pen, names + 21, "share");
  put_right(pen, names + 33, "failed/s");
  end_line(pen);
  for (size_t i = 0; i < count && i < HANDLERS_SHOWN && groups[i].increase > 0; i++) {
    put_foreign(pen, groups[i].key, names);
    put_right(pen, names + 12, nx_top_format_number(text, groups[i].increase / pen->span.seconds));
    put_right(pen, names + 21, format_percent(text, groups[i].increase, all));
    put_right(pen, names + 33, nx_top_format_number(text, groups[i].failed / pen->span.seconds));
    end_line(pen);
  }
}

/* ---- All --------------------------------------------------------------------------------------------------------- */

void nx_top_draw(const struct nx_top_view *view, struct nx_buf *out) {
  struct pen pen = {
    .out = out,
    .view = view,
    .span = nx_top_span_of(view->now, view->before, view->interval_s),
    .bar_columns = view->columns > NAME_COLUMNS + FIGURE_COLUMNS ? view->columns - NAME_COLUMNS - FIGURE_COLUMNS : 0,
    .roomy = !view->rows || view->rows >= ROOMY,
  };
  draw_title(&pen);
  if (view->trouble) draw_trouble(&pen);
  if (!view->now) {
    if (!view->trouble) {
      put(&pen, "asking …");
      end_line(&pen);
    }
    return;
  }
  if (!view->trouble) draw_state(&pen);
  draw_memory(&pen);
  draw_instances(&pen);
  draw_stores(&pen);
  draw_executions(&pen);
  draw_handlers(&pen);
}
