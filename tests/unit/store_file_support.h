/* SPDX-License-Identifier: Apache-2.0
 * For the tests of the store in a directory: one directory for the whole run, and the files in it. */
#ifndef NX_TESTS_STORE_FILE_SUPPORT_H
#define NX_TESTS_STORE_FILE_SUPPORT_H

#include "base/fs.h"
#include "store_suite_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include <sys/stat.h>
#include <unistd.h>

static char store_dir[64];

static void run(const char *format) {
  char command[256];
  snprintf(command, sizeof command, format, store_dir);
  assert_int_equal(system(command), 0);
}

static struct nx_store *open_again(void) {
  struct nx_store *opened = NULL;
  struct nx_error err = {0};
  if (nx_store_open_file(&opened, store_dir, &err)) fail_msg("%s", err.text);
  return opened;
}

static struct nx_store *open_empty(void) {
  run("rm -rf %s/v1");
  return open_again();
}

static const struct store_factory file_factory = {.open = open_empty, .open_again = open_again};

static bool make_store_dir(void) {
  strcpy(store_dir, "/tmp/nexus-store-XXXXXX");
  factory = &file_factory;
  return mkdtemp(store_dir);
}

/* Good until the next call. */
static const char *path_of(const char *kind, const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/v1/%s/%s", store_dir, kind, name);
  return path;
}

#endif
