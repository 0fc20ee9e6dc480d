/* SPDX-License-Identifier: Apache-2.0
 * Cgroup readings: literal kernel text in fake trees, and real groups of this machine where that is permitted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/cgroup.h"

#define MIB (UINT64_C(1) << 20)
#define V1_NONE "9223372036854771712\n"

struct file {
  const char *path, *text; /* text NULL: a directory in the file's place, whose reading fails (EISDIR) */
};

static char root[64];

static int make_root(void **state) {
  (void)state;
  strcpy(root, "/tmp/nexus-cgroup-XXXXXX");
  return mkdtemp(root) ? chmod(root, 0755) : -1;
}

static int drop_root(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return system(command);
}

static void put(const char *path, const char *text) {
  char full[512];
  snprintf(full, sizeof full, "%s/%s", root, path);
  for (char *c = full + strlen(root) + 1; *c; c++) {
    if (*c != '/') continue;
    *c = 0;
    assert_true(!mkdir(full, 0755) || errno == EEXIST);
    *c = '/';
  }
  if (!text) {
    assert_int_equal(mkdir(full, 0755), 0);
    return;
  }
  FILE *f = fopen(full, "we");
  assert_non_null(f);
  fputs(text, f);
  assert_int_equal(fclose(f), 0);
}

/* Replaces the tree by these files. */
static void tree(const struct file *files, size_t count) {
  drop_root(NULL);
  assert_int_equal(mkdir(root, 0755), 0);
  for (size_t i = 0; i < count; i++) put(files[i].path, files[i].text);
}
#define TREE(...) tree((const struct file[]){__VA_ARGS__}, sizeof((const struct file[]){__VA_ARGS__}) / sizeof(struct file))

static struct nx_cgroup *open_tree(void) {
  struct nx_cgroup *cgroup = NULL;
  assert_int_equal(nx_cgroup_open(&cgroup, root, NULL), 0);
  return cgroup;
}

static struct nx_cgroup_memory read_tree(void) {
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory memory;
  nx_cgroup_read_memory(cgroup, &memory);
  nx_cgroup_close(cgroup);
  return memory;
}

static struct nx_reading millicores_of_tree(void) {
  struct nx_cgroup *cgroup = open_tree();
  struct nx_reading millicores = nx_cgroup_cpu_millicores(cgroup);
  nx_cgroup_close(cgroup);
  return millicores;
}

static void assert_reading(struct nx_reading r, enum nx_reading_kind kind, uint64_t value) {
  if (r.kind != kind || (kind == NX_READING_VALUE && r.value != value))
    fail_msg("got %d %llu, expected %d %llu", r.kind, (unsigned long long)r.value, kind, (unsigned long long)value);
}
#define assert_value(r, v) assert_reading((r), NX_READING_VALUE, (v))
#define assert_unlimited(r) assert_reading((r), NX_READING_UNLIMITED, 0)
#define assert_unknown(r) assert_reading((r), NX_READING_UNKNOWN, 0)

#define MEMINFO {"proc/meminfo", "MemTotal:       16384000 kB\nMemFree:        23811848 kB\nMemAvailable:   23772508 kB\n"}
#define V2_MOUNT                                                                                              \
  "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"                                                   \
  "31 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
#define V2_CONTROLLERS {"sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma\n"}
#define V2_STAT "anon 4096000\nfile 10485760\nkernel 1000\ninactive_anon 7\nactive_anon 8\ninactive_file 6291456\nactive_file 4194304\n"
#define V2_PRESSURE                                                 \
  "some avg10=12.34 avg60=1.00 avg300=0.10 total=123456\n"          \
  "full avg10=99.99 avg60=0.00 avg300=0.00 total=100\n"
#define PROC_PRESSURE                                               \
  {"proc/pressure/memory", "some avg10=0.07 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"}

