/* SPDX-License-Identifier: Apache-2.0
 * Cgroup readings: literal kernel text in fake trees. */
#include "cgroup_support.h"

#include <sys/resource.h>

#include "fake_tree.h"

#define V1_NONE "9223372036854771712\n"

struct file {
  const char *path, *text; /* text NULL: a directory in the file's place, whose reading fails (EISDIR) */
};

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

static void assert_reading(struct nx_reading r, enum nx_reading_kind kind, uint64_t value) {
  if (r.kind != kind || (kind == NX_READING_VALUE && r.value != value))
    fail_msg("got %d %llu, expected %d %llu", r.kind, (unsigned long long)r.value, kind, (unsigned long long)value);
}
#define assert_value(r, v) assert_reading((r), NX_READING_VALUE, (v))
#define assert_unlimited(r) assert_reading((r), NX_READING_UNLIMITED, 0)
#define assert_unknown(r) assert_reading((r), NX_READING_UNKNOWN, 0)
#define assert_same(a, b) assert_reading((a), (b).kind, (b).value)

/* Both looks, which must agree. */
static struct nx_cgroup_memory read_both(const struct nx_cgroup *cgroup) {
  struct nx_cgroup_memory memory = read_slow(cgroup);
  struct nx_cgroup_fast fast = read_fast(cgroup);
  assert_same(fast.limit_bytes, memory.limit_bytes);
  assert_same(fast.usage_bytes, memory.usage_bytes);
  return memory;
}

static struct nx_cgroup_memory read_tree(void) {
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory memory = read_both(cgroup);
  nx_cgroup_close(cgroup);
  return memory;
}

/* Where a namespace hides a limit, which the fast look does not see. */
static struct nx_reading limit_with_hidden(void) {
  struct nx_cgroup *cgroup = open_tree();
  struct nx_reading limit = read_slow(cgroup).limit_bytes;
  nx_cgroup_close(cgroup);
  return limit;
}

static struct nx_reading millicores_of_tree(void) {
  struct nx_cgroup *cgroup = open_tree();
  struct nx_reading millicores = nx_cgroup_cpu_millicores(cgroup);
  nx_cgroup_close(cgroup);
  return millicores;
}

#define MEMINFO {"proc/meminfo", "MemTotal:       16384000 kB\nMemFree:        23811848 kB\nMemAvailable:   23772508 kB\n"}
#define V2_MOUNT                                                                                              \
  "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"                                                   \
  "31 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
#define V2_CONTROLLERS {"sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma\n"}
/* Of Linux 6.1, shortened. */
#define V2_STAT                                                                                                       \
  "anon 4096000\nfile 10485760\nkernel 1048576\nkernel_stack 65536\npagetables 131072\nsec_pagetables 0\npercpu 2880\n"    \
  "sock 262144\nvmalloc 12288\nshmem 2097152\nzswap 0\nzswapped 0\nfile_mapped 3244032\nfile_dirty 0\ninactive_anon 7\n" \
  "active_anon 8\ninactive_file 6291456\nactive_file 4194304\nunevictable 0\nslab_reclaimable 320640\n"               \
  "slab_unreclaimable 443976\nslab 764616\nworkingset_refault_anon 0\npgfault 17446\n"
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
       {"sys/fs/cgroup/memory.events", "low 0\nhigh 7\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"},
       {"sys/fs/cgroup/cpu.max", "150000 100000\n"}, PROC_PRESSURE);
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory m;
  m = read_both(cgroup);
  assert_value(m.limit_bytes, 1024 * MIB);
  assert_value(m.usage_bytes, 20 * MIB);
  assert_value(m.inactive_file_bytes, 6 * MIB);
  assert_value(m.working_set_bytes, 14 * MIB);
  assert_value(m.anon_bytes, 4096000);
  assert_value(m.shmem_bytes, 2 * MIB);
  assert_value(m.kernel_bytes, MIB);
  assert_value(m.socket_bytes, 262144);
  assert_value(m.high_events, 7);
  assert_value(m.max_events, 12);
  assert_value(m.oom_events, 3);
  assert_value(m.oom_kills, 2);
  assert_value(m.pressure_bp, 1234);
  assert_value(m.full_pressure_bp, 9999);
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

