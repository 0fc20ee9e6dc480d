/* SPDX-License-Identifier: Apache-2.0
 *
 * Kubernetes' quantities ("256Mi", "0.5", "250m", "1e9"), as its API documents them under Quantity.
 * Ownership: borrows the text. Threads: any; no state.
 * Errors:    false for what is no quantity, is negative, or does not fit.
 * Limits:    results below 2^56. Rounded up, as Kubernetes does. */
#ifndef NX_MANIFEST_QUANTITY_H
#define NX_MANIFEST_QUANTITY_H

#include <stdbool.h>
#include <stdint.h>

/* The quantity times `scale`: 1 for bytes, 1000 for thousandths of a core. */
bool nx_quantity_parse(const char *text, unsigned scale, uint64_t *value);

#endif
