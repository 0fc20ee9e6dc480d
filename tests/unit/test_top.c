/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/json_text.h"
#include "cli/fetch.h"
#include "cli/top_metrics.h"
#include "cli/top_rates.h"
#include "cli/top_screen.h"
#include "metrics/metrics.h"

static struct nx_top_metrics parsed(const char *text) {
  struct nx_top_metrics metrics;
  struct nx_error err;
  if (nx_top_metrics_parse(&metrics, text, strlen(text), &err)) fail_msg("%s: %s", err.text, text);
  return metrics;
}

/* ---- The format ------------------------------------------------------------------------------------------------------- */

static void reads_samples(void **state) {
  struct nx_top_metrics m = parsed(
    "# HELP b what it is\n# TYPE b gauge\nb{x=\"1\"} 2\nb{x=\"2\",y=\"z\",} 3.5e-3 1700000000000\n\n"
    "a 7\n\t a:c_9 \t -1 \nb { x = \"3\" , y = \"4\" } 5\r\nempty{} 0\n#\n");
  assert_int_equal(m.count, 6);
  assert_float_equal(nx_top_metrics_value(&m, "a", NULL, NULL), 7, 0);
  assert_float_equal(nx_top_metrics_value(&m, "a:c_9", NULL, NULL), -1, 0);
  assert_float_equal(nx_top_metrics_value(&m, "b", "x", "2"), 0.0035, 1e-12);
  assert_float_equal(nx_top_metrics_value(&m, "b", "y", "4"), 5, 0);
  assert_float_equal(nx_top_metrics_value(&m, "empty", NULL, NULL), 0, 0);
  assert_true(isnan(nx_top_metrics_value(&m, "b", "x", "9")));
  assert_true(isnan(nx_top_metrics_value(&m, "b", "z", "1")));
  assert_true(isnan(nx_top_metrics_value(&m, "c", NULL, NULL)));
  nx_top_metrics_deinit(&m);
}

static void keeps_the_order_within_a_name(void **state) {
  struct nx_top_metrics m = parsed("l{n=\"z\"} 1\nk 1\nl{n=\"a\"} 2\nm 1\nl{n=\"q\"} 3\n");
  size_t count;
  const struct nx_top_sample *l = nx_top_metrics_find(&m, "l", &count);
  assert_int_equal(count, 3);
  for (int i = 0; i < 3; i++) assert_float_equal(l[i].value, i + 1, 0);
  assert_null(nx_top_metrics_find(&m, "", &count));
  assert_null(nx_top_metrics_find(&m, "zz", &count));
  assert_int_equal(count, 0);
  nx_top_metrics_deinit(&m);
}

static void undoes_escapes(void **state) {
  struct nx_top_metrics m = parsed("a{x=\"q\\\"q\\\\n\\n,}=\x1b\",y=\"\"} 1\n");
  assert_string_equal(nx_top_sample_label(m.samples, "x"), "q\"q\\n\n,}=\x1b");
  assert_string_equal(nx_top_sample_label(m.samples, "y"), "");
  assert_null(nx_top_sample_label(m.samples, "z"));
  nx_top_metrics_deinit(&m);
}

static void reads_special_numbers(void **state) {
  struct nx_top_metrics m = parsed("a NaN\nb +Inf\nc -Inf\nd Inf\ne 1e400\nf .5\n");
  assert_true(isnan(nx_top_metrics_value(&m, "a", NULL, NULL)));
  assert_true(nx_top_metrics_value(&m, "b", NULL, NULL) == INFINITY);
  assert_true(nx_top_metrics_value(&m, "c", NULL, NULL) == -INFINITY);
  assert_true(nx_top_metrics_value(&m, "d", NULL, NULL) == INFINITY);
  assert_true(nx_top_metrics_value(&m, "e", NULL, NULL) == INFINITY);
  assert_float_equal(nx_top_metrics_value(&m, "f", NULL, NULL), 0.5, 0);
  nx_top_metrics_deinit(&m);
}