/* Kernels before 5.18 do not sum the kernel's memory up; older ones lack some of the parts, too. */
static void v2_kernel_memory_in_parts(void **state) {
  (void)state;
  static const struct {
    const char *stat;
    enum nx_reading_kind kind;
    uint64_t bytes;
  } cases[] = {
    {"anon 1\nkernel_stack 65536\npagetables 131072\npercpu 2880\nsock 9\nslab_reclaimable 1000\nslab_unreclaimable 2000\nslab 3000\n",
     NX_READING_VALUE, 65536 + 131072 + 2880 + 3000},
    {"kernel_stack 65536\nslab 3000\nslab_reclaimable 1000\nslab_unreclaimable 2000\n", NX_READING_VALUE, 68536}, /* 4.19 */
    {"kernel_stack 0\n", NX_READING_VALUE, 0},
    {"kernel x\nkernel_stack 5\npercpu -1\n", NX_READING_VALUE, 5},
    {"kernel_stack 18446744073709551615\npercpu 1\n", NX_READING_UNKNOWN, 0},
    {"xkernel 5\nkernel_stack\n kernel 5\n", NX_READING_UNKNOWN, 0},
    {"", NX_READING_UNKNOWN, 0},
  };
  TREE({"proc/self/cgroup", "0::/\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put("sys/fs/cgroup/memory.stat", cases[i].stat);
    assert_reading(read_tree().kernel_bytes, cases[i].kind, cases[i].bytes);
  }
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
  assert_unknown(m.max_events);
  assert_value(m.socket_bytes, 262144);
  assert_value(m.pressure_bp, 7);
  assert_value(m.full_pressure_bp, 0);
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
  "cache 5\nrss 6\nshmem 7\ninactive_file 1\nactive_file 2\nhierarchical_memory_limit 268435456\n"                      \
  "hierarchical_memsw_limit 9223372036854771712\ntotal_cache 5\ntotal_rss 3145728\ntotal_shmem 1048576\ntotal_inactive_file 2097152\ntotal_active_file 3\n"

/* Docker with cgroup v1 binds the container's own directories; /proc/self/cgroup has the host's path. */
static void v1_docker(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", V1_CGROUP}, {"proc/self/mountinfo", V1_MOUNTS("/docker/abc")}, MEMINFO,
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"},
       {"sys/fs/cgroup/memory/memory.usage_in_bytes", "10485760\n"}, {"sys/fs/cgroup/memory/memory.stat", V1_STAT},
       {"sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"},
       {"sys/fs/cgroup/memory/memory.failcnt", "31\n"}, {"sys/fs/cgroup/memory/memory.kmem.usage_in_bytes", "4386816\n"},
       {"sys/fs/cgroup/memory/memory.kmem.tcp.usage_in_bytes", "0\n"},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}, PROC_PRESSURE);
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory m;
  m = read_both(cgroup);
  assert_value(m.limit_bytes, 256 * MIB);
  assert_value(m.usage_bytes, 10 * MIB);
  assert_value(m.inactive_file_bytes, 2 * MIB); /* total_: with the children, as the kubelet has it */
  assert_value(m.working_set_bytes, 8 * MIB);
  assert_value(m.anon_bytes, 3 * MIB);
  assert_value(m.shmem_bytes, MIB);
  assert_value(m.kernel_bytes, 4386816);
  assert_value(m.max_events, 31);
  assert_value(m.oom_kills, 4);
  assert_unknown(m.oom_events);
  assert_unknown(m.high_events);
  assert_unknown(m.socket_bytes);
  assert_value(m.pressure_bp, 7);
  assert_value(m.full_pressure_bp, 0);
  assert_value(nx_cgroup_cpu_millicores(cgroup), 500);
  assert_int_equal(nx_cgroup_cores(cgroup, 8), 1);
  assert_string_equal(nx_cgroup_version(cgroup), "v1");
  nx_cgroup_close(cgroup);
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  assert_unlimited(millicores_of_tree());
  put("sys/fs/cgroup/memory/memory.kmem.usage_in_bytes", "0\n"); /* cgroup.memory=nokmem */
  assert_unknown(read_tree().kernel_bytes);
  put("sys/fs/cgroup/memory/memory.memsw.failcnt", "5\n");
  assert_value(read_tree().max_events, 36);
  put("sys/fs/cgroup/memory/memory.memsw.failcnt", "18446744073709551615\n");
  assert_unknown(read_tree().max_events);
  put("sys/fs/cgroup/memory/memory.stat", "rss 1\nshmem 4096\n");
  assert_value(read_tree().shmem_bytes, 4096);
  assert_unknown(read_tree().anon_bytes);
}

