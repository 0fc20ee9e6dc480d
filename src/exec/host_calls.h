/* SPDX-License-Identifier: Apache-2.0
 *
 * What the guest asks of the host during an execution (enum nx_abi_op). The guest is hostile: it may call anything at
 * any time with any bytes. Rights and limits are decided here and nowhere else. Private to src/exec. */
#ifndef NX_EXEC_HOST_CALLS_H
#define NX_EXEC_HOST_CALLS_H

#include <stdint.h>

/* `opaque` is the struct nx_execution. The host_call of struct nx_guest_call. */
int32_t nx__host_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b, uint32_t b_bytes);

#endif
