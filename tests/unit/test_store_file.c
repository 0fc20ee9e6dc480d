/* SPDX-License-Identifier: Apache-2.0
 * The store in a directory. */
#include "store_suite_internal.h"
#include <stdio.h>
#include <stdlib.h>
static char dir[64];
static struct nx_store *open_again(void) {
  struct nx_store *out = NULL;
  struct nx_error err = {0};
  if (nx_store_open_file(&out, dir, &err)) fail_msg("%s", err.text);
  return out;
}
static void wipe(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s/*", dir);
  if (system(command)) abort();
}
static struct nx_store *open_empty(void) { wipe(); return open_again(); }
int main(void) {
  strcpy(dir, "/tmp/nexus-store-XXXXXX");
  if (!mkdtemp(dir)) return 1;
  const struct store_factory f = {open_empty, open_again};
  int failed = store_suite_run(&f);
  wipe();
  rmdir(dir);
  return failed;
}
