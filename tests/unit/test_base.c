/* SPDX-License-Identifier: Apache-2.0
 * Errors, buffers, JSON strings and the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/reading.h"
#include "base/thread.h"
#include "counting_account.h"

static void assert_text(const struct nx_buf *buf, const char *expected) {
  assert_false(buf->failed);
  if (buf->len != strlen(expected) || memcmp(buf->data, expected, buf->len))
    fail_msg("got \"%.*s\", expected \"%s\"", (int)buf->len, buf->data, expected);
}

/* errors */

static void error_set_fills_and_returns_the_negative_code(void **state) {
  (void)state;
  struct nx_error err = {0};
  assert_int_equal(nx_error_set(&err, NX_ERR_NOT_FOUND, "no handler %s", "cart"), -NX_ERR_NOT_FOUND);
  assert_int_equal(err.code, NX_ERR_NOT_FOUND);
  assert_int_equal(err.sys_errno, 0);
  assert_string_equal(err.text, "no handler cart");
  assert_int_equal(nx_error_set(NULL, NX_ERR_CONFLICT, "x"), -NX_ERR_CONFLICT);
}

static void error_sys_keeps_errno_and_says_it(void **state) {
  (void)state;
  struct nx_error err = {0};
  errno = ENOENT;
  assert_int_equal(nx_error_sys(&err, "open %s", "/x"), -NX_ERR_SYSTEM);
  assert_int_equal(errno, ENOENT);
  assert_int_equal(err.sys_errno, ENOENT);
  assert_string_equal(err.text, "open /x: No such file or directory");
  errno = 99999;
  nx_error_sys(&err, "open");
  assert_string_equal(err.text, "open: unknown system error");
  errno = ENOENT;
  assert_int_equal(nx_error_sys(NULL, "open"), -NX_ERR_SYSTEM);
}

static void error_wrap_prefixes_and_keeps_the_code(void **state) {
  (void)state;
  struct nx_error err = {0};
  nx_error_set(&err, NX_ERR_TOO_LARGE, "inner");
  assert_int_equal(nx_error_wrap(&err, "load %d", 7), -NX_ERR_TOO_LARGE);
  assert_string_equal(err.text, "load 7: inner");
  assert_int_equal(nx_error_wrap(NULL, "x"), -NX_ERR_INTERNAL);
}

