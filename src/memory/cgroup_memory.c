/* SPDX-License-Identifier: Apache-2.0
 * Memory: the whole look, and the fast one. */
#include "memory/cgroup.h"

#include <errno.h>
#include <string.h>

#include "memory/cgroup_internal.h"

static const char *limit_file(const struct nx__hierarchy *h) {
  return h->version == NX__CGROUP_V2 ? "memory.max" : "memory.limit_in_bytes";
}

static const char *usage_file(const struct nx__hierarchy *h) {
  return h->version == NX__CGROUP_V2 ? "memory.current" : "memory.usage_in_bytes";
}

/* A file that holds one number. */
static struct nx_reading number_in(const struct nx__hierarchy *h, struct nx__cgroup_level level, const char *file) {
  char text[NX__KERNEL_TEXT_BYTES];
  return nx__cgroup_read_level(h, level, file, text) ? nx_reading_unknown() : nx__kernel_text_number(text);
}

/* Limits */

/* v1 says "no limit" with the largest number of pages it can count: 2^63 rounded down to pages. */
static struct nx_reading v1_limit(struct nx_reading r) {
  return nx_reading_is_value(r) && r.value >= UINT64_C(1) << 62 ? nx_reading_unlimited() : r;
}

static struct nx_reading limit_of_text(const struct nx__hierarchy *h, const char *text) {
  if (h->version == NX__CGROUP_V1) return v1_limit(nx__kernel_text_number(text));
  return !strcmp(text, "max\n") || !strcmp(text, "max") ? nx_reading_unlimited() : nx__kernel_text_number(text);
}

static struct nx_reading limit_by_path(const struct nx_cgroup *cgroup, struct nx__cgroup_level level) {
  const struct nx__hierarchy *h = &cgroup->memory;
  char text[NX__KERNEL_TEXT_BYTES];
  int error = nx__cgroup_read_level(h, level, limit_file(h), text);
  /* v2's root cgroup has no such file, nor has one whose parent did not switch the controller on: no limit there. */
  if (error == ENOENT && h->version == NX__CGROUP_V2) return nx_reading_unlimited();
  return error ? nx_reading_unknown() : limit_of_text(h, text);
}

/* The smallest limit, and the level it is at. */
static struct nx_reading find_limit(const struct nx_cgroup *cgroup,
                                    struct nx_reading (*limit)(const struct nx_cgroup *, struct nx__cgroup_level),
                                    struct nx__cgroup_level *found) {
  struct nx__cgroup_level level = nx__cgroup_own_level(&cgroup->memory);
  struct nx_reading least = nx_reading_unlimited();
  bool unknown = false;
  *found = level;
  do {
    struct nx_reading here = limit(cgroup, level);
    unknown |= here.kind == NX_READING_UNKNOWN;
    if (!nx_reading_is_value(here) || (nx_reading_is_value(least) && least.value <= here.value)) continue;
    least = here;
    *found = level;
  } while (nx__cgroup_up(&cgroup->memory, &level));
  return unknown && !nx_reading_is_value(least) ? nx_reading_unknown() : least;
}

/* A limit that is more than the machine has limits nothing. */
static struct nx_reading within_machine(struct nx_reading limit, struct nx_reading machine) {
  bool more = nx_reading_is_value(limit) && nx_reading_is_value(machine) && limit.value > machine.value;
  return more ? nx_reading_unlimited() : limit;
}

/* Use */

/* The kernel's own memory, without socket buffers. `kernel` is there since 5.18; before that it is what its parts sum
 * up to, as far as they were there. */
static struct nx_reading v2_kernel_bytes(const char *stat) {
  static const char *const parts[] = {"kernel_stack ", "pagetables ", "percpu ", "slab_reclaimable ",
                                      "slab_unreclaimable "};
  struct nx_reading sum = nx__kernel_text_number_of(stat, "kernel ");
  if (nx_reading_is_value(sum)) return sum;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    struct nx_reading part = nx__kernel_text_number_of(stat, parts[i]);
    if (!nx_reading_is_value(part)) continue;
    if (__builtin_add_overflow(sum.value, part.value, &sum.value)) return nx_reading_unknown();
    sum.kind = NX_READING_VALUE;
  }
  return sum;
}

static void read_use_v2(const struct nx__hierarchy *h, struct nx__cgroup_level level, struct nx_cgroup_memory *out) {
  char text[NX__KERNEL_TEXT_BYTES];
  if (!nx__cgroup_read_level(h, level, "memory.stat", text)) {
    out->inactive_file_bytes = nx__kernel_text_number_of(text, "inactive_file ");
    out->anon_bytes = nx__kernel_text_number_of(text, "anon ");
    out->shmem_bytes = nx__kernel_text_number_of(text, "shmem ");
    out->socket_bytes = nx__kernel_text_number_of(text, "sock ");
    out->kernel_bytes = v2_kernel_bytes(text);
  }
  if (!nx__cgroup_read_level(h, level, "memory.events", text)) {
    out->high_events = nx__kernel_text_number_of(text, "high ");
    out->max_events = nx__kernel_text_number_of(text, "max ");
    out->oom_events = nx__kernel_text_number_of(text, "oom ");
    out->oom_kills = nx__kernel_text_number_of(text, "oom_kill ");
  }
}