/* A container of cgroup v2 with its own namespace: the mount's root is the container. */
static void v2_container(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/memory.max", "1073741824\n"}, {"sys/fs/cgroup/memory.current", "20971520\n"},
       {"sys/fs/cgroup/memory.stat", V2_STAT}, {"sys/fs/cgroup/memory.pressure", V2_PRESSURE},
       {"sys/fs/cgroup/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"},
       {"sys/fs/cgroup/cpu.max", "150000 100000\n"}, PROC_PRESSURE);
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory m;
  nx_cgroup_read_memory(cgroup, &m);
  assert_value(m.limit_bytes, 1024 * MIB);
  assert_value(m.usage_bytes, 20 * MIB);
  assert_value(m.inactive_file_bytes, 6 * MIB);
  assert_value(m.working_set_bytes, 14 * MIB);
  assert_value(m.oom_kills, 2);
  assert_value(m.pressure_bp, 1234);
  assert_value(nx_cgroup_machine_memory_bytes(cgroup), UINT64_C(16384000) * 1024);
  assert_value(nx_cgroup_cpu_millicores(cgroup), 1500);
  assert_int_equal(nx_cgroup_cores(cgroup, 8), 2);
  assert_int_equal(nx_cgroup_cores(cgroup, 1), 1);
  assert_int_equal(nx_cgroup_cores(cgroup, 0), 1);
  assert_string_equal(nx_cgroup_version(cgroup), "v2");
  assert_string_equal(nx_cgroup_path(cgroup), "");
  nx_cgroup_close(cgroup);
  /* Read while running: an in-place resize shows. */
  put("sys/fs/cgroup/memory.max", "max\n");
  assert_unlimited(read_tree().limit_bytes);
  put("sys/fs/cgroup/memory.current", "1000\n"); /* less than its inactive files: the two are not read together */
  assert_value(read_tree().working_set_bytes, 0);
}

#define POD "kubepods.slice/kubepods-burstable.slice/pod1.slice"
static void v2_nested(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/" POD "/cri-abc.scope\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/kubepods.slice/memory.max", "15000000000\n"},
       {"sys/fs/cgroup/kubepods.slice/cpu.max", "max 100000\n"},
       {"sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/memory.max", "max\n"},
       {"sys/fs/cgroup/" POD "/memory.max", "536870912\n"}, {"sys/fs/cgroup/" POD "/memory.current", "400000000\n"},
       {"sys/fs/cgroup/" POD "/memory.stat", "inactive_file 1000\n"},
       {"sys/fs/cgroup/" POD "/memory.events", "oom_kill 9\n"},
       {"sys/fs/cgroup/" POD "/memory.pressure", V2_PRESSURE},
       {"sys/fs/cgroup/" POD "/cpu.max", "250000 100000\n"},
       {"sys/fs/cgroup/" POD "/cri-abc.scope/memory.max", "1073741824\n"},
       {"sys/fs/cgroup/" POD "/cri-abc.scope/memory.current", "20971520\n"},
       {"sys/fs/cgroup/" POD "/cri-abc.scope/memory.stat", V2_STAT},
       {"sys/fs/cgroup/" POD "/cri-abc.scope/memory.events", "oom_kill 1\n"},
       {"sys/fs/cgroup/" POD "/cri-abc.scope/cpu.max", "max 100000\n"});
  struct nx_cgroup_memory m = read_tree();
  assert_value(m.limit_bytes, 512 * MIB); /* the pod's, and so are the other figures */
  assert_value(m.usage_bytes, 400000000);
  assert_value(m.oom_kills, 9);
  assert_value(m.pressure_bp, 1234);
  assert_value(millicores_of_tree(), 2500);
  /* The same limit on two levels: ours counts. */
  put("sys/fs/cgroup/" POD "/cri-abc.scope/memory.max", "536870912\n");
  m = read_tree();
  assert_value(m.limit_bytes, 512 * MIB);
  assert_value(m.usage_bytes, 20 * MIB);
  assert_value(m.oom_kills, 1);
  /* An unreadable level does not hide the others; alone it means unknown. */
  TREE({"proc/self/cgroup", "0::/a/b\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/a/memory.max", "104857600\n"}, {"sys/fs/cgroup/a/b/memory.max", NULL});
  assert_value(read_tree().limit_bytes, 100 * MIB);
  put("sys/fs/cgroup/a/memory.max", "max\n");
  assert_unknown(read_tree().limit_bytes);
}

/* The root cgroup of a machine has no memory.max; services have it where the controller is on. */
static void v2_without_limits(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/memory.stat", V2_STAT}, PROC_PRESSURE);
  struct nx_cgroup_memory m = read_tree();
  assert_unlimited(m.limit_bytes);
  assert_unknown(m.usage_bytes);
  assert_unknown(m.working_set_bytes);
  assert_unknown(m.oom_kills);
  assert_value(m.pressure_bp, 7);
  assert_unlimited(millicores_of_tree());
}