/* v1 counts a kill where the victim was, not where the limit is. */
static void v1_kills_below_the_limit(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "4:memory:/a/b/c\n"}, {"proc/self/mountinfo", V1_MOUNTS("/")}, MEMINFO,
       {"sys/fs/cgroup/memory/memory.oom_control", "oom_kill 1000\n"},
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", V1_NONE},
       {"sys/fs/cgroup/memory/a/memory.oom_control", "oom_kill 100\n"},
       {"sys/fs/cgroup/memory/a/memory.limit_in_bytes", V1_NONE},
       {"sys/fs/cgroup/memory/a/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 10\n"},
       {"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "104857600\n"},
       {"sys/fs/cgroup/memory/a/b/memory.failcnt", "5\n"},
       {"sys/fs/cgroup/memory/a/b/c/memory.oom_control", "oom_kill 1\n"},
       {"sys/fs/cgroup/memory/a/b/c/memory.failcnt", "6\n"},
       {"sys/fs/cgroup/memory/a/b/c/memory.limit_in_bytes", V1_NONE});
  struct nx_cgroup_memory m = read_tree();
  assert_value(m.oom_kills, 11);
  assert_value(m.max_events, 5);
  put("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", V1_NONE);
  assert_value(read_tree().oom_kills, 1);
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
  assert_value(read_tree().oom_kills, 1111);
  put("sys/fs/cgroup/memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n"); /* before 4.13 */
  assert_unknown(read_tree().oom_kills);
  put("sys/fs/cgroup/memory/a/memory.oom_control", "oom_kill 18446744073709551615\n");
  assert_unknown(read_tree().oom_kills);
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
  assert_value(limit_with_hidden(), 256 * MIB);
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
  assert_value(limit_with_hidden(), 100 * MIB);
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "garbage\n");
  assert_value(limit_with_hidden(), 256 * MIB);
  put("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit " V1_NONE);
  assert_unlimited(limit_with_hidden());
  put("sys/fs/cgroup/memory/memory.stat", "");
  assert_unknown(limit_with_hidden());
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", V1_NONE);
  put("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
  put("sys/fs/cgroup/memory/memory.stat", V1_STAT);
  struct nx_cgroup *cgroup = open_tree();
  assert_value(read_slow(cgroup).limit_bytes, 256 * MIB);
  assert_unlimited(read_fast(cgroup).limit_bytes);
  assert_value(read_fast(cgroup).usage_bytes, 5000);
  nx_cgroup_close(cgroup);
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
  static const char *const totals[] = {"MemTotal: lots\n", "MemTotal: 5\n", "MemTotal: 5 MB\n", "MemTotal: 5 kBx\n",
                                       "MemTotal:\n", "SwapMemTotal: 5 kB\n", "MemTotal: 18446744073709551615 kB\n"};
  put("sys/fs/cgroup/memory.max", "68719476736\n");
  for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
    put("proc/meminfo", totals[i]);
    assert_value(read_tree().limit_bytes, UINT64_C(68719476736));
  }
}

