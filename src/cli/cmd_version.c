/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "sandbox/sandbox.h"
#include "version.h"

int nx_cmd_version(int argc, char **argv) {
  (void)argc, (void)argv;
  struct nx_error err;
  struct nx_boot_image boot = nx_boot_image_linked();
  if (nx_sandbox_init(NX_RESET_AUTO, &boot, &err)) {
    fprintf(stderr, "nexus: %s\n", err.text);
    return NX_EXIT_FAILURE;
  }
  printf("nexus %s (%s)\nguest %s\n", NX_VERSION, NX_REVISION, nx_sandbox_guest_id());
  nx_sandbox_deinit();
  return NX_EXIT_OK;
}
