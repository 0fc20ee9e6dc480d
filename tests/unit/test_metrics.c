/* SPDX-License-Identifier: Apache-2.0
 * Counters under threads that come and go, labels, and the text format judged by promtool. Counters are never reset, so
 * each test looks at what it added. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "metrics/metrics_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static struct nx_metrics_gauges sample_gauges(void) {
  struct nx_metrics_gauges g = {
    .instances_active = 3,
    .instances_max = 8,
    .suspended_executions = 5,
    .suspended_foreign = 2,
    .suspended_bytes = 12345,
    .memory_limit_bytes = nx_reading_of(1073741824),
    .memory_working_set_bytes = nx_reading_of(50000000),
    .memory_pressure_bp = nx_reading_of(1234),
    .cache_size_bytes = 4096,
    .queue_depth = 2,
    .queue_timeout_ms = 1050,
    .health = NX_METRICS_HEALTH_DEGRADED,
    .version = "0.1.0",
    .revision = "abc\"\\\n",
    .guest = "00ff",
  };
  g.ledger.budget = 966367642;
  g.ledger.peak = 777;
  for (unsigned i = 0; i < NX_LAYER_COUNT; i++) {
    g.ledger.layers[i].current = 1000 + i;
    g.ledger.layers[i].refusals = i;
  }
  return g;
}

/* The text of /metrics; valid until the next call. */
static const char *scrape_with(const struct nx_metrics_gauges *gauges) {
  static char text[1 << 18];
  NX_BUF_AUTO buf = {0};
  nx_metrics_write(&buf, gauges);
  assert_false(buf.failed);
  assert_true(buf.len < sizeof text);
  memcpy(text, buf.data, buf.len);
  text[buf.len] = 0;
  return text;
}

static const char *scrape(void) {
  struct nx_metrics_gauges g = sample_gauges();
  return scrape_with(&g);
}

static void assert_line(const char *text, const char *line) {
  char whole[256];
  snprintf(whole, sizeof whole, "\n%s\n", line);
  if (!strstr(text, whole)) fail_msg("no line %s", line);
}

/* The value of a series without or with labels; -1 when it is not there. */
static long long value_of(const char *series) {
  const char *text = scrape();
  char start[256];
  snprintf(start, sizeof start, "\n%s ", series);
  const char *line = strstr(text, start);
  return line ? atoll(line + strlen(start)) : -1;
}

static struct nx_metrics_totals totals(void) {
  struct nx_metrics_totals t;
  nx_metrics_totals(&t);
  return t;
}

static void counts_show_in_totals(void **state) {
  (void)state;
  struct nx_metrics_totals before = totals();
  nx_metrics_execution(NX_METRICS_HANDLER_INLINE, NX_METRICS_STATUS_SUCCESS, 8000);
  nx_metrics_execution(NX_METRICS_HANDLER_INLINE, NX_METRICS_STATUS_SUSPENDED, 8000);
  nx_metrics_execution(NX_METRICS_HANDLER_INLINE, NX_METRICS_STATUS_TIMEOUT, 5000000000);
  nx_metrics_execution(99999, NX_METRICS_STATUS_ERROR, 1);
  nx_metrics_cache(true);
  nx_metrics_cache(true);
  nx_metrics_cache(false);
  nx_metrics_suspension();
  nx_metrics_resume(NX_METRICS_RESUME_RESUMED, 40000);
  nx_metrics_resume(NX_METRICS_RESUME_EXPIRED, 999999999999);
  nx_metrics_queue_wait(700000);
  struct nx_metrics_totals after = totals();
  assert_int_equal(after.executions - before.executions, 4);
  assert_int_equal(after.errors - before.errors, 2);
  assert_int_equal(after.by_status[NX_METRICS_STATUS_TIMEOUT] - before.by_status[NX_METRICS_STATUS_TIMEOUT], 1);
  assert_int_equal(after.cache_hits - before.cache_hits, 2);
  assert_int_equal(after.cache_misses - before.cache_misses, 1);
  assert_int_equal(after.suspensions - before.suspensions, 1);
  assert_int_equal(after.resumes - before.resumes, 1);
  assert_int_equal(after.execution_max_ns, 5000000000);
  assert_int_equal(after.queue_wait_max_ns, 700000);
  assert_int_equal(after.resume_max_ns, 40000);
}

