/* SPDX-License-Identifier: Apache-2.0
 *
 * A suspended execution as bytes: the host's record, and the patch of the guest's memory.
 *
 *   version, fixed part | lengths of the sections | sections
 *
 * The record is where authority lives: what the execution may do, what it has used up, whose it is. Nothing of that is
 * ever read from the guest's memory. Outside of this process the whole is sealed (suspend/seal.h); its form is checked all
 * the same, because keys leak and stores of others are mounted by mistake.
 *
 * Ownership: a record's sections point into the bytes it was decoded from, or to what the caller set.
 * Threads: any. Errors: NX_ERR_INVALID for bytes that are no record of this version, NX_ERR_NO_MEMORY. */
#ifndef NX_SUSPEND_RECORD_H
#define NX_SUSPEND_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/tenant.h"
#include "suspend/store.h"

#define NX_RECORD_VERSION 1u
#define NX_EXECUTION_ID_RAW_BYTES 16u

enum nx_record_section {
  NX_RECORD_HANDLER,     /* name; empty: inline code */
  NX_RECORD_GRANTS,      /* JSON of the handler's capabilities and extensions, as nx_capabilities_write has them */
  NX_RECORD_REQUEST,     /* the same of the request */
  NX_RECORD_TRACEPARENT,
  NX_RECORD_CALLS,       /* open ones: the block of suspend/calls.h */
  NX_RECORD_MUTATIONS,   /* effects that no reply has carried yet: JSON items with commas between */
  NX_RECORD_EVENTS,
  NX_RECORD_VIEW,
  NX_RECORD_LOGS,
  NX_RECORD_RESULT,      /* of a finished one: its JSON */
  NX_RECORD_SOURCE,      /* of an inline handler, compressed; only in sealed continuations */
  NX_RECORD_PATCH,       /* of the guest's memory (image/patch.h); empty once finished */
  NX_RECORD_SECTIONS
};

struct nx_bytes {
  const void *data;
  size_t size;
};

struct nx_record {
  /* Fixed part: written as it stands. Little-endian, like every machine nexus builds for. */
  struct nx_record_fixed {
    uint32_t version;
    uint32_t flags;
    struct nx_tenant tenant;                      /* whose it is */
    uint8_t execution_id[NX_EXECUTION_ID_RAW_BYTES];
    uint8_t guest_id[NX_HASH_BYTES];
    uint8_t source_hash[NX_HASH_BYTES];
    uint8_t image_hash[NX_HASH_BYTES];
    uint64_t expires_ms, began_ns;                /* since 1970 */
    uint64_t timeout_ns, running_ns;              /* limit, and what was used of it */
    uint32_t memory_limit_bytes, stack_limit_bytes;
    uint32_t max_host_calls, host_calls;
    uint32_t max_state_mutations, state_mutations;
    uint32_t max_events, events;
    uint32_t max_output_bytes;
    uint32_t last_call_id;
    uint32_t memory_bytes;                        /* size of linear memory */
    uint32_t suspensions;                         /* how often it was suspended */
  } fixed;
  struct nx_bytes sections[NX_RECORD_SECTIONS];
};

enum nx_record_flags {
  NX_RECORD_HAS_GRANTS = 1,  /* an empty list of capabilities is not the same as none */
  NX_RECORD_HAS_REQUEST = 2,
  NX_RECORD_WAS_DENIED = 4,
};

/* Appends. Failure is the buffer's (failed). */
void nx_record_encode(const struct nx_record *record, struct nx_buf *out);
int nx_record_decode(struct nx_record *out, const void *bytes, size_t size, struct nx_error *err);

#endif