static void refuses_garbage(void **state) {
  static const char *const bad[] = {
    "a", "a\n", "a 1", "a 1\nb 2", "a x\n", "a 1 2 3\n", "a 1 x\n", "1a 1\n", "{x=\"1\"} 1\n", "a{ 1\n", "a{x} 1\n", "a{x=} 1\n",
    "a{x=1} 1\n", "a{x=\"1} 1\n", "a{x=\"1\" 1\n", "a{x=\"1\"y=\"2\"} 1\n", "a{x=\"\\t\"} 1\n", "a{x=\"1\\\"} 1\n", "a{=\"1\"} 1\n",
    "a{,} 1\n", "a{x=\"1\"}\n", "a{x=\"1\"}}1\n", "a 0x10\n", "a nan(1)\n", "a infinity\n", "a 1e\n", "a --1\n", "a\x1b 1\n",
    "<html>\n", "{\"status\":\"healthy\"}\n", "a{b=\"1\",c=\"1\",d=\"1\",e=\"1\",f=\"1\"} 1\n",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct nx_top_metrics m;
    struct nx_error err = {0};
    if (nx_top_metrics_parse(&m, bad[i], strlen(bad[i]), &err) != -NX_ERR_INVALID) fail_msg("accepted: %s", bad[i]);
    assert_non_null(strstr(err.text, "line "));
    assert_null(m.samples);
    assert_null(strchr(err.text, '\x1b'));
  }
  struct nx_top_metrics m;
  assert_int_equal(nx_top_metrics_parse(&m, "a 1\0\n", 5, NULL), -NX_ERR_INVALID);
  assert_int_equal(nx_top_metrics_parse(&m, NULL, 0, NULL), 0);
  assert_int_equal(m.count, 0);
  nx_top_metrics_deinit(&m);
}

static void bounds_the_samples(void **state) {
  NX_BUF_AUTO text = {0};
  struct nx_top_metrics m;
  for (int i = 0; i < NX_TOP_SAMPLES_MAX; i++) nx_buf_printf(&text, "a{i=\"%d\"} %d\n", i, i);
  assert_int_equal(nx_top_metrics_parse(&m, text.data, text.len, NULL), 0);
  assert_int_equal(m.count, NX_TOP_SAMPLES_MAX);
  nx_top_metrics_deinit(&m);
  nx_buf_lit(&text, "a 1\n");
  assert_int_equal(nx_top_metrics_parse(&m, text.data, text.len, NULL), -NX_ERR_TOO_LARGE);
  assert_null(m.samples);
}

/* What nexus itself writes, whole and cut anywhere. */
static void reads_what_nexus_writes(void **state) {
  NX_BUF_AUTO text = {0};
  struct nx_metrics_gauges gauges = {.instances_max = 3, .version = "1 \"\\\n", .revision = "r", .guest = "g"};
  nx_metrics_execution(nx_metrics_handler_label("cart"), NX_METRICS_STATUS_TIMEOUT, 1000);
  nx_metrics_write(&text, &gauges);
  for (size_t bytes = 0; bytes <= text.len; bytes++) {
    struct nx_top_metrics m;
    bool whole = !bytes || text.data[bytes - 1] == '\n';
    assert_int_equal(nx_top_metrics_parse(&m, text.data, bytes, NULL), whole ? 0 : -NX_ERR_INVALID);
    if (bytes == text.len) {
      assert_float_equal(nx_top_metrics_value(&m, "nexus_instances_max", NULL, NULL), 3, 0);
      assert_float_equal(nx_top_metrics_value(&m, "nexus_handler_executions_total", "status", "timeout"), 1, 0);
      size_t count;
      const struct nx_top_sample *build = nx_top_metrics_find(&m, "nexus_build_info", &count);
      assert_string_equal(nx_top_sample_label(build, "version"), "1 \"\\\n");
    }
    nx_top_metrics_deinit(&m);
  }
}

/* ---- Rates ------------------------------------------------------------------------------------------------------------ */

