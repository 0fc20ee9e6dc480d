/* SPDX-License-Identifier: Apache-2.0
 *
 * Random bytes from the kernel, drawn in batches per thread so that an execution costs no system call. */
#ifndef NX_SANDBOX_RANDOM_H
#define NX_SANDBOX_RANDOM_H

#include <stddef.h>

void nx_random_bytes(void *out, size_t bytes);

#endif
