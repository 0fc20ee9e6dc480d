/* SPDX-License-Identifier: Apache-2.0
 * A directory that stands for "/" with proc and cgroup files as a kernel would have them, for tests of what reads them.
 * cmocka.h is included before. */
#ifndef NX_TESTS_FAKE_TREE_H
#define NX_TESTS_FAKE_TREE_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static inline int make_root(void **state) {
  (void)state;
  strcpy(root, "/tmp/nexus-tree-XXXXXX");
  return mkdtemp(root) ? chmod(root, 0755) : -1;
}

static inline int drop_root(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return system(command);
}

/* A file and the directories above it; written in place, because fast looks keep descriptors. `text` NULL: a directory
 * in the file's place, whose reading fails (EISDIR). */
static inline void put(const char *path, const char *text) {
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
  int fd = open(full, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  assert_true(fd >= 0);
  assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
  assert_int_equal(ftruncate(fd, (off_t)strlen(text)), 0);
  close(fd);
}

#endif