static void v2_path_outside_of_the_namespace(void **state) {
  (void)state;
  static const char *const paths[] = {"0::/not/visible/here\n", "0::/../sibling\n", "0::/..\n", "0::/a/../b\n", "0::\n",
                                      "0::/ (deleted)\n"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    TREE({"proc/self/cgroup", paths[i]}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
         {"sys/fs/cgroup/memory.max", "104857600\n"}, {"sys/fs/cgroup/b/memory.max", "1\n"},
         {"sys/fs/cgroup/a/x", ""}, {"sys/fs/sibling/memory.max", "2\n"});
    assert_value(read_tree().limit_bytes, 100 * MIB);
  }
  TREE({"proc/self/cgroup", "0::/my..name\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/my..name/memory.max", "104857600\n"});
  assert_value(read_tree().limit_bytes, 100 * MIB);
}

static void v2_found_without_mountinfo(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/x\n"}, V2_CONTROLLERS, {"sys/fs/cgroup/x/memory.max", "104857600\n"});
  struct nx_cgroup_memory m = read_tree();
  assert_value(m.limit_bytes, 100 * MIB);
  assert_unknown(m.pressure_bp);
}

static void v2_mounted_elsewhere_with_a_blank(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/x\n"},
       {"proc/self/mountinfo", "31 24 0:27 / /my\\040cg\\134 rw - cgroup2 none rw\n"},
       {"my cg\\/cgroup.controllers", "memory\n"}, {"my cg\\/x/memory.max", "104857600\n"});
  assert_value(read_tree().limit_bytes, 100 * MIB);
}

#define V1_CGROUP                                                                                         \
  "12:pids:/docker/abc\n11:hugetlb:/docker/abc\n10:memory:/docker/abc\n9:cpuset:/docker/abc\n"            \
  "4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
#define V1_MOUNTS(root)                                                                                                   \
  "700 690 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n"                                                   \
  "701 700 0:28 " root " /sys/fs/cgroup/systemd ro,nosuid master:9 - cgroup cgroup rw,xattr,name=systemd\n"              \
  "703 700 0:31 " root " /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,cpu,cpuacct\n" \
  "711 700 0:39 " root " /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:22 - cgroup cgroup rw,memory\n"
#define V1_STAT                                                                                               \
  "cache 5\nrss 6\ninactive_file 1\nactive_file 2\nhierarchical_memory_limit 268435456\n"                      \
  "hierarchical_memsw_limit 9223372036854771712\ntotal_cache 5\ntotal_inactive_file 2097152\ntotal_active_file 3\n"