/* v1 counts a kill in the cgroup of the victim only, not in the one whose limit was hit (memcg_memory_event): those of
 * all levels from ours to that one are added. */
static struct nx_reading v1_oom_kills(const struct nx__hierarchy *h, struct nx__cgroup_level limited) {
  char text[NX__KERNEL_TEXT_BYTES];
  struct nx__cgroup_level level = nx__cgroup_own_level(h);
  uint64_t sum = 0;
  do {
    if (nx__cgroup_read_level(h, level, "memory.oom_control", text)) return nx_reading_unknown();
    struct nx_reading kills = nx__kernel_text_number_of(text, "oom_kill ");
    if (!nx_reading_is_value(kills) || __builtin_add_overflow(sum, kills.value, &sum)) return nx_reading_unknown();
  } while (level.above < limited.above && nx__cgroup_up(h, &level));
  return nx_reading_of(sum);
}

/* Memory and swap together may have a limit, which is tried first: when it is the same as memory's (Docker's
 * --memory-swap equal to --memory) only that one is ever hit. Linux 6.18 still has the file but counts nothing in it. */
static struct nx_reading v1_max_events(const struct nx__hierarchy *h, struct nx__cgroup_level level) {
  struct nx_reading memory = number_in(h, level, "memory.failcnt"), swap = number_in(h, level, "memory.memsw.failcnt");
  if (!nx_reading_is_value(memory) || !nx_reading_is_value(swap)) return memory;
  uint64_t sum;
  return __builtin_add_overflow(memory.value, swap.value, &sum) ? nx_reading_unknown() : nx_reading_of(sum);
}

/* total_: with the children, as the kubelet has it. */
static void read_use_v1(const struct nx__hierarchy *h, struct nx__cgroup_level level, struct nx_cgroup_memory *out) {
  char text[NX__KERNEL_TEXT_BYTES];
  if (!nx__cgroup_read_level(h, level, "memory.stat", text)) {
    out->inactive_file_bytes = nx__kernel_text_number_of(text, "total_inactive_file ");
    out->anon_bytes = nx__kernel_text_number_of(text, "total_rss ");
    out->shmem_bytes = nx__kernel_text_number_of(text, "total_shmem ");
    if (!nx_reading_is_value(out->shmem_bytes)) out->shmem_bytes = nx__kernel_text_number_of(text, "shmem ");
  }
  /* 0 where the kernel does not account for its memory (cgroup.memory=nokmem). */
  struct nx_reading kernel = number_in(h, level, "memory.kmem.usage_in_bytes");
  if (nx_reading_is_value(kernel) && kernel.value) out->kernel_bytes = kernel;
  out->max_events = v1_max_events(h, level);
  out->oom_kills = v1_oom_kills(h, level);
}

static void read_use(const struct nx__hierarchy *h, struct nx__cgroup_level level, struct nx_cgroup_memory *out) {
  out->usage_bytes = number_in(h, level, usage_file(h));
  if (h->version == NX__CGROUP_V2)
    read_use_v2(h, level, out);
  else
    read_use_v1(h, level, out);
  if (!nx_reading_is_value(out->usage_bytes) || !nx_reading_is_value(out->inactive_file_bytes)) return;
  uint64_t usage = out->usage_bytes.value, inactive = out->inactive_file_bytes.value;
  out->working_set_bytes = nx_reading_of(usage > inactive ? usage - inactive : 0);
}

/* Pressure */

/* Behind `key` two digits follow the point, always (Documentation/accounting/psi.rst). */
static struct nx_reading pressure_of(const char *text, const char *key) {
  char digits[24] = "";
  uint64_t whole, hundredths;
  const char *c = nx__kernel_text_find(text, key);
  if (!c || strcspn(c, " \n") >= sizeof digits) return nx_reading_unknown();
  memcpy(digits, c, strcspn(c, " \n"));
  char *point = strchr(digits, '.');
  if (!point || strlen(point) != 3) return nx_reading_unknown();
  *point = 0;
  if (!nx__kernel_text_u64(digits, &whole, NULL) || !nx__kernel_text_u64(point + 1, &hundredths, NULL) || whole > 100)
    return nx_reading_unknown();
  return nx_reading_of(whole * 100 + hundredths);
}