static void error_texts_are_cut_and_terminated(void **state) {
  (void)state;
  struct nx_error err = {0};
  char longer[600];
  memset(longer, 'a', sizeof longer);
  longer[sizeof longer - 1] = 0;
  nx_error_set(&err, NX_ERR_INTERNAL, "%s", longer);
  assert_int_equal(strlen(err.text), sizeof err.text - 1);
  nx_error_wrap(&err, "b");
  assert_int_equal(strlen(err.text), sizeof err.text - 1);
  assert_memory_equal(err.text, "b: aaa", 6);
  nx_error_wrap(&err, "%s", longer);
  assert_int_equal(strlen(err.text), sizeof err.text - 1);
  errno = EIO;
  nx_error_sys(&err, "%s", longer);
  assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void every_error_has_a_name_and_a_status(void **state) {
  (void)state;
  for (int code = NX_OK; code <= NX_ERR_SYSTEM; code++) {
    assert_non_null(nx_error_name((enum nx_error_code)code));
    assert_in_range(nx_error_http_status((enum nx_error_code)code), 200, 599);
  }
  assert_string_equal(nx_error_name(NX_ERR_UNPROCESSABLE), "COMPILATION_ERROR");
  assert_int_equal(nx_error_http_status(NX_ERR_OVERLOADED), 503);
}

/* buffers */

static void buf_appends_of_every_kind(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  nx_buf_str(&buf, "a");
  nx_buf_lit(&buf, "bc");
  nx_buf_char(&buf, 'd');
  nx_buf_printf(&buf, "-%d-%s", 42, "x");
  nx_buf_u64(&buf, 0);
  nx_buf_char(&buf, ' ');
  nx_buf_u64(&buf, UINT64_MAX);
  nx_buf_add(&buf, NULL, 0);
  nx_buf_printf(&buf, "%s", "");
  assert_text(&buf, "abcd-42-x0 18446744073709551615");
}

static void buf_grows_and_keeps_content(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  for (int i = 0; i < 100000; i++) nx_buf_char(&buf, (char)('a' + i % 26));
  assert_false(buf.failed);
  assert_int_equal(buf.len, 100000);
  for (int i = 0; i < 100000; i++) assert_int_equal(buf.data[i], 'a' + i % 26);
}

static void buf_limit_is_exact_and_sticky(void **state) {
  (void)state;
  for (int printed = 0; printed < 2; printed++) {
    NX_BUF_AUTO buf = {.limit = 5};
    if (printed)
      nx_buf_printf(&buf, "%s", "12345"); /* the NUL of vsnprintf does not count */
    else
      nx_buf_str(&buf, "12345");
    assert_text(&buf, "12345");
    nx_buf_char(&buf, '6');
    assert_true(buf.failed);
    assert_int_equal(buf.len, 5);
    nx_buf_reset(&buf, 0);
    assert_false(buf.failed);
    assert_null(buf.data);
    nx_buf_printf(&buf, "%d", 123456);
    assert_true(buf.failed);
    nx_buf_str(&buf, "1"); /* sticky */
    assert_int_equal(buf.len, 0);
  }
}

static void buf_limit_holds_within_a_larger_capacity(void **state) {
  (void)state;
  char bytes[64];
  struct nx_buf buf = {.data = bytes, .capacity = sizeof bytes, .limit = 10};
  nx_buf_lit(&buf, "0123456789");
  assert_false(buf.failed);
  nx_buf_char(&buf, 'x');
  assert_true(buf.failed);
  assert_ptr_equal(buf.data, bytes);
}

static void buf_impossible_sizes_fail_cleanly(void **state) {
  (void)state;
  static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 1, PTRDIFF_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    NX_BUF_AUTO buf = {0};
    nx_buf_char(&buf, 'a');
    assert_null(nx_buf_reserve(&buf, sizes[i]));
    assert_true(buf.failed);
    assert_int_equal(buf.len, 1);
  }
}

static void buf_reset_keeps_small_memory_only(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  nx_buf_lit(&buf, "x");
  char *data = buf.data;
  nx_buf_reset(&buf, 4096);
  assert_ptr_equal(buf.data, data);
  assert_int_equal(buf.len, 0);
  nx_buf_reserve(&buf, 10000);
  nx_buf_reset(&buf, 4096);
  assert_null(buf.data);
  assert_int_equal(buf.capacity, 0);
}

static void buf_charges_its_capacity(void **state) {
  (void)state;
  struct counting_account account = COUNTING_ACCOUNT;
  struct nx_buf buf = {.account = &account.as_account};
  assert_int_equal(account.charged, 0);
  for (int i = 0; i < 100000; i++) {
    nx_buf_char(&buf, 'x');
    if (account.charged != buf.capacity) fail_msg("%zu charged for %zu", account.charged, buf.capacity);
  }
  nx_buf_printf(&buf, "%0200000d", 1);
  assert_int_equal(account.charged, buf.capacity);
  nx_buf_shrink(&buf);
  assert_int_equal(buf.capacity, 300000);
  assert_int_equal(account.charged, 300000);
  nx_buf_shrink(&buf);
  assert_int_equal(account.charged, 300000);
  nx_buf_reset(&buf, 300000);
  assert_int_equal(account.charged, 300000);
  nx_buf_shrink(&buf); /* of nothing: all */
  assert_null(buf.data);
  assert_int_equal(account.charged, 0);
  nx_buf_lit(&buf, "again");
  nx_buf_reset(&buf, 10);
  assert_int_equal(account.charged, 0);
  nx_buf_lit(&buf, "again");
  nx_buf_deinit(&buf);
  assert_int_equal(account.charged, 0);
  assert_ptr_equal(buf.account, &account.as_account); /* ready for more */
  nx_buf_deinit(&buf);
}