static void handler_labels_are_bounded(void **state) {
  (void)state;
  static const char *const bad[] = {"", ".hidden", "-dash", "a b", "a/b", "a\"b", "a\nb", "\xc3\xa9", "inline", "other",
                                    "a{b"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(nx_metrics_handler_label(bad[i]), NX_METRICS_HANDLER_OTHER);
  char name[140];
  memset(name, 'n', sizeof name);
  name[129] = 0;
  assert_int_equal(nx_metrics_handler_label(name), NX_METRICS_HANDLER_OTHER);
  name[128] = 0;
  unsigned longest = nx_metrics_handler_label(name);
  assert_int_equal(longest, NX_METRICS_HANDLER_FIRST);
  assert_string_equal(nx__metrics_handler_name(longest), name);
  unsigned cart = nx_metrics_handler_label("cart");
  assert_int_equal(nx_metrics_handler_label("cart"), cart);
  assert_int_not_equal(nx_metrics_handler_label("Cart"), cart);
  assert_null(nx__metrics_handler_name(NX_METRICS_HANDLER_FIRST + 50));
  for (int i = 0; i < 200; i++) {
    snprintf(name, sizeof name, "_h.%d-x", i);
    unsigned label = nx_metrics_handler_label(name);
    assert_int_equal(label, i < 97 ? NX_METRICS_HANDLER_FIRST + 3u + (unsigned)i : NX_METRICS_HANDLER_OTHER);
  }
  assert_int_equal(nx_metrics_handler_label("cart"), cart);
  assert_int_equal(nx_metrics_handler_label("cart2"), NX_METRICS_HANDLER_OTHER);
  nx_metrics_execution(cart, NX_METRICS_STATUS_MEMORY_LIMIT, 1);
  assert_int_equal(value_of("nexus_handler_executions_total{handler=\"cart\",status=\"memory_limit\"}"), 1);
  assert_int_equal(value_of("nexus_handler_executions_total{handler=\"cart\",status=\"success\"}"), 0);
  assert_int_equal(value_of("nexus_handler_executions_total{handler=\"cart\",status=\"timeout\"}"), -1);
}

static void http_routes_and_codes(void **state) {
  (void)state;
  nx_metrics_http(NX_METRICS_ROUTE_RUN, 200);
  nx_metrics_http(NX_METRICS_ROUTE_RUN, 507);
  nx_metrics_http(NX_METRICS_ROUTE_OTHER, 418);
  nx_metrics_http(NX_METRICS_ROUTE_OTHER, 0);
  nx_metrics_http(NX_METRICS_ROUTE_OTHER, -5);
  assert_int_equal(value_of("nexus_http_requests_total{route=\"/run/{name}\",code=\"200\"}"), 1);
  assert_int_equal(value_of("nexus_http_requests_total{route=\"/run/{name}\",code=\"507\"}"), 1);
  assert_int_equal(value_of("nexus_http_requests_total{route=\"other\",code=\"other\"}"), 3);
  assert_int_equal(value_of("nexus_http_requests_total{route=\"/v1/execute\",code=\"200\"}"), 0);
}

static void histogram_bounds_are_inclusive_and_cumulative(void **state) {
  (void)state;
#define QUEUE(le) value_of("nexus_queue_wait_duration_seconds_bucket{le=\"" le "\"}")
  long long first = QUEUE("1e-05"), second = QUEUE("2.5e-05"), last = QUEUE("10"), all = QUEUE("+Inf");
  static const uint64_t waits[] = {0, 10000, 10001, 25000, UINT64_C(10000000000), UINT64_C(10000000001)};
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) nx_metrics_queue_wait(waits[i]);
  assert_int_equal(QUEUE("1e-05") - first, 2);
  assert_int_equal(QUEUE("2.5e-05") - second, 4);
  assert_int_equal(QUEUE("10") - last, 5);
  assert_int_equal(QUEUE("+Inf") - all, 6);
  assert_int_equal(value_of("nexus_queue_wait_duration_seconds_count"), QUEUE("+Inf"));
  /* 0.0007 s are of an earlier test. */
  assert_non_null(strstr(scrape(), "\nnexus_queue_wait_duration_seconds_sum 20.000745002\n"));
}