static void counts_increases(void **state) {
  struct nx_top_metrics before = parsed("c{k=\"a\",status=\"success\"} 10\nback 5\nsame 1\n");
  struct nx_top_metrics now = parsed(
    "c{k=\"a\",status=\"success\"} 14\nc{k=\"b\",status=\"error\"} 6\nc{k=\"a\",status=\"timeout\"} 1\nback 4\nsame 1\nnew 3\n");
  struct nx_top_span span = nx_top_span_of(&now, &before, 2);
  struct nx_top_group groups[4];
  assert_float_equal(nx_top_increase(&span, "c"), 11, 0);
  assert_float_equal(nx_top_increase(&span, "same"), 0, 0);
  assert_true(isnan(nx_top_increase(&span, "back")) && isnan(nx_top_increase(&span, "new")) && isnan(nx_top_increase(&span, "none")));
  assert_int_equal(nx_top_increase_by(&span, "c", "k", groups, 4), 2);
  assert_string_equal(groups[0].key, "b");
  assert_float_equal(groups[0].increase, 6, 0);
  assert_float_equal(groups[0].failed, 6, 0);
  assert_float_equal(groups[1].increase, 5, 0);
  assert_float_equal(groups[1].failed, 1, 0);
  assert_int_equal(nx_top_increase_by(&span, "c", "k", groups, 1), 1);
  assert_int_equal(nx_top_increase_by(&span, "c", "other", groups, 4), 0);
  nx_top_metrics_deinit(&before);
  nx_top_metrics_deinit(&now);
}

static void another_process_has_no_rates(void **state) {
  struct nx_top_metrics a = parsed("process_start_time_seconds 1\nc 1\n"), b = parsed("process_start_time_seconds 2\nc 5\n");
  assert_null(nx_top_span_of(&b, &a, 1).before);
  assert_non_null(nx_top_span_of(&b, &b, 1).before);
  assert_null(nx_top_span_of(&b, &b, 0).before);
  assert_null(nx_top_span_of(&b, NULL, 1).before);
  struct nx_top_span span = nx_top_span_of(&b, &a, 1);
  assert_true(isnan(nx_top_increase(&span, "c")));
  nx_top_metrics_deinit(&a);
  nx_top_metrics_deinit(&b);
}

static double quantile(const char *before_text, const char *now_text, double q, bool *beyond) {
  struct nx_top_metrics before = parsed(before_text), now = parsed(now_text);
  struct nx_top_span span = nx_top_span_of(&now, &before, 1);
  double value = nx_top_quantile(&span, "b", q, beyond);
  nx_top_metrics_deinit(&before);
  nx_top_metrics_deinit(&now);
  return value;
}

static void estimates_quantiles(void **state) {
  static const char zero[] = "b{le=\"1\"} 0\nb{le=\"2\"} 0\nb{le=\"4\"} 0\nb{le=\"+Inf\"} 0\n";
  static const char some[] = "b{le=\"+Inf\"} 100\nb{le=\"1\"} 50\nb{le=\"4\"} 100\nb{le=\"2\"} 90\n";
  bool beyond;
  assert_float_equal(quantile(zero, some, 0.5, &beyond), 1, 1e-9);
  assert_float_equal(quantile(zero, some, 0.25, &beyond), 0.5, 1e-9);
  assert_float_equal(quantile(zero, some, 0.95, &beyond), 3, 1e-9);
  assert_false(beyond);
  assert_true(isnan(quantile(zero, zero, 0.99, &beyond)));
  assert_true(isnan(quantile(some, zero, 0.99, &beyond)));
  assert_true(isnan(quantile("a 1\n", "a 1\n", 0.99, &beyond)));
  assert_float_equal(quantile(zero, "b{le=\"1\"} 1\nb{le=\"2\"} 1\nb{le=\"4\"} 1\nb{le=\"+Inf\"} 9\n", 0.99, &beyond), 4, 1e-9);
  assert_true(beyond);
  /* Not even cumulative, and bounds that are none. */
  double value = quantile(zero, "b{le=\"x\"} 1\nb{le=\"1\"} 9\nb{le=\"2\"} 3\nb{le=\"NaN\"} 4\nb{le=\"+Inf\"} 5\nb 1\n", 0.99, &beyond);
  assert_true(value >= 0 && value <= 4);
}

/* ---- Numbers ---------------------------------------------------------------------------------------------------------- */

