/* SPDX-License-Identifier: Apache-2.0
 * The boot image that the build has made, as read-only data. */
  .section .rodata
  .balign 16
  .globl nx_boot_image_begin
nx_boot_image_begin:
  .incbin "boot_image.bin"
  .globl nx_boot_image_end
nx_boot_image_end:
  .section .note.GNU-stack,"",@progbits
