/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers and their sources in a store: what is said of them in suspend/store.h, but sealed where the store is not in
 * this process (file, redis). Nobody else puts them there or takes them out.
 *
 *   source    found by a hash of its hash that is made with the key; sealed with its hash as context
 *   handler   found by its name; source hash and grants sealed with the name as context
 *
 * So who can read the store sees names, sizes and which entries belong together; who can write to it can delete an entry
 * or put back an older one of the same name, and nothing else is ever used: what was not sealed here for that name is
 * refused, logged once, and for the caller as if it were not there, except that the error says NX_ERR_INVALID.
 *
 * A change of keys: what is sealed with the previous key is read, too. A new key gives a source a new place, where the
 * next suspension puts it; handlers are moved by nx_kept_reseal.
 *
 * Ownership: the caller's; store and sealer are borrowed.
 * Threads:   any; waits where the store blocks.
 * Errors:    those of suspend/store.h. */
#ifndef NX_SUSPEND_KEPT_HANDLERS_H
#define NX_SUSPEND_KEPT_HANDLERS_H

#include <stdatomic.h>

#include "suspend/seal.h"
#include "suspend/store.h"

#define NX_KEPT_TOLD_WORDS 16u

struct nx_kept_handlers {
  struct nx_store *store;
  const struct nx_sealer *sealer; /* NULL: nothing leaves the process */
  struct nx_account *account;     /* charged for copies on their way */
  _Atomic uint64_t _told[NX_KEPT_TOLD_WORDS];     /* bits, by hash: what was logged as refused */
};

/* ---- Sources ------------------------------------------------------------------------------------------------------ */

/* What the store finds the source by. */
void nx_kept_source_name(const struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES],
                         uint8_t name[NX_HASH_BYTES]);
/* For an item that expires then. Cheap when it is there. */
int nx_kept_keep_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                        uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err);
/* For a handler that is put next; whatever was in its place is replaced. */
int nx_kept_put_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                       struct nx_refusal *refused, struct nx_error *err);
/* Appended to `out`. */
int nx_kept_load_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out,
                        struct nx_error *err);

/* The same for a handler of that name, which the store just had: NX_ERR_UNAVAILABLE when its source is not there, because
 * it was replaced or removed a moment ago; NX_ERR_NOT_FOUND when it is refused. */
int nx_kept_load_source_of(struct nx_kept_handlers *kept, const char *name, const uint8_t hash[NX_HASH_BYTES],
                           struct nx_buf *out, struct nx_error *err);

/* ---- Handlers, in a store that shares them ------------------------------------------------------------------------- */

struct nx_kept_handler {
  uint8_t source_hash[NX_HASH_BYTES];
  struct nx_buf grants; /* JSON; empty: none */
  uint64_t version;
};

/* As put_handler of the store; what is refused counts as none. */
int nx_kept_put(struct nx_kept_handlers *kept, const char *name, const struct nx_kept_handler *handler, uint64_t expected,
                struct nx_error *err);
int nx_kept_get(struct nx_kept_handlers *kept, const char *name, struct nx_kept_handler *out, struct nx_error *err);
int nx_kept_remove(struct nx_kept_handlers *kept, const char *name, uint64_t expected, struct nx_error *err);
int nx_kept_list(struct nx_kept_handlers *kept, nx_visit_handler_fn *visit, void *self, struct nx_error *err);
uint64_t nx_kept_version(struct nx_kept_handlers *kept);
/* Seals a handler and its source with the key of today, if it was the previous one. Harmless when others do the same. */
int nx_kept_reseal(struct nx_kept_handlers *kept, const char *name, struct nx_error *err);
bool nx_kept_may_need_reseal(const struct nx_kept_handlers *kept);

#endif