static void formats_numbers(void **state) {
  static const struct { const char *(*format)(char *, double); double number; const char *text; } cases[] = {
    {nx_top_format_bytes, 0, "0 B"}, {nx_top_format_bytes, 999, "999 B"}, {nx_top_format_bytes, 1023, "1.00 KiB"},
    {nx_top_format_bytes, 1536, "1.50 KiB"}, {nx_top_format_bytes, 12.34 * 1048576, "12.3 MiB"},
    {nx_top_format_bytes, 123.4 * 1048576, "123 MiB"}, {nx_top_format_bytes, 0x1p30, "1.00 GiB"},
    {nx_top_format_bytes, -1536, "-1.50 KiB"}, {nx_top_format_bytes, NAN, "–"}, {nx_top_format_bytes, INFINITY, "inf"},
    {nx_top_format_number, 3, "3"}, {nx_top_format_number, 0.25, "0.25"}, {nx_top_format_number, 99.96, "100"},
    {nx_top_format_number, 999.4, "999"}, {nx_top_format_number, 999.5, "1.00k"}, {nx_top_format_number, 123456, "123k"},
    {nx_top_format_seconds, 0.0000125, "12.5 µs"}, {nx_top_format_seconds, 0.00125, "1.25 ms"}, {nx_top_format_seconds, 90, "90.0 s"},
  };
  char text[NX_TOP_NUMBER_BYTES];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_string_equal(cases[i].format(text, cases[i].number), cases[i].text);
  static const double strange[] = {1.7e308, -1.7e308, 5e-324, -0.0, 9.99e15};
  for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
    assert_true(strlen(nx_top_format_bytes(text, strange[i])) < 16);
    assert_true(strlen(nx_top_format_number(text, strange[i])) < 16);
    assert_true(strlen(nx_top_format_seconds(text, strange[i])) < 16);
  }
}

/* ---- The screen ------------------------------------------------------------------------------------------------------- */

#define COMMON                                                                                                          \
  "nexus_build_info{version=\"0.1.0\",revision=\"abc\",guest=\"g\"} 1\nprocess_start_time_seconds 1000\n"               \
  "nexus_memory_used_bytes{layer=\"process\"} 104857600\nnexus_memory_used_bytes{layer=\"instances\"} 536870912\n"      \
  "nexus_memory_used_bytes{layer=\"handlers\"} 0\nnexus_memory_used_bytes{layer=\"suspended\"} 1\n"                     \
  "nexus_memory_used_bytes{layer=\"cache\"} 1\nnexus_memory_used_bytes{layer=\"http\"} 1\n"                             \
  "nexus_memory_used_bytes{layer=\"kernel\"} 1\nnexus_memory_limit_bytes 1073741824\nnexus_memory_budget_bytes 966367641\n" \
  "nexus_memory_working_set_bytes 644245094\nnexus_memory_peak_bytes 800000000\nnexus_memory_pressure_ratio 0.0312\n"  \
  "nexus_instances{state=\"active\"} 3\nnexus_instances_max 8\nnexus_queue_depth 17\n"                                  \
  "nexus_suspended_executions 4\nnexus_suspended_bytes 1048576\nnexus_cache_size_bytes 3145728\n"                       \
  "nexus_health_status{status=\"healthy\"} 0\nnexus_health_status{status=\"degraded\"} 1\n"
#define GOVERNOR                                                                                                        \
  "nexus_memory_layer_peak_bytes{layer=\"instances\"} 700000000\nnexus_memory_accounted_bytes 641728512\n"             \
  "nexus_memory_unaccounted_bytes 2516582\nnexus_governor_state{state=\"normal\"} 0\n"                                  \
  "nexus_governor_state{state=\"reclaiming\"} 0\nnexus_governor_state{state=\"shedding\"} 1\n"
#define COUNTERS(a, b, refused, reclaimed, hits, misses, ok, bad, fast, all, sum)                                       \
  "nexus_handler_executions_total{handler=\"cart\",status=\"success\"} " a "\n"                                         \
  "nexus_handler_executions_total{handler=\"vat\",status=\"error\"} " b "\n"                                            \
  "nexus_memory_refusals_total{layer=\"instances\"} " refused "\nnexus_memory_refusals_total{layer=\"http\"} 0\n"       \
  "nexus_memory_reclaimed_bytes_total{action=\"idle_instances\"} " reclaimed "\n"                                       \
  "nexus_handler_cache_hits_total " hits "\nnexus_handler_cache_misses_total " misses "\n"                              \
  "nexus_http_requests_total{route=\"/run/{name}\",code=\"200\"} " ok "\n"                                              \
  "nexus_http_requests_total{route=\"/run/{name}\",code=\"503\"} " bad "\n"                                             \
  "nexus_handler_execution_duration_seconds_bucket{le=\"0.001\"} " fast "\n"                                            \
  "nexus_handler_execution_duration_seconds_bucket{le=\"0.002\"} " all "\n"                                             \
  "nexus_handler_execution_duration_seconds_bucket{le=\"+Inf\"} " all "\n"                                              \
  "nexus_handler_execution_duration_seconds_sum " sum "\nnexus_handler_execution_duration_seconds_count " all "\n"
