/* SPDX-License-Identifier: Apache-2.0
 * The standard process_* metrics, from /proc (proc(5)). */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "metrics/metrics_internal.h"

/* A file of /proc as a string; false when it cannot be read or does not fit. */
static bool read_text(const char *path, char *text, size_t size) {
  NX_BUF_AUTO buf = {0};
  if (nx_fs_read_file(path, size - 1, &buf, NULL)) return false;
  if (buf.len) memcpy(text, buf.data, buf.len);
  text[buf.len] = 0;
  return true;
}

static void add_u64(struct nx_buf *out, enum nx__family family, uint64_t value) {
  nx__metrics_add_family(out, family);
  nx_buf_printf(out, "%s %" PRIu64 "\n", nx__metrics_family_name(family), value);
}

/* Hundredths of a second and microseconds alike: `value` / `unit` seconds with `digits` behind the point. */
static void add_seconds(struct nx_buf *out, enum nx__family family, uint64_t value, uint64_t unit, int digits) {
  nx__metrics_add_family(out, family);
  nx_buf_printf(out, "%s %" PRIu64 ".%0*" PRIu64 "\n", nx__metrics_family_name(family), value / unit, digits,
                value % unit);
}

static void add_memory(struct nx_buf *out) {
  char text[256];
  uint64_t virtual_pages, resident_pages, page = (uint64_t)sysconf(_SC_PAGESIZE);
  if (!read_text("/proc/self/statm", text, sizeof text)) return;
  if (sscanf(text, "%" SCNu64 " %" SCNu64, &virtual_pages, &resident_pages) != 2) return;
  add_u64(out, NX__FAMILY_PROCESS_RESIDENT, resident_pages * page);
  add_u64(out, NX__FAMILY_PROCESS_VIRTUAL, virtual_pages * page);
}

/* Since 6.2 the size of the directory is the count (fs/proc/fd.c, proc_fd_getattr); before that it is 0. */
static uint64_t count_fds(void) {
  struct stat st;
  if (!stat("/proc/self/fd", &st) && st.st_size > 0) return (uint64_t)st.st_size;
  DIR *dir = opendir("/proc/self/fd");
  if (!dir) return 0;
  uint64_t n = 0;
  for (const struct dirent *entry; (entry = readdir(dir));) n += entry->d_name[0] != '.';
  closedir(dir);
  return n ? n - 1 : 0; /* less the one that looked */
}

static void add_files(struct nx_buf *out) {
  uint64_t open_fds = count_fds();
  struct rlimit limit;
  if (open_fds) add_u64(out, NX__FAMILY_PROCESS_OPEN_FDS, open_fds);
  if (getrlimit(RLIMIT_NOFILE, &limit)) return;
  if (limit.rlim_cur != RLIM_INFINITY) {
    add_u64(out, NX__FAMILY_PROCESS_MAX_FDS, limit.rlim_cur);
    return;
  }
  nx__metrics_add_family(out, NX__FAMILY_PROCESS_MAX_FDS);
  nx_buf_printf(out, "%s +Inf\n", nx__metrics_family_name(NX__FAMILY_PROCESS_MAX_FDS));
}

bool nx__metrics_parse_start_ticks(const char *stat, uint64_t *ticks) {
  /* The name, field 2, may hold anything, blanks and parentheses too: fields count from the last one. */
  const char *c = strrchr(stat, ')');
  for (int field = 2; c && field < 22; field++)
    if ((c = strchr(c, ' '))) c++;
  return c && sscanf(c, "%" SCNu64, ticks) == 1;
}

/* In nanoseconds since 1970, 0 when unknown. The kernel counts ticks since boot, so it is boot that is looked up. */
static uint64_t read_start_time(void) {
  char text[1024];
  uint64_t ticks, per_second = (uint64_t)sysconf(_SC_CLK_TCK);
  if (!read_text("/proc/self/stat", text, sizeof text) || !nx__metrics_parse_start_ticks(text, &ticks)) return 0;
  return nx_clock_realtime_ns() - nx_clock_read_ns(CLOCK_BOOTTIME) + ticks * (NX_NS_PER_S / per_second);
}

/* Looked up once: a clock that is adjusted would make it wander, which Prometheus takes for a restart. */
static void add_start_time(struct nx_buf *out) {
  static _Atomic uint64_t known_ns;
  uint64_t start_ns = atomic_load_explicit(&known_ns, memory_order_relaxed);
  if (!start_ns) {
    uint64_t found_ns = read_start_time();
    if (!found_ns) return;
    if (atomic_compare_exchange_strong_explicit(&known_ns, &start_ns, found_ns, memory_order_relaxed,
                                                memory_order_relaxed))
      start_ns = found_ns;
  }
  add_seconds(out, NX__FAMILY_PROCESS_START_TIME, start_ns / (NX_NS_PER_S / 100), 100, 2);
}

void nx__metrics_add_process(struct nx_buf *out) {
  add_seconds(out, NX__FAMILY_PROCESS_CPU, nx_clock_read_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000, 1000000, 6);
  add_memory(out);
  add_files(out);
  add_start_time(out);
}