static void buf_that_is_refused_fails_and_keeps_what_it_has(void **state) {
  (void)state;
  struct counting_account account = COUNTING_ACCOUNT;
  account.limit = 1000;
  struct nx_buf buf = {.account = &account.as_account};
  nx_buf_lit(&buf, "kept");
  assert_null(nx_buf_reserve(&buf, 2000));
  assert_true(buf.failed);
  assert_int_equal(buf.starved_bytes, 4 + 2000 - buf.capacity);
  assert_memory_equal(buf.data, "kept", 4);
  assert_int_equal(account.charged, buf.capacity);
  nx_buf_lit(&buf, "x"); /* sticky, though there would be room */
  assert_int_equal(buf.len, 4);
  nx_buf_reset(&buf, 1000);
  assert_false(buf.failed || buf.starved_bytes);
  nx_buf_lit(&buf, "x");
  assert_text(&buf, "x");
  nx_buf_deinit(&buf);
  assert_int_equal(account.charged, 0);

  account.limit = 0;
  nx_buf_printf(&buf, "%d", 1);
  assert_true(buf.failed && buf.starved_bytes && !buf.data);
  nx_buf_deinit(&buf);
}

/* Past its own limit a buffer has failed, but memory was not the reason. */
static void buf_past_its_limit_is_not_starved(void **state) {
  (void)state;
  struct counting_account account = COUNTING_ACCOUNT;
  struct nx_buf buf = {.account = &account.as_account, .limit = 10};
  nx_buf_lit(&buf, "0123456789");
  nx_buf_char(&buf, 'a');
  assert_true(buf.failed && !buf.starved_bytes);
  nx_buf_deinit(&buf);
  buf = (struct nx_buf){.account = &account.as_account};
  assert_null(nx_buf_reserve(&buf, SIZE_MAX / 2 + 1)); /* no memory for that */
  assert_true(buf.failed && buf.starved_bytes == SIZE_MAX / 2 + 1);
  nx_buf_deinit(&buf);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* whose malloc gives up */
  assert_null(nx_buf_reserve(&buf, PTRDIFF_MAX)); /* charged, and returned when malloc refuses */
#endif
  assert_int_equal(account.charged, 0);
}

/* How a result goes from an execution to a response: the copy owns bytes and charge. */
static void buf_is_given_away_by_copy(void **state) {
  (void)state;
  struct counting_account account = COUNTING_ACCOUNT;
  struct nx_buf from = {.account = &account.as_account};
  nx_buf_lit(&from, "moved");
  struct nx_buf to = from;
  from = (struct nx_buf){.account = from.account};
  nx_buf_deinit(&from);
  assert_int_equal(account.charged, to.capacity);
  nx_buf_lit(&to, " here");
  assert_text(&to, "moved here");
  nx_buf_deinit(&to);
  assert_int_equal(account.charged, 0);
}

/* JSON strings */

#define BAD "\xef\xbf\xbd"