static const char earlier[] = COMMON GOVERNOR COUNTERS("100", "10", "1", "0", "50", "50", "100", "0", "0", "0", "0");
static const char later[] = COMMON GOVERNOR COUNTERS("300", "20", "5", "4194304", "149", "51", "300", "10", "50", "100", "0.1");

/* What is drawn, NUL-terminated, in the caller's buffer. */
static const char *drawn(struct nx_buf *out, struct nx_top_view view, const char *before_text, const char *now_text) {
  struct nx_top_metrics before = parsed(before_text ? before_text : ""), now = parsed(now_text ? now_text : "");
  nx_buf_reset(out, SIZE_MAX);
  view.before = before_text ? &before : NULL;
  view.now = now_text ? &now : NULL;
  view.server = view.server ? view.server : "http://127.0.0.1:3000";
  view.interval_s = 2;
  view.now_s = 1000 + 3 * 86400 + 3661;
  view.since = "12:34:56";
  nx_top_draw(&view, out);
  nx_buf_char(out, 0);
  nx_top_metrics_deinit(&before);
  nx_top_metrics_deinit(&now);
  return out->data;
}

static unsigned lines_of(const char *text) {
  unsigned lines = 0;
  for (; *text; text++) lines += *text == '\n';
  return lines;
}

/* Characters of the widest line; escapes do not count, and each character must be valid. */
static unsigned width_of(const char *text) {
  unsigned width = 0, column = 0;
  while (*text) {
    if (*text == '\x1b') {
      text = strchr(text, 'm') + 1;
      continue;
    }
    size_t bytes = nx_utf8_sequence(text, strlen(text));
    assert_true(bytes);
    assert_true(*text == '\n' || (unsigned char)*text >= ' ');
    column = *text == '\n' ? 0 : column + 1;
    if (column > width) width = column;
    text += bytes;
  }
  return width;
}

#define assert_shows(text, part) do { if (!strstr((text), (part))) fail_msg("\"%s\" is not in:\n%s", (part), (text)); } while (0)

static void shows_all_in_80x24(void **state) {
  NX_BUF_AUTO out = {0};
  const char *text = drawn(&out, (struct nx_top_view){.columns = 80, .rows = 24}, earlier, later);
  if (getenv("SHOW")) puts(text);
  static const char *const parts[] = {
    "nexus 0.1.0  http://127.0.0.1:3000  up 3d 01:01\n",
    "degraded   governor shedding   pressure 3.1 %   rates of the last 2.0 s\n",
    "MEMORY      limit 1.00 GiB   budget 922 MiB   unaccounted 2.40 MiB\n",
    "process     [|||                           ]    100 MiB    9.8 %  peak         –\n",
    "instances   [|||||||||||||||    :          ]    512 MiB   50.0 %  peak   668 MiB\n",
    "handlers    [                              ]        0 B    0.0 %",
    "suspended   [|                             ]        1 B    0.0 %",
    "\nkernel ", "\ncache ", "\nhttp ",
    "sum/budget  [||||||||||||||||||||    :     ]    612 MiB   66.4 %  peak   763 MiB\n",
    "working set [||||||||||||||||||            ]    614 MiB   60.0 %\n",
    "INSTANCES   [|||||||||||                   ]       3 of 8   queue 17\n",
    "SUSPENDED   4, 1.00 MiB   CACHE 3.00 MiB, hits 99.0 % (ever 74.5 %)\n",
    "EXECUTIONS  105/s   success 100   error 5\n",
    "DURATION    mean 1.00 ms   p99 1.98 ms   REQUESTS 105/s   4xx 0   5xx 5\n",
    "REFUSED     2/s   instances 2\n",
    "RECLAIMED   2.00 MiB/s   idle_instances 2.00 MiB\n",
    "cart                                                    100   95.2 %           0\n",
    "vat                                                       5    4.8 %           5\n",
  };
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) assert_shows(text, parts[i]);
  assert_true(lines_of(text) <= 24);
  assert_true(width_of(text) <= 80);
  assert_null(strchr(text, '\x1b'));
}