static void gauges_are_written(void **state) {
  (void)state;
  const char *text = scrape();
  assert_line(text, "nexus_instances{state=\"active\"} 3");
  assert_line(text, "nexus_instances{state=\"available\"} 5");
  assert_line(text, "nexus_instances_max 8");
  assert_line(text, "nexus_suspended_executions 5");
  assert_line(text, "nexus_suspended_foreign_executions 2");
  assert_line(text, "nexus_suspended_bytes 12345");
  assert_line(text, "nexus_memory_used_bytes{layer=\"process\"} 1000");
  assert_line(text, "nexus_memory_used_bytes{layer=\"kernel\"} 1006");
  assert_line(text, "nexus_memory_refusals_total{layer=\"http\"} 5");
  assert_line(text, "nexus_memory_peak_bytes 777");
  assert_line(text, "nexus_memory_limit_bytes 1073741824");
  assert_line(text, "nexus_memory_budget_bytes 966367642");
  assert_line(text, "nexus_memory_working_set_bytes 50000000");
  assert_line(text, "nexus_memory_pressure_ratio 0.1234");
  assert_line(text, "nexus_cache_size_bytes 4096");
  assert_line(text, "nexus_queue_depth 2");
  assert_line(text, "nexus_queue_timeout_seconds 1.050");
  assert_line(text, "nexus_health_status{status=\"healthy\"} 0");
  assert_line(text, "nexus_health_status{status=\"degraded\"} 1");
  assert_line(text, "nexus_build_info{version=\"0.1.0\",revision=\"abc\\\"\\\\\\n\",guest=\"00ff\"} 1");
  /* From the start, so that the first failure is an increase. */
  assert_line(text, "nexus_suspension_store_failures_total{reason=\"unavailable\"} 0");
  nx_metrics_store_failed(NX_METRICS_STORE_FULL);
  assert_line(scrape(), "nexus_suspension_store_failures_total{reason=\"full\"} 1");
  assert_line(scrape(), "nexus_suspension_store_failures_total{reason=\"unavailable\"} 0");
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_CACHE_FILES, 1 << 20);
  assert_line(scrape(), "nexus_memory_reclaimed_bytes_total{action=\"cache_files\"} 1048576");
}

static void what_is_unknown_is_left_out(void **state) {
  (void)state;
  struct nx_metrics_gauges g = sample_gauges();
  g.memory_limit_bytes = nx_reading_unlimited();
  g.memory_working_set_bytes = g.memory_pressure_bp = nx_reading_unknown();
  g.instances_active = 9; /* more than max, for a moment */
  g.version = g.revision = g.guest = NULL;
  const char *text = scrape_with(&g);
  assert_line(text, "nexus_memory_limit_bytes +Inf");
  assert_null(strstr(text, "nexus_memory_working_set_bytes"));
  assert_null(strstr(text, "nexus_memory_pressure_ratio"));
  assert_line(text, "nexus_instances{state=\"available\"} 0");
  assert_line(text, "nexus_build_info{version=\"\",revision=\"\",guest=\"\"} 1");
}

static void every_family_has_help_and_type_once(void **state) {
  (void)state;
  const char *text = scrape();
  for (int family = 0; family < NX__FAMILY_COUNT; family++) {
    const char *name = nx__metrics_family_name((enum nx__family)family);
    static const char *const kinds[] = {"HELP", "TYPE"};
    for (size_t i = 0; i < 2; i++) {
      char start[128];
      snprintf(start, sizeof start, "# %s %s ", kinds[i], name);
      const char *first = strstr(text, start);
      if (!first) fail_msg("no %s", start);
      assert_null(strstr(first + 1, start));
    }
  }
}