static void json_strings(void **state) {
  (void)state;
  static const struct { const char *in; size_t bytes; const char *out; } cases[] = {
#define CASE(in, out) {in, sizeof(in) - 1, out}
    CASE("", "\"\""),
    CASE("plain", "\"plain\""),
    CASE("a\"b\\c/", "\"a\\\"b\\\\c/\""),
    CASE("\b\t\n\f\r", "\"\\b\\t\\n\\f\\r\""),
    CASE("\x01\x1f\x7f", "\"\\u0001\\u001f\\u007f\""),
    CASE("a\0b", "\"a\\u0000b\""),
    CASE("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""),
    CASE("\xc2\x80\xc2\x9b\xc2\x9f", "\"\\u0080\\u009b\\u009f\""), /* C1: terminals obey them */
    CASE("\xc2\xa0", "\"\xc2\xa0\""),
    CASE("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\""),
    /* not UTF-8 */
    CASE("\x80", "\"" BAD "\""),
    CASE("\xff\xfe", "\"" BAD BAD "\""),
    CASE("\xc3", "\"" BAD "\""),
    CASE("\xc3(", "\"" BAD "(\""),
    CASE("\xc0\xaf", "\"" BAD BAD "\""),                         /* overlong */
    CASE("\xe0\x80\xaf", "\"" BAD BAD BAD "\""),                 /* overlong */
    CASE("\xf0\x80\x80\xaf", "\"" BAD BAD BAD BAD "\""),         /* overlong */
    CASE("\xed\xa0\x80", "\"" BAD BAD BAD "\""),                 /* surrogate */
    CASE("\xf4\x90\x80\x80", "\"" BAD BAD BAD BAD "\""),         /* past U+10FFFF */
    CASE("\xf8\x88\x80\x80\x80", "\"" BAD BAD BAD BAD BAD "\""), /* five bytes */
    CASE("\xe2\x82", "\"" BAD BAD "\""),                         /* cut */
    CASE("\xe2\x82\"", "\"" BAD BAD "\\\"\""),                   /* cut, then a quote */
    CASE("\xf0\x9f\x98", "\"" BAD BAD BAD "\""),
    CASE("ok\xc3\xa9\xc3ok", "\"ok\xc3\xa9" BAD "ok\""),
#undef CASE
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    NX_BUF_AUTO buf = {0};
    /* An exact copy, so that the sanitizer sees a read past the end. */
    char *copy = malloc(cases[i].bytes + 1);
    assert_non_null(copy);
    memcpy(copy, cases[i].in, cases[i].bytes);
    copy = realloc(copy, cases[i].bytes ? cases[i].bytes : 1);
    nx_buf_json_string(&buf, copy, cases[i].bytes);
    assert_text(&buf, cases[i].out);
    free(copy);
  }
}

static size_t count_bad(const struct nx_buf *buf) {
  size_t n = 0;
  for (size_t i = 0; i + 3 <= buf->len; i++) n += !memcmp(buf->data + i, BAD, 3);
  return n;
}

/* Whatever the bytes are, the result is one line of valid UTF-8: going through again it gains no replacement. */
static void json_string_of_random_bytes_is_stable(void **state) {
  (void)state;
  unsigned seed = 1;
  for (int round = 0; round < 20000; round++) {
    char bytes[16];
    size_t n = (size_t)(rand_r(&seed) % 16);
    for (size_t i = 0; i < n; i++) bytes[i] = (char)(rand_r(&seed) >> 3);
    NX_BUF_AUTO once = {0};
    NX_BUF_AUTO twice = {0};
    nx_buf_json_string(&once, bytes, n);
    assert_false(once.failed);
    for (size_t i = 0; i < once.len; i++) assert_true((unsigned char)once.data[i] >= 0x20 && once.data[i] != 0x7f);
    nx_buf_json_string(&twice, once.data, once.len);
    assert_int_equal(count_bad(&twice), count_bad(&once));
  }
}

/* log */

/* What nx_log wrote since the last call; the pipe is emptied. */
static char captured[1 << 17];
static int pipe_ends[2];

static const char *take_log(void) {
  ssize_t n = read(pipe_ends[0], captured, sizeof captured - 1);
  captured[n > 0 ? n : 0] = 0;
  return captured;
}

static int open_log(void **state) {
  (void)state;
  if (pipe2(pipe_ends, O_CLOEXEC)) return -1;
  return fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK);
}

static int close_log(void **state) {
  (void)state;
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  nx_log_init(STDOUT_FILENO, NX_LOG_INFO, false);
  return 0;
}

/* The line without its time stamp, which is checked for form. */
static const char *after_time(const char *line) {
  static const char form[] = "0000-00-00T00:00:00.000Z ";
  for (size_t i = 0; i < sizeof form - 1; i++)
    if (form[i] == '0' ? line[i] < '0' || line[i] > '9' : line[i] != form[i]) fail_msg("bad time in %s", line);
  return line + sizeof form - 1;
}

