/* SPDX-License-Identifier: Apache-2.0
 *
 * A suspended execution's memory as bytes: what differs from the handler's image, word by word, compressed.
 *
 * (The format stands in patch.c, what it was chosen from in docs/suspend.md.)
 *
 * A patch is only meaningful over the very image it was made over: whoever keeps one keeps that image's hash beside it
 * (suspend/record.h). Its content is the work of a hostile guest; its form is checked in full: every length, index and
 * count, before anything is written outside the window it is for.
 *
 * Threads: any. Errors: NX_ERR_NO_MEMORY, also when `out` may not grow (charged as it grows), NX_ERR_INVALID for bytes
 * that are not a patch. */
#ifndef NX_IMAGE_PATCH_H
#define NX_IMAGE_PATCH_H

#include "image/image.h"

/* Appends the patch of `memory` over `image` to `out`, nothing on failure, and trims `out`. `candidates`: ascending page
 * indices, all that may differ. */
int nx_patch_encode(struct nx_buf *out, const struct nx_image *image, const uint8_t *memory, uint32_t memory_bytes,
                    const uint32_t *candidates, uint32_t candidate_count, struct nx_error *err);

/* Size of linear memory that the patch needs; a multiple of the WebAssembly page, not less than the image's. */
int nx_patch_memory_bytes(const uint8_t *patch, size_t bytes, const struct nx_image *image, uint32_t *out,
                          struct nx_error *err);

/* Writes the patch's words to `memory`, which shows the image it was made over, grown by zeroes to nx_patch_memory_bytes.
 * After an error the memory holds a part of it: reset it. */
int nx_patch_apply(const uint8_t *patch, size_t bytes, uint8_t *memory, uint32_t memory_bytes, struct nx_error *err);

#endif
