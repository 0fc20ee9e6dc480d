/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract between the guest (JavaScript engine inside the sandbox) and the host.
 *
 * Both sides include this file, so every type has a fixed width and every size is asserted. The host never trusts
 * what the guest says through it: lengths, offsets and codes are checked at each call (src/sandbox/guest_mem.h),
 * and every decision about rights and limits is made by the host. */
#ifndef NX_GUEST_ABI_H
#define NX_GUEST_ABI_H

#include <assert.h>
#include <stdint.h>

/* Changes whenever host and guest would misunderstand each other. */
#define NX_ABI_VERSION 2u

/* One area in the guest's static data through which the host hands over an execution. nx_boot() returns its address.
 * For nx_invoke() three texts lie one after the other in the input buffer: args, then state, then scope. A length of
 * NX_ABI_ABSENT means the caller did not give that value. For nx_resume() one text lies there, the answers to extension
 * calls, and args_bytes is its length: [{"callId": 1, "success": true, "value"?: any}, {"callId": 2, "success": false,
 * "error": any}]. */
#define NX_ABI_ABSENT UINT32_MAX
struct nx_abi_call {
  uint64_t random_seed[2];      /* state of Math.random for this execution */
  uint32_t input;               /* guest address of the texts */
  uint32_t args_bytes;          /* JSON (for nx_resume: the answers), or NX_ABI_ABSENT */
  uint32_t state_bytes;         /* JSON object holding only what the handler may read, or NX_ABI_ABSENT */
  uint32_t scope_bytes;         /* JSON, or NX_ABI_ABSENT */
  uint32_t stack_limit_bytes;   /* how much of the guest's own stack JavaScript may use */
  uint32_t gc_headroom_bytes;   /* heap growth after which the engine looks for cycles */
  uint32_t inline_input;        /* set by the guest at boot: a buffer that needs no allocation … */
  uint32_t inline_input_bytes;  /* … and its size */
  uint32_t heap_bytes;          /* kept by the guest: what its engine has allocated */
  uint32_t _unused;
};
static_assert(sizeof(struct nx_abi_call) == 56, "nx_abi_call is shared by host and guest");

/* nx_host_call(op, a, a_bytes, b, b_bytes): everything the guest can ask of the host.
 * The result is one of enum nx_abi_reply, or a positive number where the operation says so. */
enum nx_abi_op {
  NX_OP_RETURN = 1,      /* a = JSON of the return value, no bytes at all for undefined */
  NX_OP_THROW = 2,       /* a = JSON {name, message, stack, line, column} */
  NX_OP_LOG = 3,         /* a = level, b = message */
  NX_OP_STATE_SET = 4,   /* a = key, b = JSON */
  NX_OP_STATE_DELETE = 5,/* a = key */
  NX_OP_STATE_READ = 6,  /* a = key that was not in the snapshot: may it be read at all? */
  NX_OP_EMIT = 7,        /* a = event name, b = JSON payload, no bytes for undefined */
  NX_OP_VIEW = 8,        /* a = command type NUL component id, b = JSON array of arguments */
  NX_OP_EXT_CALL = 9,    /* a = extension NUL method, b = JSON array of arguments; result: call id > 0 */
  NX_OP_EXT_CANCEL = 10, /* a = call id in decimal: nobody in the guest waits for this call any more */
};

enum nx_abi_reply {
  NX_REPLY_OK = 0,
  NX_REPLY_DENIED = -1,      /* a capability is missing: the guest throws PermissionError */
  NX_REPLY_UNAVAILABLE = -2, /* there is no such thing here: the guest throws Error */
  NX_REPLY_BAD_CALL = -3,    /* malformed: only a hostile guest sees it */
};

/* Results of nx_compile(), nx_invoke() and nx_resume(). */
enum nx_abi_status {
  NX_STATUS_DONE = 0,           /* compiled, or settled: NX_OP_RETURN or NX_OP_THROW was called */
  NX_STATUS_SYNTAX = 1,         /* compile: the source does not parse (NX_OP_THROW tells) */
  NX_STATUS_TOP_LEVEL = 2,      /* compile: the top level threw (NX_OP_THROW tells) */
  NX_STATUS_NO_DEFAULT = 3,     /* compile: a module without a default export that is a function */
  NX_STATUS_NEVER_SETTLES = 4,  /* the main promise is pending and nothing can settle it */
  NX_STATUS_WAITING = 5,        /* the main promise is pending and extension calls are open */
  NX_STATUS_NO_MEMORY = 6,      /* the engine could not allocate while starting the call */
};

/* nx_host_clock(which): nanoseconds. Both stand at 0 while an image is made. */
enum nx_abi_clock {
  NX_CLOCK_REALTIME = 0,  /* since 1970 */
  NX_CLOCK_EXECUTION = 1, /* since this execution began; performance.now() */
};

#endif