static void log_text_lines(void **state) {
  (void)state;
  nx_log_init(pipe_ends[1], NX_LOG_INFO, false);
  nx_log(NX_LOG_INFO, "ready", "port", "3000", "name", "a b", "empty", "", NULL);
  assert_string_equal(after_time(take_log()), "info  ready port=3000 name=\"a b\" empty=\"\"\n");
  nx_log(NX_LOG_ERROR, "failed", NULL);
  assert_string_equal(after_time(take_log()), "error failed\n");
  nx_log(NX_LOG_DEBUG, "hidden", NULL);
  assert_string_equal(take_log(), "");
  assert_false(nx_log_enabled(NX_LOG_DEBUG));
  assert_true(nx_log_enabled(NX_LOG_WARN));
}

static void log_json_lines(void **state) {
  (void)state;
  nx_log_init(pipe_ends[1], NX_LOG_DEBUG, true);
  nx_log(NX_LOG_DEBUG, "x \"y\"", "k", "v\n", NULL);
  const char *line = take_log();
  assert_memory_equal(line, "{\"time\":\"", 9);
  assert_string_equal(strstr(line, "Z\"") + 2, ",\"level\":\"debug\",\"message\":\"x \\\"y\\\"\",\"k\":\"v\\n\"}\n");
}

static void log_values_cannot_forge_lines(void **state) {
  (void)state;
  static const char *const hostile[] = {
    "a\n2026-01-01T00:00:00.000Z error forged", "a b=c", "\"quoted", "\x1b[2J", "\xc2\x9bJ", "back\\slash", "\x7f\r",
    "\xff\xfe", "x=\"y\" z=1"};
  for (int json = 0; json < 2; json++) {
    nx_log_init(pipe_ends[1], NX_LOG_INFO, json);
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
      nx_log(NX_LOG_WARN, "m", "value", hostile[i], "last", "1", NULL);
      const char *line = take_log();
      size_t n = strlen(line);
      assert_ptr_equal(strchr(line, '\n'), line + n - 1);
      for (size_t j = 0; j + 1 < n; j++) assert_true((unsigned char)line[j] >= 0x20 && line[j] != 0x7f);
      assert_null(strstr(line, "\xc2\x9b"));
      NX_BUF_AUTO quoted = {0};
      nx_buf_json_string(&quoted, hostile[i], strlen(hostile[i]));
      assert_non_null(memmem(line, n, quoted.data, quoted.len));
    }
  }
}

static void log_huge_values_are_cut_and_do_not_push_others_out(void **state) {
  (void)state;
  static const char fillers[][4] = {"a", "\x01", "\xe2\x82\xac"};
  for (int json = 0; json < 2; json++) {
    nx_log_init(pipe_ends[1], NX_LOG_INFO, json);
    for (size_t f = 0; f < sizeof fillers / sizeof *fillers; f++) {
      char *huge = calloc(1, 60001);
      assert_non_null(huge);
      for (size_t i = 0; i + strlen(fillers[f]) <= 60000; i += strlen(fillers[f]))
        memcpy(huge + i, fillers[f], strlen(fillers[f]));
      nx_log(NX_LOG_INFO, "m", "huge", huge, "after", "yes", NULL);
      const char *line = take_log();
      size_t n = strlen(line);
      assert_in_range(n, 1000, 4096);
      assert_int_equal(line[n - 1], '\n');
      assert_non_null(strstr(line, "\xe2\x80\xa6\""));
      assert_null(strstr(line, BAD)); /* cut between characters */
      assert_non_null(strstr(line, json ? "\"after\":\"yes\"}" : " after=yes"));
      nx_log(NX_LOG_INFO, huge, "k", "v", NULL); /* even a message */
      line = take_log();
      assert_in_range(strlen(line), 500, 4096);
      assert_non_null(strstr(line, json ? "\"k\":\"v\"}\n" : " k=v\n"));
      free(huge);
    }
  }
}