static void process_metrics_are_sane(void **state) {
  (void)state;
  long long start = value_of("process_start_time_seconds"), now = (long long)time(NULL);
  assert_in_range(start, now - 600, now + 1);
  assert_in_range(value_of("process_open_fds"), 3, 100);
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  assert_int_equal(value_of("process_max_fds"), limit.rlim_cur);
  long long resident = value_of("process_resident_memory_bytes");
  assert_true(resident > 500000 && resident <= value_of("process_virtual_memory_bytes"));
  assert_true(value_of("process_cpu_seconds_total") >= 0);
  uint64_t ticks;
  static const char stat[] = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 424242 20\n";
  assert_true(nx__metrics_parse_start_ticks(stat, &ticks));
  assert_int_equal(ticks, 424242);
  assert_false(nx__metrics_parse_start_ticks("", &ticks));
  assert_false(nx__metrics_parse_start_ticks("7 (a) S 1 2", &ticks));
}

/* threads */

enum { THREADS = 8, COUNTS = 20000, GENERATIONS = 20 };

static void *count_a_lot(void *arg) {
  unsigned label = *(unsigned *)arg;
  for (int i = 0; i < COUNTS; i++) nx_metrics_execution(label, NX_METRICS_STATUS_SUCCESS, 20000);
  nx_metrics_http(NX_METRICS_ROUTE_HEALTH, 200);
  return NULL;
}

static size_t count_mappings(void) {
  FILE *maps = fopen("/proc/self/maps", "re");
  assert_non_null(maps);
  size_t bytes = 0;
  unsigned long from, to;
  char line[512];
  while (fgets(line, sizeof line, maps))
    if (sscanf(line, "%lx-%lx", &from, &to) == 2 && !strchr(line, '/') && !strchr(line, '[')) bytes += to - from;
  fclose(maps);
  return bytes;
}

/* Generations of threads: every count arrives, also of the dead, and totals never go back while they run. */
static void threads_come_and_go_and_nothing_is_lost(void **state) {
  (void)state;
  unsigned label = nx_metrics_handler_label("cart");
  struct nx_metrics_totals before = totals();
  long long health = value_of("nexus_http_requests_total{route=\"/health\",code=\"200\"}");
  if (health < 0) health = 0;
  uint64_t last = before.executions;
  size_t mapped_after_first = 0;
  for (int generation = 0; generation < GENERATIONS; generation++) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, count_a_lot, &label), 0);
    for (int i = 0; i < 20; i++) {
      uint64_t seen = totals().executions;
      assert_true(seen >= last);
      last = seen;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    if (generation == 0) mapped_after_first = count_mappings();
  }
  assert_int_equal(totals().executions - before.executions, (uint64_t)THREADS * COUNTS * GENERATIONS);
  health = value_of("nexus_http_requests_total{route=\"/health\",code=\"200\"}") - health;
  assert_int_equal(health, THREADS * GENERATIONS);
  /* Slots were reused: 160 threads did not take 160 × 16 KiB. Sanitizers map memory of their own meanwhile. */
  if (!SANITIZED) assert_true(count_mappings() < mapped_after_first + (1 << 20));
}

static pthread_barrier_t all_started, no_more_memory, all_count;

static void *count_without_memory(void *arg) {
  (void)arg;
  pthread_barrier_wait(&all_started);
  pthread_barrier_wait(&no_more_memory);
  nx_metrics_cache(true);
  pthread_barrier_wait(&all_count); /* all have a slot at once */
  for (int i = 1; i < COUNTS; i++) nx_metrics_cache(true);
  return NULL;
}

/* In a child, so that the limit on the address space ends with it: more threads than there are slots to reuse, and no
 * room for new slots once they have started. */
