/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

enum {
  LINE_BYTES = 4096,   /* at most PIPE_BUF: a longer write to a pipe may be split */
  TAIL_BYTES = 64,     /* kept for droppedLines and the end of the line */
  MESSAGE_BYTES = 512, /* six times that, were every byte escaped, still fits */
};

/* Synchronization: written by nx_log_init before threads start; `dropped` is atomic, `dropped_reported` is guarded
 * by `write_lock`, a leaf lock that is never held across anything that waits. */
static int log_fd = STDOUT_FILENO;
static enum nx_log_level log_level = NX_LOG_INFO;
static bool log_json;
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t dropped;
static uint64_t dropped_reported;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void nx_log_init(int fd, enum nx_log_level level, bool json) {
  log_fd = fd;
  log_level = level;
  log_json = json;
}

bool nx_log_enabled(enum nx_log_level level) { return level <= log_level; }
uint64_t nx_log_dropped(void) { return atomic_load_explicit(&dropped, memory_order_relaxed); }

/* The second that is being counted and the events in it, in one word: 32 bits each. */
static _Atomic uint64_t event_window;

bool nx_log_take(void) {
  uint64_t second = nx_clock_ns() / NX_NS_PER_S;
  uint64_t window = atomic_load_explicit(&event_window, memory_order_relaxed);
  uint64_t next;
  do {
    next = window >> 32 == second ? window + 1 : second << 32 | 1;
    if ((uint32_t)next > NX_LOG_EVENTS_PER_SECOND) {
      atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
      return false;
    }
  } while (!atomic_compare_exchange_weak_explicit(&event_window, &window, next, memory_order_relaxed,
                                                  memory_order_relaxed));
  return true;
}

/* In text form a value that is a plain word stands bare; everything else is quoted like JSON. */
static bool is_word(const char *text) {
  if (!*text) return false;
  for (; *text; text++)
    if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f || strchr("\"\\=", *text)) return false;
  return true;
}

/* A value that had to be cut to `bytes` ends in an ellipsis. */
static void add_value(struct nx_buf *line, const char *value, size_t bytes, bool cut) {
  nx_buf_json_string(line, value, bytes);
  if (!cut || line->failed) return;
  line->len--;
  nx_buf_lit(line, "\xe2\x80\xa6\"");
}

static void add_pair(struct nx_buf *line, const char *key, const char *value, size_t bytes, bool cut) {
  if (log_json) {
    nx_buf_char(line, ',');
    nx_buf_json_string(line, key, strlen(key));
    nx_buf_char(line, ':');
    add_value(line, value, bytes, cut);
    return;
  }
  nx_buf_printf(line, " %s=", key);
  if (!cut && is_word(value))
    nx_buf_str(line, value);
  else
    add_value(line, value, bytes, cut);
}

/* A pair that does not fit is tried again with half of its value, so that a huge one cannot push out the others. */
static void add_pair_that_fits(struct nx_buf *line, const char *key, const char *value) {
  const struct nx_buf before = *line;
  size_t bytes = strnlen(value, LINE_BYTES);
  for (bool cut = false;; cut = true) {
    add_pair(line, key, value, bytes, cut);
    if (!line->failed) return;
    *line = before;
    if (!bytes) return;
    bytes /= 2;
    while (bytes && ((unsigned char)value[bytes] & 0xc0) == 0x80) bytes--;
  }
}

static void begin_line(struct nx_buf *line, enum nx_log_level level, const char *message) {
  struct timespec now;
  struct tm utc;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  char when[40];
  size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(when + n, sizeof when - n, ".%03ldZ", now.tv_nsec / 1000000);
  nx_buf_printf(line, log_json ? "{\"time\":\"%s\",\"level\":\"%s\",\"message\":" : "%s %-5s ", when,
                level_names[level]);
  size_t bytes = strnlen(message, MESSAGE_BYTES);
  if (log_json)
    nx_buf_json_string(line, message, bytes);
  else
    nx_buf_add(line, message, bytes);
}

/* Never waits: a reader that does not keep up loses lines, not requests. A pipe that polls writable has room for
 * PIPE_BUF bytes (pipe(7)); `write_lock` keeps another thread from taking them in between. */
static bool write_line(const char *line, size_t bytes) {
  struct pollfd writable = {.fd = log_fd, .events = POLLOUT};
  if (poll(&writable, 1, 0) != 1 || !(writable.revents & POLLOUT)) return false;
  ssize_t n;
  do n = write(log_fd, line, bytes);
  while (n < 0 && errno == EINTR);
  return n == (ssize_t)bytes;
}

/* Adds what every line ends with and writes it; `line` has TAIL_BYTES of room left. */
static void end_line(struct nx_buf *line) {
  pthread_mutex_lock(&write_lock);
  uint64_t lost = atomic_load_explicit(&dropped, memory_order_relaxed);
  if (lost > dropped_reported) {
    char count[24];
    snprintf(count, sizeof count, "%llu", (unsigned long long)(lost - dropped_reported));
    add_pair(line, "droppedLines", count, strlen(count), false);
  }
  if (log_json) nx_buf_char(line, '}');
  nx_buf_char(line, '\n');
  if (write_line(line->data, line->len))
    dropped_reported = lost;
  else
    atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
  pthread_mutex_unlock(&write_lock);
}

void nx_log(enum nx_log_level level, const char *message, ...) {
  if (!nx_log_enabled(level)) return;
  int saved_errno = errno;
  char bytes[LINE_BYTES];
  /* `limit` stays below the capacity, so the buffer never reallocates this array. */
  struct nx_buf line = {.data = bytes, .capacity = sizeof bytes, .limit = sizeof bytes - TAIL_BYTES};
  begin_line(&line, level, message);
  va_list args;
  va_start(args, message);
  for (const char *key; (key = va_arg(args, const char *));) {
    const char *value = va_arg(args, const char *);
    add_pair_that_fits(&line, key, value ? value : "");
  }
  va_end(args);
  line.limit = sizeof bytes - 1;
  end_line(&line);
  errno = saved_errno;
}
