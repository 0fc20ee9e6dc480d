/* SPDX-License-Identifier: Apache-2.0
 *
 * Suspended executions as the executor sees them: records in and out, by the name that the caller has. Whether they are
 * kept in memory, in a directory or in Redis, or travel sealed with the caller, is decided here once.
 *
 *   memory                 record ───────────▶ store
 *   file, redis            record ── seal ───▶ store        name: 32 hex digits
 *   sealed                 record ── seal ───▶ name         base64url, at most NX_SEALED_NAME_MAX
 *
 * Ownership: the caller owns what it takes (nx_taken_deinit); a lease that was not put back must be released.
 * Threads:   any. When nx_suspensions_block says so, calls wait for a disk or a network.
 * Errors:    those of suspend/store.h, and NX_ERR_CONFLICT for one of another guest, NX_ERR_TOO_LARGE for a continuation
 *            that is too long to be sealed. */
#ifndef NX_SUSPEND_SUSPENSIONS_H
#define NX_SUSPEND_SUSPENSIONS_H

#include "config/config.h"
#include "suspend/kept_handlers.h"
#include "suspend/record.h"
#include "suspend/seal.h"
#include "suspend/store.h"

#define NX_SEALED_NAME_MAX (64u << 10)

struct nx_suspensions;

struct nx_suspensions_options {
  const struct nx_config *config;     /* borrowed until create returns */
  const char *guest_id;               /* hex; borrowed until create returns */
  struct nx_account *account;         /* charged for copies on their way; layer suspended */
  struct nx_governor *governor;
};

int nx_suspensions_create(struct nx_suspensions **out, const struct nx_suspensions_options *options,
                          struct nx_error *err);
void nx_suspensions_destroy(struct nx_suspensions *suspensions);
bool nx_suspensions_block(const struct nx_suspensions *suspensions);
/* What is kept there outlives this process. */
bool nx_suspensions_are_durable(const struct nx_suspensions *suspensions);
bool nx_suspensions_are_sealed(const struct nx_suspensions *suspensions);
/* Sources are there unless it is sealed; handlers that were set by PUT only where they are shared. Borrowed. */
struct nx_kept_handlers *nx_suspensions_handlers(struct nx_suspensions *suspensions);
bool nx_suspensions_share_handlers(const struct nx_suspensions *suspensions);

void nx_suspensions_read_stats(struct nx_suspensions *suspensions, struct nx_store_stats *out);

/* One that is held: zero-initialise. */
struct nx_taken {
  struct nx_record record; /* points into `bytes` */
  struct nx_buf bytes;
  enum nx_stored_state state;
  struct nx_store_lease lease;
  bool is_leased;
};
void nx_taken_deinit(struct nx_taken *taken);

/* Keeps a new one; its name is appended to `name`. The guest id of the record is filled in. `source` is the handler's. */
int nx_suspensions_keep(struct nx_suspensions *suspensions, struct nx_record *record, struct nx_bytes source,
                        uint64_t wake_ms, struct nx_buf *name, struct nx_refusal *refused, struct nx_error *err);
/* Who asks for a tenant (`asks` is not nobody) gets NX_ERR_NOT_FOUND, and one and the same text, for everything that cannot
 * be seen to be his or nobody's: ids that there are not, what is another's, what was cancelled, whose bytes were dropped,
 * or cannot be unsealed. Nothing happens to what is another's. */

/* For resuming: exclusive, for `lease_ms` at most. A sealed one is not exclusive: it can be resumed again. */
int nx_suspensions_take(struct nx_suspensions *suspensions, const struct nx_tenant *asks, const char *name,
                        size_t name_bytes, uint64_t lease_ms, struct nx_taken *out, struct nx_error *err);
int nx_suspensions_extend(struct nx_suspensions *suspensions, struct nx_taken *taken, uint64_t lease_ms,
                          struct nx_error *err);
/* Ends the lease with what has become of it. `name` gets the name it has from now on (a sealed one has a new one; none
 * when it is finished). */
int nx_suspensions_put_back(struct nx_suspensions *suspensions, struct nx_taken *taken, struct nx_record *record,
                            enum nx_stored_state state, struct nx_bytes source, uint64_t wake_ms, struct nx_buf *name,
                            struct nx_refusal *refused, struct nx_error *err);
/* Ends the lease as if nothing had happened; nothing when there is none. */
void nx_suspensions_release(struct nx_suspensions *suspensions, struct nx_taken *taken);

/* Without a lease, in any state. */
int nx_suspensions_read(struct nx_suspensions *suspensions, const struct nx_tenant *asks, const char *name,
                        size_t name_bytes, struct nx_taken *out, struct nx_error *err);
int nx_suspensions_cancel(struct nx_suspensions *suspensions, const struct nx_tenant *asks, const char *name,
                          size_t name_bytes, struct nx_error *err);
/* The source of its handler, appended to `out`. */
int nx_suspensions_load_source(struct nx_suspensions *suspensions, const struct nx_taken *taken, struct nx_buf *out,
                               struct nx_error *err);

/* What ids of this guest begin with; `guest_id` in hex. */
struct nx_suspension_prefix nx_suspension_prefix_of(const char *guest_id);

/* Both as the store's operations of these names; nothing for sealed. What another guest suspended is never due here. */
size_t nx_suspensions_due(struct nx_suspensions *suspensions, uint64_t now_ms, struct nx_suspension_id *ids, size_t max);
void nx_suspensions_sweep(struct nx_suspensions *suspensions, uint64_t now_ms);

/* The name of one in a store, 32 hex digits and a NUL. */
void nx_suspension_name(char name[2 * NX_SUSPENSION_ID_BYTES + 1], const struct nx_suspension_id *id);

#endif