static void broken_text_is_unknown(void **state) {
  (void)state;
  static const char *const limits[] = {"", "\n", "abc\n", "-1\n", "12x\n", "1.5\n", "maximum\n", " 1\n", "0x10\n",
                                       "99999999999999999999999\n", "\xff\n"};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    TREE({"proc/self/cgroup", "0::/\n"}, V2_CONTROLLERS, {"sys/fs/cgroup/memory.max", limits[i]},
         {"sys/fs/cgroup/memory.current", limits[i]}, {"sys/fs/cgroup/memory.stat", "xinactive_file 1\ninactive_file x\nanon -1\nshmem\nsock  5\nkernel 1k\n"},
         {"sys/fs/cgroup/memory.events", "oom_kill\nhigh \nmax max\noom 1.0\n"}, {"sys/fs/cgroup/cpu.max", limits[i]}, {"proc/meminfo", limits[i]});
    struct nx_cgroup_memory m = read_tree();
    assert_unknown(m.limit_bytes);
    assert_unknown(m.usage_bytes);
    assert_unknown(m.working_set_bytes);
    assert_unknown(m.inactive_file_bytes);
    assert_unknown(m.anon_bytes);
    assert_unknown(m.shmem_bytes);
    assert_unknown(m.socket_bytes);
    assert_unknown(m.kernel_bytes);
    assert_unknown(m.high_events);
    assert_unknown(m.max_events);
    assert_unknown(m.oom_events);
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
  static const char *const pressures[] = {"", "full avg1=1.00", "xsome avg10=1.00", "some avg10=\n", "some avg10=1\n", "some avg10=1.0\n",
                                          "some avg10=-1.00\n", "some avg10=101.00\n", "some avg10=1.xx\n",
                                          "some avg10=1.000\n", "some avg10=111111111111111111111111111111.00\n"};
  for (size_t i = 0; i < sizeof pressures / sizeof *pressures; i++) {
    put("sys/fs/cgroup/memory.pressure", pressures[i]);
    assert_unknown(read_tree().pressure_bp);
    assert_unknown(read_tree().full_pressure_bp);
  }
  put("sys/fs/cgroup/memory.pressure", "some avg10=100.00 avg60=1\n");
  assert_value(read_tree().pressure_bp, 10000);
  assert_unknown(read_tree().full_pressure_bp);
  put("sys/fs/cgroup/memory.pressure", "full avg10=0.25 avg60=1\n");
  assert_unknown(read_tree().pressure_bp);
  assert_value(read_tree().full_pressure_bp, 25);
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

static unsigned open_files(void) {
  unsigned count = 0;
  for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

/* Looks by descriptors that were opened once: what changes meanwhile must show. */
static void fast_looks_follow(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/a/b\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/a/memory.max", "max\n"}, {"sys/fs/cgroup/a/memory.current", "300000\n"},
       {"sys/fs/cgroup/a/b/memory.max", "104857600\n"}, {"sys/fs/cgroup/a/b/memory.current", "200000\n"});
  unsigned files = open_files();
  struct nx_cgroup *cgroup = open_tree();
  struct nx_cgroup_memory m = read_both(cgroup);
  assert_value(m.limit_bytes, 100 * MIB);
  assert_value(m.usage_bytes, 200000);
  put("sys/fs/cgroup/a/memory.max", "52428800\n"); /* the smallest limit goes to another level, and back */
  m = read_both(cgroup);
  assert_value(m.limit_bytes, 50 * MIB);
  assert_value(m.usage_bytes, 300000);
  put("sys/fs/cgroup/a/memory.current", "17\n"); /* shorter than before */
  assert_value(read_both(cgroup).usage_bytes, 17);
  put("sys/fs/cgroup/a/b/memory.max", "41943040\n");
  m = read_both(cgroup);
  assert_value(m.limit_bytes, 40 * MIB);
  assert_value(m.usage_bytes, 200000);
  put("sys/fs/cgroup/a/b/memory.max", "max\n");
  put("sys/fs/cgroup/a/memory.max", "68719476736\n"); /* more than the machine has; still the level that is looked at */
  m = read_both(cgroup);
  assert_unlimited(m.limit_bytes);
  assert_value(m.usage_bytes, 17);
  put("sys/fs/cgroup/a/memory.max", "max");
  m = read_both(cgroup);
  assert_unlimited(m.limit_bytes);
  assert_value(m.usage_bytes, 200000);
  static const char *const broken[] = {"", "garbage\n", "-1\n", "maximum\n",
    "1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\n"};
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    put("sys/fs/cgroup/a/b/memory.max", broken[i]);
    put("sys/fs/cgroup/a/b/memory.current", broken[i]);
    put("sys/fs/cgroup/a/memory.max", "max\n");
    m = read_both(cgroup);
    assert_unknown(m.limit_bytes);
    assert_unknown(m.usage_bytes);
    put("sys/fs/cgroup/a/memory.max", "52428800\n"); /* what is broken does not hide the others */
    m = read_both(cgroup);
    assert_value(m.limit_bytes, 50 * MIB);
    assert_value(m.usage_bytes, 17);
  }
  put("sys/fs/cgroup/memory.max", "20971520\n"); /* files that were not there at open */
  put("sys/fs/cgroup/memory.current", "400000\n");
  m = read_both(cgroup);
  assert_value(m.limit_bytes, 20 * MIB);
  assert_value(m.usage_bytes, 400000);
  put("proc/meminfo", "MemTotal: 1024 kB\n"); /* the machine is looked at once */
  assert_unlimited(read_slow(cgroup).limit_bytes);
  assert_value(read_fast(cgroup).limit_bytes, 20 * MIB);
  nx_cgroup_close(cgroup);
  assert_int_equal(open_files(), files);
}

