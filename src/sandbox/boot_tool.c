/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs during the build: boots the guest once and writes its memory for boot_image.S. usage: boot_tool OUT */
#include <stdio.h>

#include "sandbox/sandbox.h"

int main(int argc, char **argv) {
  struct nx_error err;
  if (argc != 2) return 2;
  if (nx_sandbox_init(NX_RESET_AUTO, NULL, &err)) {
    fprintf(stderr, "boot_tool: %s\n", err.text);
    return 1;
  }
  NX_BUF_AUTO bytes = {0};
  nx_sandbox_write_boot_image(&bytes);
  FILE *out = fopen(argv[1], "wb");
  bool written = out && !bytes.failed && fwrite(bytes.data, 1, bytes.len, out) == bytes.len;
  if (out && fclose(out)) written = false;
  if (!written) perror(argv[1]);
  nx_sandbox_deinit();
  return written ? 0 : 1;
}
