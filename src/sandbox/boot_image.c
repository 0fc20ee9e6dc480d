/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/sandbox.h"

extern const uint8_t nx_boot_image_begin[], nx_boot_image_end[]; /* boot_image.S */

struct nx_boot_image nx_boot_image_linked(void) {
  return (struct nx_boot_image){nx_boot_image_begin, (size_t)(nx_boot_image_end - nx_boot_image_begin)};
}
