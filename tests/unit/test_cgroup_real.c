/* SPDX-License-Identifier: Apache-2.0
 * Cgroup readings of this machine, and of groups made on it where that is permitted. */
#include "cgroup_support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void cpus_allowed(void **state) {
  (void)state;
  long online = sysconf(_SC_NPROCESSORS_CONF);
  assert_in_range(nx_cpu_allowed(), 1, online);
}

static int put_real(const char *group, const char *file, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", group, file);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = write(fd, text, strlen(text));
  close(fd);
  return n == (ssize_t)strlen(text) ? 0 : -1;
}

#define STEP(n, condition) do { if (!(condition)) return (n); } while (0)

static bool is_value(struct nx_reading r, uint64_t least, uint64_t most) {
  return r.kind == NX_READING_VALUE && r.value >= least && r.value <= most;
}

struct real_groups {
  char base[512], outer[600], inner[640]; /* each in the one before */
  const char *limit_file;
  bool v1;
};

/* The limit moves between two reads of the same descriptors: the kernel must make their text anew. */
static int watch_limits(const struct real_groups *g, const struct nx_cgroup *cgroup) {
  STEP(10, is_value(read_fast(cgroup).limit_bytes, 64 * MIB, 64 * MIB));
  uint64_t before = read_fast(cgroup).usage_bytes.value;
  char *touched = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  STEP(11, touched != MAP_FAILED);
  for (size_t i = 0; i < 8 * MIB; i += 4096) ((volatile char *)touched)[i] = 1;
  STEP(12, is_value(read_fast(cgroup).usage_bytes, before + 7 * MIB, 64 * MIB));
  struct nx_cgroup_memory m = read_slow(cgroup);
  STEP(13, is_value(m.usage_bytes, 8 * MIB, 64 * MIB));
  STEP(14, is_value(m.working_set_bytes, 8 * MIB, 64 * MIB));
  STEP(15, is_value(m.anon_bytes, 7 * MIB, 64 * MIB));
  STEP(16, is_value(m.shmem_bytes, 0, 64 * MIB));
  STEP(17, is_value(m.oom_kills, 0, 0) && is_value(m.max_events, 0, 0));
  STEP(18, munmap(touched, 8 * MIB) == 0);
  /* A smaller limit further up wins, while running. */
  STEP(19, !put_real(g->outer, g->limit_file, "50331648"));
  STEP(20, is_value(read_fast(cgroup).limit_bytes, 48 * MIB, 48 * MIB));
  STEP(21, is_value(read_slow(cgroup).limit_bytes, 48 * MIB, 48 * MIB));
  STEP(22, !put_real(g->inner, g->limit_file, "33554432"));
  STEP(23, is_value(read_fast(cgroup).limit_bytes, 32 * MIB, 32 * MIB));
  STEP(24, !put_real(g->inner, g->limit_file, "67108864"));
  STEP(25, is_value(read_fast(cgroup).limit_bytes, 48 * MIB, 48 * MIB));
  return 0;
}