#define TEN "a/a/a/a/a/a/a/a/a/a"
static void more_levels_than_are_kept(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "4:memory:/" TEN "/" TEN "\n"}, {"proc/self/mountinfo", V1_MOUNTS("/")}, MEMINFO,
       {"sys/fs/cgroup/memory/a/a/memory.limit_in_bytes", "104857600\n"},
       {"sys/fs/cgroup/memory/a/a/memory.usage_in_bytes", "1002\n"},
       {"sys/fs/cgroup/memory/" TEN "/" TEN "/memory.limit_in_bytes", "209715200\n"},
       {"sys/fs/cgroup/memory/" TEN "/" TEN "/memory.usage_in_bytes", "1020\n"});
  unsigned files = open_files();
  struct nx_cgroup *cgroup = open_tree();
  assert_in_range(open_files() - files, 2, 27);
  struct nx_cgroup_memory m = read_both(cgroup);
  assert_value(m.limit_bytes, 100 * MIB);
  assert_value(m.usage_bytes, 1002);
  put("sys/fs/cgroup/memory/a/a/memory.limit_in_bytes", V1_NONE);
  m = read_both(cgroup);
  assert_value(m.limit_bytes, 200 * MIB);
  assert_value(m.usage_bytes, 1020);
  nx_cgroup_close(cgroup);
  assert_int_equal(open_files(), files);
}

/* With no descriptors left at open there are none to keep, and fast looks go by path. */
static void without_descriptors_to_keep(void **state) {
  (void)state;
  TREE({"proc/self/cgroup", "0::/a\n"}, {"proc/self/mountinfo", V2_MOUNT}, MEMINFO, V2_CONTROLLERS,
       {"sys/fs/cgroup/memory.max", "52428800\n"}, {"sys/fs/cgroup/memory.current", "300000\n"},
       {"sys/fs/cgroup/a/memory.max", "104857600\n"}, {"sys/fs/cgroup/a/memory.current", "200000\n"});
  int next = dup(0);
  assert_true(next >= 0);
  close(next);
  struct rlimit saved, small;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
  small = saved;
  for (int more = 0; more <= 9; more++) {
    struct nx_cgroup *cgroup = NULL;
    small.rlim_cur = (rlim_t)next + (rlim_t)more;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    int rc = nx_cgroup_open(&cgroup, root, NULL);
    struct nx_cgroup_fast starved = {0};
    if (!rc) starved = read_fast(cgroup);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
    assert_int_equal(rc, more ? 0 : -NX_ERR_SYSTEM);
    if (rc) continue;
    if (!strcmp(nx_cgroup_version(cgroup), "v2") && !strcmp(nx_cgroup_path(cgroup), "a"))
      assert_value(read_both(cgroup).limit_bytes, 50 * MIB);
    assert_true(starved.limit_bytes.kind != NX_READING_UNLIMITED);
    if (more == 9) assert_value(starved.limit_bytes, 50 * MIB);
    nx_cgroup_close(cgroup);
  }
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

/* In a child without privileges: 0 when a file that it may not read was answered "unknown". */
static int read_without_permission(void) {
  if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) return 77;
  struct nx_cgroup *cgroup;
  struct nx_cgroup_memory m;
  if (nx_cgroup_open(&cgroup, root, NULL)) return 1;
  nx_cgroup_read_memory(cgroup, &m);
  struct nx_cgroup_fast fast = read_fast(cgroup);
  nx_cgroup_close(cgroup);
  if (m.limit_bytes.kind != NX_READING_UNKNOWN || fast.limit_bytes.kind != NX_READING_UNKNOWN) return 2;
  return nx_reading_is_value(m.usage_bytes) && nx_reading_is_value(fast.usage_bytes) ? 0 : 3;
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

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_root, drop_root)
  const struct CMUnitTest tests[] = {
    TEST(v2_container),
    TEST(v2_kernel_memory_in_parts),
    TEST(v2_nested),
    TEST(v2_without_limits),
    TEST(v2_path_outside_of_the_namespace),
    TEST(v2_found_without_mountinfo),
    TEST(v2_mounted_elsewhere_with_a_blank),
    TEST(v1_docker),
    TEST(v1_nested_and_unlimited),
    TEST(v1_kills_below_the_limit),
    TEST(v1_hidden_ancestors),
    TEST(hybrid),
    TEST(limits_larger_than_the_machine_are_none),
    TEST(broken_text_is_unknown),
    TEST(broken_tables_do_no_harm),
    TEST(nothing_at_all_is_unknown),
    TEST(fast_looks_follow),
    TEST(more_levels_than_are_kept),
    TEST(without_descriptors_to_keep),
    TEST(vanished_cgroup_is_unknown),
    TEST(no_permission_is_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