static int count_in_a_full_process(void) {
  enum { MORE = 3 * THREADS };
  pthread_t threads[MORE];
  uint64_t before = totals().cache_hits;
  pthread_barrier_init(&all_started, NULL, MORE + 1);
  pthread_barrier_init(&no_more_memory, NULL, MORE + 1);
  pthread_barrier_init(&all_count, NULL, MORE);
  for (int i = 0; i < MORE; i++)
    if (pthread_create(&threads[i], NULL, count_without_memory, NULL)) return 10;
  pthread_barrier_wait(&all_started);
  struct rlimit saved;
  if (getrlimit(RLIMIT_AS, &saved) || setrlimit(RLIMIT_AS, &(struct rlimit){4096, saved.rlim_max})) return 11;
  pthread_barrier_wait(&no_more_memory);
  for (int i = 0; i < MORE; i++) pthread_join(threads[i], NULL);
  setrlimit(RLIMIT_AS, &saved);
  return totals().cache_hits - before == (uint64_t)MORE * COUNTS ? 0 : 12;
}

static void a_thread_without_memory_counts_too(void **state) {
  (void)state;
  if (SANITIZED) {
    print_message("[  NOTE    ] sanitizers need address space: skipped\n");
    skip();
  }
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) _exit(count_in_a_full_process());
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

static void counting_is_cheap(void **state) {
  (void)state;
  enum { MANY = 2000000 };
  uint64_t start = nx_clock_ns();
  for (int i = 0; i < MANY; i++) nx_metrics_execution(NX_METRICS_HANDLER_INLINE, NX_METRICS_STATUS_SUCCESS, 12000);
  uint64_t count_ns = (nx_clock_ns() - start) / MANY;
  struct nx_metrics_gauges g = sample_gauges();
  NX_BUF_AUTO buf = {0};
  start = nx_clock_ns();
  nx_metrics_write(&buf, &g);
  print_message("[  NOTE    ] one execution counted in %llu ns; %zu bytes written in %llu us\n",
                (unsigned long long)count_ns, buf.len, (unsigned long long)(nx_clock_ns() - start) / 1000);
  assert_true(count_ns < 2000);
}

/* the format */

static void promtool_finds_nothing(void **state) {
  (void)state;
  if (system("command -v promtool >/dev/null 2>&1")) {
    print_message("[  NOTE    ] promtool is not installed: the format was not checked\n");
    skip();
  }
  const char *text = scrape();
  FILE *promtool = popen("promtool check metrics 2>&1 | tee /dev/stderr | wc -c | grep -qx 0", "w");
  assert_non_null(promtool);
  assert_int_equal(fwrite(text, 1, strlen(text), promtool), strlen(text));
  assert_int_equal(pclose(promtool), 0);
}

static void a_full_buffer_says_so(void **state) {
  (void)state;
  struct nx_metrics_gauges g = sample_gauges();
  NX_BUF_AUTO buf = {.limit = 1000};
  nx_metrics_write(&buf, &g);
  assert_true(buf.failed);
}

static void docs_list_every_family(void **state) {
  (void)state;
  char *page = NULL;
  size_t size = 0;
  FILE *file = open_memstream(&page, &size);
  assert_non_null(file);
  assert_int_equal(nx_metrics_write_docs(file, NULL), 0);
  fclose(file);
  for (int family = 0; family < NX__FAMILY_COUNT; family++) {
    char start[128];
    snprintf(start, sizeof start, "\n| `%s` | ", nx__metrics_family_name((enum nx__family)family));
    assert_non_null(strstr(page, start));
  }
  free(page);
  FILE *full = fopen("/dev/full", "w");
  assert_non_null(full);
  assert_int_equal(nx_metrics_write_docs(full, NULL), -NX_ERR_SYSTEM);
  fclose(full);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(counts_show_in_totals),
    cmocka_unit_test(handler_labels_are_bounded),
    cmocka_unit_test(http_routes_and_codes),
    cmocka_unit_test(histogram_bounds_are_inclusive_and_cumulative),
    cmocka_unit_test(gauges_are_written),
    cmocka_unit_test(what_is_unknown_is_left_out),
    cmocka_unit_test(every_family_has_help_and_type_once),
    cmocka_unit_test(process_metrics_are_sane),
    cmocka_unit_test(threads_come_and_go_and_nothing_is_lost),
    cmocka_unit_test(a_thread_without_memory_counts_too),
    cmocka_unit_test(counting_is_cheap),
    cmocka_unit_test(promtool_finds_nothing),
    cmocka_unit_test(a_full_buffer_says_so),
    cmocka_unit_test(docs_list_every_family),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
