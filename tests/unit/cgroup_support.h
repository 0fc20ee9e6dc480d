/* SPDX-License-Identifier: Apache-2.0
 * What tests of cgroup readings share. */
#ifndef NX_TESTS_CGROUP_SUPPORT_H
#define NX_TESTS_CGROUP_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/cgroup.h"

#define MIB (UINT64_C(1) << 20)

static inline struct nx_cgroup_fast read_fast(const struct nx_cgroup *cgroup) {
  struct nx_cgroup_fast fast;
  nx_cgroup_read_fast(cgroup, &fast);
  return fast;
}

static inline struct nx_cgroup_memory read_slow(const struct nx_cgroup *cgroup) {
  struct nx_cgroup_memory memory;
  nx_cgroup_read_memory(cgroup, &memory);
  return memory;
}

static inline int wait_for(pid_t child) {
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

#endif
