/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel says about this container: memory limit and use, CPU quota, pressure, OOM kills.
 * Works on cgroup v2, v1 and both at once (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the
 * kernel, cgroups(7)). Only reads; deciding is the governor's business.
 *
 * Ownership: nx_cgroup_open makes it, nx_cgroup_close ends it; it holds one directory descriptor per hierarchy, and for
 *            the fast look two files per level, of 12 levels at most. A child after fork may read on.
 * Threads:   after open it never changes; any thread may read, by both looks.
 * Errors:    every figure is a reading of three answers (base/reading.h): value, unlimited, unknown.
 * Limits:    the place in the tree is looked up once, at open. A process that is moved opens again.
 *
 * Which cgroup: the limit is the smallest one on the way from ours to the root of what is mounted here. Use, pressure
 * and OOM kills are those of the cgroup that has this limit (ours, when none has one or several the same), because that
 * is where the kernel will kill: in a Kubernetes container it is the container's own, as the kubelet reports it.
 * Figures include the cgroups below, except v1's oom_kills, which are those of our own and the levels up to that one.
 * When the path of /proc/self/cgroup does not exist under the mount (cgroup namespaces, bind mounts of the host's tree)
 * the mount's root stands for it. */
#ifndef NX_MEMORY_CGROUP_H
#define NX_MEMORY_CGROUP_H

#include <stdint.h>

#include "base/error.h"
#include "base/reading.h"

struct nx_cgroup;

/* `root` is "/" outside of tests: the directory that has proc and the cgroup mounts below it. Fails only when it cannot
 * be opened or memory is short; a machine without cgroups opens well and answers unknown. */
int nx_cgroup_open(struct nx_cgroup **out, const char *root, struct nx_error *err);
void nx_cgroup_close(struct nx_cgroup *cgroup);

/* v1 lacks some; they are unknown there. */
struct nx_cgroup_memory {
  struct nx_reading limit_bytes; /* unlimited, too, when it is more than the machine has */
  struct nx_reading usage_bytes;
  struct nx_reading inactive_file_bytes; /* page cache that the kernel gives up first */
  struct nx_reading working_set_bytes;   /* usage − inactive_file, at least 0: the kubelet's and the HPA's figure */
  /* Parts of the usage: */
  struct nx_reading anon_bytes;
  struct nx_reading shmem_bytes;  /* memfds, tmpfs and shared anonymous memory */
  struct nx_reading kernel_bytes; /* page tables, stacks of threads, slabs; without socket buffers */
  struct nx_reading socket_bytes; /* v2 only: v1 does not charge socket buffers to memory */
  /* Counted since the cgroup was made: */
  struct nx_reading high_events; /* v2 only: above memory.high, where the kernel slows allocations down */
  struct nx_reading max_events;  /* times the limit was hit and something had to be reclaimed; on v1 at least so many */
  struct nx_reading oom_events;  /* v2 only: times nothing was left to reclaim, whether or not that killed anybody */
  struct nx_reading oom_kills;   /* processes killed */
  /* PSI avg10 in hundredths of a percent, 10000 = all the time; on v1 it is the machine's. */
  struct nx_reading pressure_bp;      /* some: at least one thread waited for memory */
  struct nx_reading full_pressure_bp; /* full: all that were not idle did */
};

/* A fresh look: some ten small files, 35 µs on v1 with three levels, 75 with five (Linux 6.18, 2 cores). On v2 memory.stat
 * also has the kernel add up its counters of all CPUs. */
void nx_cgroup_read_memory(const struct nx_cgroup *cgroup, struct nx_cgroup_memory *out);

struct nx_cgroup_fast {
  struct nx_reading limit_bytes;
  struct nx_reading usage_bytes; /* of the level that has this limit; the kernel charges up to 256 KiB per CPU ahead */
};

/* A look for a loop of every few milliseconds, by descriptors that nx_cgroup_open opened: 1.6 µs with three levels, 2.2
 * to 3.7 with five (measured as above). It says the same as the whole look, with three differences: it does not see
 * limits that v1's namespaces hide (take the smaller one of both looks); "more than the machine has" is what it had at
 * open; and a level whose cgroup was deleted since, so that we must have been moved, is unknown. */
void nx_cgroup_read_fast(const struct nx_cgroup *cgroup, struct nx_cgroup_fast *out);

/* MemTotal. */
struct nx_reading nx_cgroup_machine_memory_bytes(const struct nx_cgroup *cgroup);
/* The smallest CPU quota on the way up, in thousandths of a core. */
struct nx_reading nx_cgroup_cpu_millicores(const struct nx_cgroup *cgroup);
/* The quota rounded up, at most `allowed_cpus` (nx_cpu_allowed), at least 1. */
unsigned nx_cgroup_cores(const struct nx_cgroup *cgroup, unsigned allowed_cpus);
/* CPUs this process may run on (sched_getaffinity), at least 1. */
unsigned nx_cpu_allowed(void);

/* For `nexus doctor`: "v1", "v2" or "none", and the path below the mount ("" is its root). */
const char *nx_cgroup_version(const struct nx_cgroup *cgroup);
const char *nx_cgroup_path(const struct nx_cgroup *cgroup);

#endif