static void fits_any_size(void **state) {
  NX_BUF_AUTO out = {0};
  for (unsigned columns = 1; columns < 210; columns += columns < 100 ? 1 : 13)
    for (unsigned rows = 1; rows < 40; rows += 3) {
      struct nx_top_view view = {.columns = columns, .rows = rows, .colour = rows % 2};
      const char *text = drawn(&out, view, earlier, later);
      assert_true(lines_of(text) <= rows && width_of(text) <= columns);
      view.trouble = "no server answers: Connection refused";
      text = drawn(&out, view, NULL, rows % 2 ? later : NULL);
      assert_true(lines_of(text) <= rows && width_of(text) <= columns);
    }
  const char *wide = drawn(&out, (struct nx_top_view){.columns = 160, .rows = 50}, earlier, later);
  assert_int_equal(width_of(wide), 160);
}

static void absent_families_are_dashes(void **state) {
  NX_BUF_AUTO out = {0};
  const char *text = drawn(&out, (struct nx_top_view){.columns = 80}, COMMON, COMMON);
  assert_shows(text, "governor –");
  assert_shows(text, "unaccounted –");
  assert_shows(text, "sum/budget  [                        :     ]          –        –  peak   763 MiB\n");
  assert_shows(text, "EXECUTIONS  –/s\n");
  assert_shows(text, "mean –   p99 –   REQUESTS –/s   4xx –   5xx –");
  text = drawn(&out, (struct nx_top_view){.columns = 80}, NULL, "nexus_instances_max 8\n");
  assert_shows(text, "–   governor –   pressure –   no rates yet");
  assert_shows(text, "limit –   budget –");
  assert_shows(text, "– of 8   queue –");
  text = drawn(&out, (struct nx_top_view){.columns = 80}, NULL, "nexus_memory_limit_bytes +Inf\nnexus_instances_max NaN\n");
  assert_shows(text, "limit none");
}

static void says_that_nobody_answers(void **state) {
  NX_BUF_AUTO out = {0};
  struct nx_top_view view = {.columns = 80, .rows = 24};
  assert_shows(drawn(&out, view, NULL, NULL), "asking");
  view.trouble = "no server answers: \x1b[2JConnection refused";
  const char *text = drawn(&out, view, NULL, NULL);
  assert_shows(text, "no answer since 12:34:56: no server answers: ?[2JConnection refused\n");
  assert_int_equal(lines_of(text), 2);
  text = drawn(&out, view, earlier, later);
  assert_shows(text, "no answer since 12:34:56");
  assert_shows(text, "EXECUTIONS  105/s");
}

static void colours_what_is_bad(void **state) {
  NX_BUF_AUTO out = {0};
  const char *text = drawn(&out, (struct nx_top_view){.columns = 80, .rows = 24, .colour = true}, earlier, later);
  assert_shows(text, "\x1b[33mdegraded\x1b[0m");
  assert_shows(text, "\x1b[31mshedding\x1b[0m");
}

/* Whatever a server sends, the terminal gets printable text of a bounded size. */
static void hostile_labels_do_not_reach_the_terminal(void **state) {
  static const char nasty[] = "\x1b]0;x\x07\x1b[2J\\n\r\t\x7f\xc2\x9b\xe2\x80\xae\xff%s%n";
  NX_BUF_AUTO text = {0};
  NX_BUF_AUTO out = {0};
  nx_buf_printf(&text, "nexus_build_info{version=\"%s\"} 1\nnexus_health_status{status=\"%s\"} 1\n", nasty, nasty);
  nx_buf_printf(&text, "nexus_governor_state{state=\"%s\"} 1\n", nasty);
  nx_buf_lit(&text, "nexus_memory_limit_bytes -5\nnexus_memory_budget_bytes 1e308\nnexus_instances_max -1\n");
  for (int i = 0; i < 300; i++) {
    static const char *const names[] = {"nexus_memory_used_bytes{layer=", "nexus_memory_refusals_total{layer=",
                                        "nexus_memory_reclaimed_bytes_total{action=", "nexus_http_requests_total{code="};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) nx_buf_printf(&text, "%s\"%d%s\"} 1e308\n", names[n], i, nasty);
    nx_buf_printf(&text, "nexus_handler_executions_total{handler=\"%d%s%0400d\",status=\"%s\"} 1e%d\n", i, nasty, 0, nasty, i);
  }
  nx_buf_char(&text, 0);
  for (unsigned rows = 0; rows <= 24; rows += 24) {
    struct nx_top_view view = {.columns = 80, .rows = rows};
    const char *shown = drawn(&out, view, "nexus_handler_executions_total 0\nnexus_memory_refusals_total 0\n", text.data);
    assert_true(width_of(shown) <= 80);
    assert_null(strchr(shown, '\x1b'));
    assert_true(lines_of(shown) < 60);
  }
}