/* Docker with cgroup v1 binds the container's own directories; /proc/self/cgroup has the host's path. */
static void v1_docker(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", V1_CGROUP}, {"proc/self/mountinfo", V1_MOUNTS("/docker/abc")}, MEMINFO,
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"},
       {"sys/fs/cgroup/memory/memory.usage_in_bytes", "10485760\n"}, {"sys/fs/cgroup/memory/memory.stat", V1_STAT},
       {"sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}, PROC_PRESSURE);
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory m;
  nx_cgroup_read_memory(cgroup, &m);
  assert_value(m.limit_bytes, 256 * MIB);
  assert_value(m.usage_bytes, 10 * MIB);
  assert_value(m.inactive_file_bytes, 2 * MIB); /* total_: with the children, as the kubelet has it */
  assert_value(m.working_set_bytes, 8 * MIB);
  assert_value(m.oom_kills, 4);
  assert_value(m.pressure_bp, 7);
  assert_value(nx_cgroup_cpu_millicores(cgroup), 500);
  assert_int_equal(nx_cgroup_cores(cgroup, 8), 1);
  assert_string_equal(nx_cgroup_version(cgroup), "v1");
  nx_cgroup_close(cgroup);
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  assert_unlimited(millicores_of_tree());
}

static void v1_nested_and_unlimited(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", V1_CGROUP}, {"proc/self/mountinfo", V1_MOUNTS("/")}, MEMINFO,
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", V1_NONE},
       {"sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "104857600\n"},
       {"sys/fs/cgroup/memory/docker/memory.usage_in_bytes", "50000000\n"},
       {"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "209715200\n"},
       {"sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "40000000\n"},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"},
       {"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "300000\n"},
       {"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n"},
       {"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "200000\n"},
       {"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "50000\n"});
  struct nx_cgroup_memory m = read_tree();
  assert_value(m.limit_bytes, 100 * MIB);
  assert_value(m.usage_bytes, 50000000);
  assert_value(millicores_of_tree(), 3000);
  put("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", V1_NONE);
  put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", V1_NONE);
  m = read_tree();
  assert_unlimited(m.limit_bytes);
  assert_value(m.usage_bytes, 40000000);
  put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854710272\n"); /* with 64 KiB pages */
  assert_unlimited(read_tree().limit_bytes);
}

/* What a namespace hides of v1's ancestors, memory.stat still tells. */
static void v1_hidden_ancestors(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "4:memory:/\n"}, {"proc/self/mountinfo", V1_MOUNTS("/")}, MEMINFO,
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", V1_NONE}, {"sys/fs/cgroup/memory/memory.stat", V1_STAT});
  assert_value(read_tree().limit_bytes, 256 * MIB);
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
  assert_value(read_tree().limit_bytes, 100 * MIB);
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "garbage\n");
  assert_value(read_tree().limit_bytes, 256 * MIB);
  put("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit " V1_NONE);
  assert_unlimited(read_tree().limit_bytes);
  put("sys/fs/cgroup/memory/memory.stat", "");
  assert_unknown(read_tree().limit_bytes);
}

/* Both at once: memory and cpu are where /proc/self/cgroup lists them. */
static void hybrid(void **state) {
  (void)state;
  static const char mounts[] =
    "30 24 0:25 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
    "33 24 0:30 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n";
  TREE({"proc/self/cgroup", "0::/u\n5:memory:/m\n"}, {"proc/self/mountinfo", mounts}, MEMINFO,
       {"sys/fs/cgroup/unified/cgroup.controllers", "cpu\n"}, {"sys/fs/cgroup/unified/u/cpu.max", "400000 100000\n"},
       {"sys/fs/cgroup/unified/u/memory.max", "1\n"}, {"sys/fs/cgroup/memory/m/memory.limit_in_bytes", "104857600\n"},
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", V1_NONE});
  assert_value(read_tree().limit_bytes, 100 * MIB);
  assert_value(millicores_of_tree(), 4000);
  /* As on this project's machines: cgroup2 is mounted, but has no controllers. */
  put("sys/fs/cgroup/unified/cgroup.controllers", "\n");
  put("proc/self/cgroup", "5:memory:/m\n0::/u\n");
  assert_value(read_tree().limit_bytes, 100 * MIB);
  assert_unknown(millicores_of_tree());
  put("proc/self/cgroup", "0::/u\n"); /* memory is nowhere */
  assert_unknown(read_tree().limit_bytes);
}

static void limits_larger_than_the_machine_are_none(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/\n"}, V2_CONTROLLERS, MEMINFO, {"sys/fs/cgroup/memory.max", "68719476736\n"});
  assert_unlimited(read_tree().limit_bytes);
  put("sys/fs/cgroup/memory.max", "16777216000\n");
  assert_value(read_tree().limit_bytes, UINT64_C(16777216000));
  put("proc/meminfo", "MemTotal: lots\n");
  put("sys/fs/cgroup/memory.max", "68719476736\n");
  assert_value(read_tree().limit_bytes, UINT64_C(68719476736));
}

static void broken_text_is_unknown(void **state) {
  (void)state;
  static const char *const limits[] = {"", "\n", "abc\n", "-1\n", "12x\n", "1.5\n", "maximum\n", " 1\n", "0x10\n",
                                       "99999999999999999999999\n", "\xff\n"};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    TREE({"proc/self/cgroup", "0::/\n"}, V2_CONTROLLERS, {"sys/fs/cgroup/memory.max", limits[i]},
         {"sys/fs/cgroup/memory.current", limits[i]}, {"sys/fs/cgroup/memory.stat", "xinactive_file 1\ninactive_file x\n"},
         {"sys/fs/cgroup/memory.events", "oom_kill\n"}, {"sys/fs/cgroup/cpu.max", limits[i]}, {"proc/meminfo", limits[i]});
    struct nx_cgroup_memory m = read_tree();
    assert_unknown(m.limit_bytes);
    assert_unknown(m.usage_bytes);
    assert_unknown(m.working_set_bytes);
    assert_unknown(m.inactive_file_bytes);
    assert_unknown(m.oom_kills);
    assert_unknown(millicores_of_tree());
  }
  TREE({"proc/self/cgroup", "0::/\n"}, V2_CONTROLLERS, {"sys/fs/cgroup/memory.max", "0\n"});
  assert_value(read_tree().limit_bytes, 0); /* a number, if an odd one */
  static const char *const quotas[] = {"100000", "100000 0\n", "100000 x\n", "18446744073709551615 1\n"};
  for (size_t i = 0; i < sizeof quotas / sizeof *quotas; i++) {
    put("sys/fs/cgroup/cpu.max", quotas[i]);
    assert_unknown(millicores_of_tree());
  }
  static const char *const pressures[] = {"", "full avg10=1.00", "some avg10=\n", "some avg10=1\n", "some avg10=1.0\n",
                                          "some avg10=-1.00\n", "some avg10=101.00\n", "some avg10=1.xx\n",
                                          "some avg10=1.000\n", "some avg10=111111111111111111111111111111.00\n"};
  for (size_t i = 0; i < sizeof pressures / sizeof *pressures; i++) {
    put("sys/fs/cgroup/memory.pressure", pressures[i]);
    assert_unknown(read_tree().pressure_bp);
  }
  put("sys/fs/cgroup/memory.pressure", "some avg10=100.00 avg60=1\n");
  assert_value(read_tree().pressure_bp, 10000);
}

static void broken_tables_do_no_harm(void **state) {
  (void)state;
  static const char *const cgroups[] = {"", "\n\n", "::", "0:", "0::", "memory", "4:memory", "4:memory:\n", ":memory:/x\n",
                                        "4:memory,:/\n", "4::/\n", "0:memory\n0::/\n"};
  static const char *const mounts[] = {"", "\n", "a", "1 2 3 / /x", "1 2 3 / /x rw - ", "1 2 3 / /x rw - cgroup",
                                       "1 2 3 / /x rw - cgroup cgroup", "1 2 3 / /x rw - cgroup2", " - cgroup2 x x\n",
                                       "1 2 3 /\\ /\\0 rw - cgroup2 x x\n", "1 2 3 / /sys rw - cgroup cgroup rw,memory"};
  for (size_t i = 0; i < sizeof cgroups / sizeof *cgroups; i++)
    for (size_t j = 0; j < sizeof mounts / sizeof *mounts; j++) {
      TREE({"proc/self/cgroup", cgroups[i]}, {"proc/self/mountinfo", mounts[j]});
      struct nx_cgroup_memory m = read_tree();
      assert_true(!nx_reading_is_value(m.limit_bytes));
      millicores_of_tree();
    }
}

static void nothing_at_all_is_unknown(void **state) {
  (void)state;
  struct nx_cgroup_memory m = read_tree();
  assert_unknown(m.limit_bytes);
  assert_unknown(m.usage_bytes);
  assert_unknown(m.pressure_bp);
  struct nx_cgroup *cgroup = open_tree();
  assert_unknown(nx_cgroup_machine_memory_bytes(cgroup));
  assert_unknown(nx_cgroup_cpu_millicores(cgroup));
  assert_int_equal(nx_cgroup_cores(cgroup, 3), 3);
  assert_string_equal(nx_cgroup_version(cgroup), "none");
  nx_cgroup_close(cgroup);
  nx_cgroup_close(NULL);
  struct nx_error err = {0};
  assert_int_equal(nx_cgroup_open(&cgroup, "/nonexistent", &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, ENOENT);
}

/* The cgroup disappears while we look at it. */
static void vanished_cgroup_is_unknown(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "4:memory:/x\n"}, {"sys/fs/cgroup/memory/x/memory.limit_in_bytes", "104857600\n"},
       {"sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1\n"});
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory m;
  nx_cgroup_read_memory(cgroup, &m);
  assert_value(m.limit_bytes, 100 * MIB);
  drop_root(NULL);
  nx_cgroup_read_memory(cgroup, &m);
  assert_unknown(m.limit_bytes);
  assert_unknown(m.usage_bytes);
  nx_cgroup_close(cgroup);
}

static void cpus_allowed(void **state) {
  (void)state;
  long online = sysconf(_SC_NPROCESSORS_CONF);
  assert_in_range(nx_cpu_allowed(), 1, online);
}

/* In a child without privileges: 0 when a file that it may not read was answered "unknown". */
static int read_without_permission(void) {
  if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) return 77;
  struct nx_cgroup *cgroup;
  struct nx_cgroup_memory m;
  if (nx_cgroup_open(&cgroup, root, NULL)) return 1;
  nx_cgroup_read_memory(cgroup, &m);
  nx_cgroup_close(cgroup);
  if (m.limit_bytes.kind != NX_READING_UNKNOWN) return 2;
  return nx_reading_is_value(m.usage_bytes) ? 0 : 3;
}

static int wait_for(pid_t child) {
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void no_permission_is_unknown(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/\n"}, V2_CONTROLLERS, {"sys/fs/cgroup/memory.max", "104857600\n"},
       {"sys/fs/cgroup/memory.current", "1\n"});
  char path[128];
  snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory.max", root);
  assert_int_equal(chmod(path, 0), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) _exit(read_without_permission());
  int status = wait_for(child);
  if (status == 77) {
    print_message("[  NOTE    ] not permitted to change user: permission test skipped\n");
    skip();
  }
  assert_int_equal(status, 0);
}

/* real groups */

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

/* In a child inside of the inner group: 0, or the number of the step that failed. */
static int look_around(const char *outer, const char *inner, const char *limit_file, bool v1) {
  STEP(77, !put_real(inner, "cgroup.procs", "0"));
  struct nx_cgroup *cgroup;
  struct nx_cgroup_memory m;
  STEP(1, !nx_cgroup_open(&cgroup, "/", NULL));
  STEP(2, !strcmp(nx_cgroup_version(cgroup), v1 ? "v1" : "v2"));
  nx_cgroup_read_memory(cgroup, &m);
  STEP(3, m.limit_bytes.kind == NX_READING_VALUE && m.limit_bytes.value == 64 * MIB);
  char *touched = calloc(1, 8 * MIB);
  for (size_t i = 0; i < 8 * MIB; i += 4096) ((volatile char *)touched)[i] = 1;
  nx_cgroup_read_memory(cgroup, &m);
  STEP(4, m.usage_bytes.kind == NX_READING_VALUE && m.usage_bytes.value >= 8 * MIB && m.usage_bytes.value <= 64 * MIB);
  STEP(5, m.working_set_bytes.kind == NX_READING_VALUE && m.working_set_bytes.value >= 8 * MIB);
  STEP(6, m.oom_kills.kind == NX_READING_VALUE && m.oom_kills.value == 0);
  free(touched);
  /* A smaller limit further up wins, while running. */
  STEP(7, !put_real(outer, limit_file, "50331648"));
  nx_cgroup_read_memory(cgroup, &m);
  STEP(8, m.limit_bytes.kind == NX_READING_VALUE && m.limit_bytes.value == 48 * MIB);
  nx_cgroup_close(cgroup);
  return 0;
}

static void real_groups(void **state) {
  (void)state;
  bool v1 = !access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK);
  char outer[128], inner[160];
  snprintf(outer, sizeof outer, "/sys/fs/cgroup/%snexus-test-%d", v1 ? "memory/" : "", (int)getpid());
  snprintf(inner, sizeof inner, "%s/inner", outer);
  const char *limit_file = v1 ? "memory.limit_in_bytes" : "memory.max";
  int status = 77;
  bool made = !mkdir(outer, 0755);
  if (made && !v1) put_real(outer, "cgroup.subtree_control", "+memory");
  if (made && !mkdir(inner, 0755)) {
    if (!put_real(inner, limit_file, "67108864")) {
      pid_t child = fork();
      assert_true(child >= 0);
      if (!child) _exit(look_around(outer, inner, limit_file, v1));
      status = wait_for(child);
    }
    rmdir(inner);
  }
  if (made) assert_int_equal(rmdir(outer), 0);
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
  assert_in_range(nx_cgroup_cores(cgroup, nx_cpu_allowed()), 1, nx_cpu_allowed());
  nx_cgroup_close(cgroup);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_root, drop_root)
  const struct CMUnitTest tests[] = {
    TEST(v2_container),
    TEST(v2_nested),
    TEST(v2_without_limits),
    TEST(v2_path_outside_of_the_namespace),
    TEST(v2_found_without_mountinfo),
    TEST(v2_mounted_elsewhere_with_a_blank),
    TEST(v1_docker),
    TEST(v1_nested_and_unlimited),
    TEST(v1_hidden_ancestors),
    TEST(hybrid),
    TEST(limits_larger_than_the_machine_are_none),
    TEST(broken_text_is_unknown),
    TEST(broken_tables_do_no_harm),
    TEST(nothing_at_all_is_unknown),
    TEST(vanished_cgroup_is_unknown),
    TEST(no_permission_is_unknown),
    cmocka_unit_test(cpus_allowed),
    cmocka_unit_test(real_groups),
    cmocka_unit_test(this_machine),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
