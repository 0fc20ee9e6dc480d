/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of memory/cgroup share: where our place is (cgroup.c), and walking up from there. */
#ifndef NX_MEMORY_CGROUP_INTERNAL_H
#define NX_MEMORY_CGROUP_INTERNAL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "memory/cgroup.h"
#include "memory/kernel_text.h"

enum nx__cgroup_version { NX__CGROUP_NONE, NX__CGROUP_V1, NX__CGROUP_V2 };

/* One controller's tree: where it is mounted and where we are in it. */
struct nx__hierarchy {
  enum nx__cgroup_version version;
  int mount_fd;
  char path[PATH_MAX]; /* relative to mount_fd; "" is the mount's root */
};

/* Ours, or a level further up: the cgroup that the first `path_bytes` of our path name. */
struct nx__cgroup_level {
  size_t path_bytes;
  size_t above; /* 0: our own */
};

/* Kubernetes has five levels; where there are more than these, looks at the others take longer. */
enum { NX__CGROUP_LEVELS_KEPT = 12 };

struct nx_cgroup {
  int root_fd;
  struct nx__hierarchy memory, cpu;
  struct nx_reading machine_bytes; /* as it was at open, for the fast look */
  struct {
    int limit_fd, usage_fd; /* -1 where there was no such file, or none that we may read */
  } kept[NX__CGROUP_LEVELS_KEPT];
};

struct nx__cgroup_level nx__cgroup_own_level(const struct nx__hierarchy *h);
/* Goes to the parent; false at the mount's root. */
bool nx__cgroup_up(const struct nx__hierarchy *h, struct nx__cgroup_level *level);
/* Reads `file` of that level. 0, or an errno. */
int nx__cgroup_read_level(const struct nx__hierarchy *h, struct nx__cgroup_level level, const char *file,
                          char text[NX__KERNEL_TEXT_BYTES]);
/* The same file open for nx__kernel_text_reread; -1 with errno. */
int nx__cgroup_open_level(const struct nx__hierarchy *h, struct nx__cgroup_level level, const char *file);
struct nx_reading nx__cgroup_smaller(struct nx_reading a, struct nx_reading b);

/* For nx_cgroup_open: begins with all of `kept` at -1. */
void nx__cgroup_keep_files(struct nx_cgroup *cgroup);

#endif