/* What nexus could have written, with a few bytes changed, cut off or put in: refused, or drawn as printable text. */
static void survives_any_text(void **state) {
  static const char bytes[] = "\\\"{}=, \n\r0e+N#_a\x1b\xff";
  NX_BUF_AUTO out = {0};
  unsigned accepted = 0;
  srandom(7);
  for (int round = 0; round < 20000; round++) {
    char text[sizeof later + 8] = {0};
    size_t length = sizeof later - 1;
    memcpy(text, later, length);
    for (long n = random() % 4; n >= 0; n--) {
      size_t at = (size_t)random() % length;
      if (random() % 3) {
        text[at] = bytes[(size_t)random() % (sizeof bytes - 1)];
      } else {
        memmove(text + at, text + at + 1, length - at);
        length--;
      }
    }
    struct nx_top_metrics metrics;
    if (nx_top_metrics_parse(&metrics, text, length, NULL)) continue;
    nx_top_metrics_deinit(&metrics);
    accepted++;
    struct nx_top_view view = {.columns = 80, .rows = 24};
    const char *shown = drawn(&out, view, earlier, text);
    assert_true(width_of(shown) <= 80 && lines_of(shown) <= 24);
    shown = drawn(&out, view, text, later);
    assert_true(width_of(shown) <= 80 && lines_of(shown) <= 24);
  }
  assert_in_range(accepted, 100, 19900);
}

/* ---- URLs ------------------------------------------------------------------------------------------------------------- */

static void reads_urls(void **state) {
  static const struct { const char *url, *name; } good[] = {
    {"http://127.0.0.1:3000", "http://127.0.0.1:3000"}, {"http://127.0.0.1:3000/", "http://127.0.0.1:3000"},
    {"http://127.0.0.1", "http://127.0.0.1:80"}, {"http://[::1]:65535", "http://[::1]:65535"}, {"http://[::1]", "http://[::1]:80"},
  };
  static const char *const bad[] = {
    "", "127.0.0.1:3000", "https://127.0.0.1", "http://", "http://:80", "http://a:", "http://a:/", "http://a:0", "http://a:65536",
    "http://a:1x", "http://a:123456", "http://a/b", "http://a b", "http://a\x1b", "http://u@a", "http://[::1", "http://[]:1",
    "http://[a\nb]:1", "http://[::1]x", "http://\xc3\xa9", "http://a:80?x", "http://[::1]]:1",
  };
  struct nx_fetch_server server;
  struct nx_error err;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_int_equal(nx_fetch_server_parse(&server, good[i].url, &err), 0);
    assert_string_equal(server.name, good[i].name);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (nx_fetch_server_parse(&server, bad[i], &err) != -NX_ERR_CONFIG) fail_msg("accepted: %s", bad[i]);
  char longest[600] = "http://";
  memset(longest + 7, 'a', sizeof longest - 8);
  assert_int_equal(nx_fetch_server_parse(&server, longest, &err), -NX_ERR_CONFIG);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(reads_samples), cmocka_unit_test(keeps_the_order_within_a_name), cmocka_unit_test(undoes_escapes),
    cmocka_unit_test(reads_special_numbers), cmocka_unit_test(refuses_garbage), cmocka_unit_test(bounds_the_samples),
    cmocka_unit_test(reads_what_nexus_writes), cmocka_unit_test(counts_increases),
    cmocka_unit_test(another_process_has_no_rates), cmocka_unit_test(estimates_quantiles), cmocka_unit_test(formats_numbers),
    cmocka_unit_test(shows_all_in_80x24), cmocka_unit_test(fits_any_size), cmocka_unit_test(absent_families_are_dashes),
    cmocka_unit_test(says_that_nobody_answers), cmocka_unit_test(colours_what_is_bad),
    cmocka_unit_test(hostile_labels_do_not_reach_the_terminal), cmocka_unit_test(survives_any_text),
    cmocka_unit_test(reads_urls),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