static void log_many_pairs_fill_the_line_and_no_more(void **state) {
  (void)state;
  char value[500];
  memset(value, 'v', sizeof value - 1);
  value[sizeof value - 1] = 0;
  nx_log_init(pipe_ends[1], NX_LOG_INFO, true);
  nx_log(NX_LOG_INFO, "m", "a", value, "b", value, "c", value, "d", value, "e", value, "f", value, "g", value, "h",
         value, "i", value, "j", value, NULL);
  const char *line = take_log();
  assert_in_range(strlen(line), 3000, 4096);
  assert_string_equal(line + strlen(line) - 2, "}\n");
}

static void log_drops_and_counts_when_nobody_reads(void **state) {
  (void)state;
  nx_log_init(pipe_ends[1], NX_LOG_INFO, false);
  char value[1000];
  memset(value, 'v', sizeof value - 1);
  value[sizeof value - 1] = 0;
  uint64_t before = nx_log_dropped(), start = nx_clock_ns();
  for (int i = 0; i < 500; i++) nx_log(NX_LOG_INFO, "flood", "value", value, NULL);
  assert_true(nx_clock_ns() - start < 5 * NX_NS_PER_S);
  uint64_t lost = nx_log_dropped() - before;
  assert_in_range(lost, 400, 499);
  while (*take_log()) continue;
  nx_log(NX_LOG_INFO, "again", NULL);
  char expected[64];
  snprintf(expected, sizeof expected, "info  again droppedLines=%llu\n", (unsigned long long)lost);
  assert_string_equal(after_time(take_log()), expected);
  nx_log(NX_LOG_INFO, "again", NULL);
  assert_string_equal(after_time(take_log()), "info  again\n");
}

static void *flood(void *arg) {
  (void)arg;
  for (int i = 0; i < 200; i++) nx_log(NX_LOG_INFO, "flood", "value", "0123456789abcdef", NULL);
  return NULL;
}

/* Every line that arrives is whole, and those that do not are counted: none waits for the reader. */
static void log_lines_of_many_threads_never_mix(void **state) {
  (void)state;
  nx_log_init(pipe_ends[1], NX_LOG_INFO, false);
  uint64_t before = nx_log_dropped();
  pthread_t threads[8];
  for (size_t i = 0; i < 8; i++) assert_int_equal(pthread_create(&threads[i], NULL, flood, NULL), 0);
  for (size_t i = 0; i < 8; i++) pthread_join(threads[i], NULL);
  uint64_t whole = 0;
  char *all = strdup(take_log());
  assert_non_null(all);
  char *rest = all;
  for (char *line; (line = strsep(&rest, "\n")) && *line; whole++)
    assert_string_equal(after_time(line), "info  flood value=0123456789abcdef");
  assert_int_equal(whole + nx_log_dropped() - before, 1600);
  free(all);
}

static void log_to_a_closed_reader_is_dropped(void **state) {
  (void)state;
  int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
  assert_true(fd >= 0);
  nx_log_init(fd, NX_LOG_INFO, false);
  uint64_t before = nx_log_dropped();
  errno = 7;
  nx_log(NX_LOG_INFO, "x", NULL);
  assert_int_equal(errno, 7);
  assert_int_equal(nx_log_dropped() - before, 1);
  close(fd);
}

/* the rest */

static void readings_are_three_answers(void **state) {
  (void)state;
  assert_int_equal((struct nx_reading){0}.kind, NX_READING_UNKNOWN);
  assert_true(nx_reading_is_value(nx_reading_of(0)));
  assert_false(nx_reading_is_value(nx_reading_unlimited()));
  assert_false(nx_reading_is_value(nx_reading_unknown()));
}

static void clocks_run_forward(void **state) {
  (void)state;
  uint64_t a = nx_clock_ns();
  assert_true(nx_clock_ns() >= a);
  assert_true(nx_clock_realtime_ns() > UINT64_C(1700000000) * NX_NS_PER_S);
}

/* struct sched_attr in words: size and policy, flags, nice and priority, runtime. */
static uint64_t own_slice_ns(void) {
  uint64_t words[6] = {0};
  assert_int_equal(syscall(SYS_sched_getattr, 0, words, sizeof words, 0), 0);
  return words[3];
}

