/* SPDX-License-Identifier: Apache-2.0
 * CPU quota. */
#include "memory/cgroup.h"

#include <errno.h>
#include <string.h>

#include <sched.h>

#include "memory/cgroup_internal.h"

static struct nx_reading millicores(uint64_t quota, uint64_t period) {
  if (!period || quota > UINT64_MAX / 1000) return nx_reading_unknown();
  return nx_reading_of(quota * 1000 / period);
}

/* v2: cpu.max holds "max 100000" or "50000 100000". v1: two files, and -1 for no quota. */
static struct nx_reading quota_at(const struct nx__hierarchy *h, struct nx__cgroup_level level) {
  char text[NX__KERNEL_TEXT_BYTES], period_text[NX__KERNEL_TEXT_BYTES];
  uint64_t quota, period;
  const char *rest;
  int error = nx__cgroup_read_level(h, level, h->version == NX__CGROUP_V2 ? "cpu.max" : "cpu.cfs_quota_us", text);
  if (error) return error == ENOENT ? nx_reading_unlimited() : nx_reading_unknown(); /* a root cgroup has no quota */
  const char *none = h->version == NX__CGROUP_V2 ? "max" : "-1";
  if (strcspn(text, " \n") == strlen(none) && !strncmp(text, none, strlen(none))) return nx_reading_unlimited();
  if (!nx__kernel_text_u64(text, &quota, &rest)) return nx_reading_unknown();
  if (h->version == NX__CGROUP_V1) {
    if (nx__cgroup_read_level(h, level, "cpu.cfs_period_us", period_text)) return nx_reading_unknown();
    rest = period_text;
  }
  return nx__kernel_text_u64(rest, &period, NULL) ? millicores(quota, period) : nx_reading_unknown();
}

struct nx_reading nx_cgroup_cpu_millicores(const struct nx_cgroup *cgroup) {
  const struct nx__hierarchy *h = &cgroup->cpu;
  if (h->version == NX__CGROUP_NONE) return nx_reading_unknown();
  struct nx__cgroup_level level = nx__cgroup_own_level(h);
  struct nx_reading least = nx_reading_unlimited();
  bool unknown = false;
  do {
    struct nx_reading here = quota_at(h, level);
    unknown |= here.kind == NX_READING_UNKNOWN;
    if (nx_reading_is_value(here)) least = nx__cgroup_smaller(least, here);
  } while (nx__cgroup_up(h, &level));
  return unknown && !nx_reading_is_value(least) ? nx_reading_unknown() : least;
}

unsigned nx_cgroup_cores(const struct nx_cgroup *cgroup, unsigned allowed_cpus) {
  struct nx_reading quota = nx_cgroup_cpu_millicores(cgroup);
  uint64_t cores = allowed_cpus;
  if (nx_reading_is_value(quota) && (quota.value + 999) / 1000 < cores) cores = (quota.value + 999) / 1000;
  return cores ? (unsigned)cores : 1;
}

unsigned nx_cpu_allowed(void) {
  /* The kernel wants a set as large as its own (EINVAL until then), which may be larger than cpu_set_t. */
  for (size_t cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set) return 1;
    size_t bytes = CPU_ALLOC_SIZE(cpus);
    int failed = sched_getaffinity(0, bytes, set);
    int count = failed ? 0 : CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (count > 0) return (unsigned)count;
    if (errno != EINVAL) break;
  }
  return 1;
}