/* A child of ours passes the limit of the outer group, in the inner one. */
static int be_killed(const struct real_groups *g, const struct nx_cgroup *cgroup) {
  if (!g->v1) put_real(g->outer, "memory.swap.max", "0");
  pid_t child = fork();
  STEP(30, child >= 0);
  if (!child) {
    put_real("/proc/self", "oom_score_adj", "1000"); /* the first to go */
    char *touched = mmap(NULL, 80 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (touched == MAP_FAILED) _exit(1);
    for (size_t i = 0; i < 80 * MIB; i += 4096) ((volatile char *)touched)[i] = 1;
    _exit(0);
  }
  int status;
  STEP(31, waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && !WEXITSTATUS(status)) return 0; /* swapped out instead */
  STEP(32, WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  struct nx_cgroup_memory m = read_slow(cgroup);
  STEP(33, is_value(m.limit_bytes, 48 * MIB, 48 * MIB));
  STEP(34, is_value(m.oom_kills, 1, 1));
  STEP(35, is_value(m.max_events, 1, UINT64_MAX));
  STEP(36, g->v1 || is_value(m.oom_events, 1, UINT64_MAX));
  return 0;
}

/* We are moved away, and the groups go: their descriptors are stale (ENODEV). */
static int be_moved(const struct real_groups *g, const struct nx_cgroup *cgroup) {
  STEP(40, !put_real(g->base, "cgroup.procs", "0"));
  STEP(41, rmdir(g->inner) == 0);
  STEP(42, is_value(read_fast(cgroup).limit_bytes, 48 * MIB, 48 * MIB)); /* the outer one's */
  STEP(43, is_value(read_fast(cgroup).usage_bytes, 0, 48 * MIB));
  STEP(44, rmdir(g->outer) == 0);
  struct nx_cgroup_fast fast = read_fast(cgroup);
  /* Unknown, unless what is above of them has a limit. */
  STEP(45, fast.limit_bytes.kind != NX_READING_VALUE || fast.limit_bytes.value != 48 * MIB);
  STEP(46, fast.limit_bytes.kind != NX_READING_UNKNOWN || fast.usage_bytes.kind == NX_READING_UNKNOWN);
  return 0;
}

/* In a child: 0, or the number of the step that failed. */
static int look_around(const struct real_groups *g) {
  STEP(77, !put_real(g->inner, "cgroup.procs", "0"));
  struct nx_cgroup *cgroup;
  STEP(1, !nx_cgroup_open(&cgroup, "/", NULL));
  STEP(2, !strcmp(nx_cgroup_version(cgroup), g->v1 ? "v1" : "v2"));
  STEP(3, is_value(read_slow(cgroup).limit_bytes, 64 * MIB, 64 * MIB));
  int step = watch_limits(g, cgroup);
  if (!step) step = be_killed(g, cgroup);
  if (!step) step = be_moved(g, cgroup);
  nx_cgroup_close(cgroup);
  return step;
}

/* Below our own group; v2 does not give controllers to groups beside processes, so there below the root. */
static void name_real_groups(struct real_groups *g) {
  g->v1 = !access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK);
  g->limit_file = g->v1 ? "memory.limit_in_bytes" : "memory.max";
  const char *path = "";
  struct nx_cgroup *cgroup = NULL;
  if (g->v1 && !nx_cgroup_open(&cgroup, "/", NULL)) path = nx_cgroup_path(cgroup);
  snprintf(g->base, sizeof g->base, "/sys/fs/cgroup%s%s%.400s", g->v1 ? "/memory" : "", *path ? "/" : "", path);
  nx_cgroup_close(cgroup);
  snprintf(g->outer, sizeof g->outer, "%s/nexus-test-%d", g->base, (int)getpid());
  snprintf(g->inner, sizeof g->inner, "%s/inner", g->outer);
}

static void real_groups(void **state) {
  (void)state;
  struct real_groups g;
  name_real_groups(&g);
  int status = 77;
  bool made = !mkdir(g.outer, 0755);
  if (made && !g.v1) put_real(g.outer, "cgroup.subtree_control", "+memory");
  if (made && !mkdir(g.inner, 0755) && !put_real(g.inner, g.limit_file, "67108864")) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) _exit(look_around(&g));
    status = wait_for(child);
  }
  if (made) {
    rmdir(g.inner);
    assert_true(!rmdir(g.outer) || errno == ENOENT);
  }
  if (status == 77) {
    print_message("[  NOTE    ] not permitted to make and join a memory cgroup: real test skipped\n");
    skip();
  }
  assert_int_equal(status, 0);
}

/* Whatever this machine is: reading it works and the figures are sane. */
static void this_machine(void **state) {
  (void)state;
  struct nx_cgroup *cgroup;
  struct nx_cgroup_memory m;
  assert_int_equal(nx_cgroup_open(&cgroup, "/", NULL), 0);
  nx_cgroup_read_memory(cgroup, &m);
  struct nx_reading total = nx_cgroup_machine_memory_bytes(cgroup);
  assert_int_equal(total.kind, NX_READING_VALUE);
  if (nx_reading_is_value(m.limit_bytes)) assert_true(m.limit_bytes.value <= total.value);
  struct nx_cgroup_fast fast = read_fast(cgroup);
  assert_int_equal(fast.usage_bytes.kind, m.usage_bytes.kind);
  if (nx_reading_is_value(fast.usage_bytes)) assert_true(fast.usage_bytes.value <= total.value);
  assert_in_range(nx_cgroup_cores(cgroup, nx_cpu_allowed()), 1, nx_cpu_allowed());
  nx_cgroup_close(cgroup);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(cpus_allowed),
    cmocka_unit_test(real_groups),
    cmocka_unit_test(this_machine),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