/* "some avg10=12.34 avg60=…", then "full avg10=…"; the machine's where the cgroup has none. */
static void read_pressure(const struct nx_cgroup *cgroup, struct nx__cgroup_level level, struct nx_cgroup_memory *out) {
  const struct nx__hierarchy *h = &cgroup->memory;
  char text[NX__KERNEL_TEXT_BYTES];
  if ((h->version != NX__CGROUP_V2 || nx__cgroup_read_level(h, level, "memory.pressure", text)) &&
      nx__kernel_text_read(cgroup->root_fd, "proc/pressure/memory", text))
    return;
  out->pressure_bp = pressure_of(text, "some avg10=");
  out->full_pressure_bp = pressure_of(text, "full avg10=");
}

void nx_cgroup_read_memory(const struct nx_cgroup *cgroup, struct nx_cgroup_memory *out) {
  const struct nx__hierarchy *h = &cgroup->memory;
  *out = (struct nx_cgroup_memory){0};
  struct nx__cgroup_level level = nx__cgroup_own_level(h);
  if (h->version != NX__CGROUP_NONE) {
    out->limit_bytes = find_limit(cgroup, limit_by_path, &level);
    read_use(h, level, out);
  }
  if (h->version == NX__CGROUP_V1) {
    /* v1 also tells of the ancestors that a namespace hides from us. */
    char text[NX__KERNEL_TEXT_BYTES];
    if (!nx__cgroup_read_level(h, nx__cgroup_own_level(h), "memory.stat", text)) {
      struct nx_reading hidden = v1_limit(nx__kernel_text_number_of(text, "hierarchical_memory_limit "));
      if (nx_reading_is_value(hidden) || out->limit_bytes.kind == NX_READING_UNKNOWN)
        out->limit_bytes = nx__cgroup_smaller(out->limit_bytes, hidden);
    }
  }
  out->limit_bytes = within_machine(out->limit_bytes, nx_cgroup_machine_memory_bytes(cgroup));
  read_pressure(cgroup, level, out);
}

struct nx_reading nx_cgroup_machine_memory_bytes(const struct nx_cgroup *cgroup) {
  char text[NX__KERNEL_TEXT_BYTES];
  if (nx__kernel_text_read(cgroup->root_fd, "proc/meminfo", text)) return nx_reading_unknown();
  return nx__kernel_text_kib_of(text, "MemTotal:");
}

/* The fast look */

enum { NUMBER_BYTES = 64 };

void nx__cgroup_keep_files(struct nx_cgroup *cgroup) {
  const struct nx__hierarchy *h = &cgroup->memory;
  cgroup->machine_bytes = nx_cgroup_machine_memory_bytes(cgroup);
  if (h->version == NX__CGROUP_NONE) return;
  struct nx__cgroup_level level = nx__cgroup_own_level(h);
  do {
    if (level.above == NX__CGROUP_LEVELS_KEPT) break;
    cgroup->kept[level.above].limit_fd = nx__cgroup_open_level(h, level, limit_file(h));
    cgroup->kept[level.above].usage_fd = nx__cgroup_open_level(h, level, usage_file(h));
  } while (nx__cgroup_up(h, &level));
}

/* What was not there at open is looked for again: v2 makes memory.max when the parent switches the controller on. A
 * descriptor that went stale is not replaced: behind it was a cgroup that is gone, and we are somewhere else. */
static struct nx_reading limit_kept(const struct nx_cgroup *cgroup, struct nx__cgroup_level level) {
  char text[NUMBER_BYTES];
  int fd = level.above < NX__CGROUP_LEVELS_KEPT ? cgroup->kept[level.above].limit_fd : -1;
  if (fd < 0) return limit_by_path(cgroup, level);
  return nx__kernel_text_reread(fd, text, sizeof text) ? nx_reading_unknown() : limit_of_text(&cgroup->memory, text);
}

static struct nx_reading usage_kept(const struct nx_cgroup *cgroup, struct nx__cgroup_level level) {
  char text[NUMBER_BYTES];
  int fd = level.above < NX__CGROUP_LEVELS_KEPT ? cgroup->kept[level.above].usage_fd : -1;
  if (fd < 0) return number_in(&cgroup->memory, level, usage_file(&cgroup->memory));
  return nx__kernel_text_reread(fd, text, sizeof text) ? nx_reading_unknown() : nx__kernel_text_number(text);
}

void nx_cgroup_read_fast(const struct nx_cgroup *cgroup, struct nx_cgroup_fast *out) {
  *out = (struct nx_cgroup_fast){0};
  if (cgroup->memory.version == NX__CGROUP_NONE) return;
  struct nx__cgroup_level level;
  out->limit_bytes = within_machine(find_limit(cgroup, limit_kept, &level), cgroup->machine_bytes);
  out->usage_bytes = usage_kept(cgroup, level);
}