static void *set_slices(void *unused) {
  int nice = getpriority(PRIO_PROCESS, 0);
  uint64_t normal_ns = own_slice_ns(); /* 0 before Linux 6.12 */
  nx_thread_set_slice(7 * NX_NS_PER_MS);
  if (normal_ns) assert_int_equal(own_slice_ns(), 7 * NX_NS_PER_MS);
  nx_thread_set_slice(NX_THREAD_SLICE_NORMAL);
  assert_int_equal(own_slice_ns(), normal_ns);
  assert_int_equal(getpriority(PRIO_PROCESS, 0), nice);
  assert_true(nx_thread_set_share(0, nice + 1, NX_THREAD_SLICE_NORMAL));
  assert_int_equal(getpriority(PRIO_PROCESS, 0), nice + 1);
  return unused;
}

static void threads_say_what_they_take_of_the_processor(void **state) {
  (void)state;
  pthread_t thread;
  if (getpriority(PRIO_PROCESS, 0) > 14) skip(); /* there is nothing below to go to */
  assert_int_equal(pthread_create(&thread, NULL, set_slices, NULL), 0);
  pthread_join(thread, NULL);
}

static void *give_slice(void *out) {
  *(uint64_t *)out = own_slice_ns();
  return NULL;
}

static void slices_are_not_inherited(void **state) {
  (void)state;
  pthread_t thread;
  struct nx_error err;
  uint64_t normal_ns = own_slice_ns(), slice_ns = 0;
  nx_thread_set_slice(7 * NX_NS_PER_MS);
  int status = nx_thread_start(&thread, "test", give_slice, &slice_ns, &err);
  nx_thread_set_slice(NX_THREAD_SLICE_NORMAL);
  assert_int_equal(status, 0);
  pthread_join(thread, NULL);
  assert_int_equal(slice_ns, normal_ns);
}

int main(void) {
#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, open_log, close_log)
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(error_set_fills_and_returns_the_negative_code),
    cmocka_unit_test(error_sys_keeps_errno_and_says_it),
    cmocka_unit_test(error_wrap_prefixes_and_keeps_the_code),
    cmocka_unit_test(error_texts_are_cut_and_terminated),
    cmocka_unit_test(every_error_has_a_name_and_a_status),
    cmocka_unit_test(buf_appends_of_every_kind),
    cmocka_unit_test(buf_grows_and_keeps_content),
    cmocka_unit_test(buf_limit_is_exact_and_sticky),
    cmocka_unit_test(buf_limit_holds_within_a_larger_capacity),
    cmocka_unit_test(buf_impossible_sizes_fail_cleanly),
    cmocka_unit_test(buf_reset_keeps_small_memory_only),
    cmocka_unit_test(buf_charges_its_capacity),
    cmocka_unit_test(buf_that_is_refused_fails_and_keeps_what_it_has),
    cmocka_unit_test(buf_past_its_limit_is_not_starved),
    cmocka_unit_test(buf_is_given_away_by_copy),
    cmocka_unit_test(json_strings),
    cmocka_unit_test(json_string_of_random_bytes_is_stable),
    LOG_TEST(log_text_lines),
    LOG_TEST(log_json_lines),
    LOG_TEST(log_values_cannot_forge_lines),
    LOG_TEST(log_huge_values_are_cut_and_do_not_push_others_out),
    LOG_TEST(log_many_pairs_fill_the_line_and_no_more),
    LOG_TEST(log_drops_and_counts_when_nobody_reads),
    LOG_TEST(log_lines_of_many_threads_never_mix),
    LOG_TEST(log_to_a_closed_reader_is_dropped),
    cmocka_unit_test(readings_are_three_answers),
    cmocka_unit_test(clocks_run_forward),
    cmocka_unit_test(threads_say_what_they_take_of_the_processor),
    cmocka_unit_test(slices_are_not_inherited),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
