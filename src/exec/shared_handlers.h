/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers that were set by PUT, over replicas: the registry of this process follows the store (suspend/store.h), which
 * has for each name a version, the hash of the source, and the grants. What changes here changes there first.
 *
 * Following costs a question for the store's version per request. When that is another one, or cannot be told, the names
 * are listed, and those with another version are read; a source only when its handler is first executed here (exec/exec.h).
 *
 * A handler from HANDLERS_DIR hides one of the store, and cannot be changed through the API meanwhile: files are what an
 * operator deploys, and all replicas have the same. When the file goes the handler of the store is there again.
 *
 * Ownership: the caller owns it; the store's handlers and the registry are borrowed.
 * Threads:   any; what waits for the store says so. Synchronization: a mutex, held by the one that reads the store;
 *            those who need the same meanwhile wait for it.
 * Errors:    NX_ERR_UNAVAILABLE and others of the store's: what is known stays in use, and the store is asked again
 *            after NX_SHARED_RETRY_MS. */
#ifndef NX_EXEC_SHARED_HANDLERS_H
#define NX_EXEC_SHARED_HANDLERS_H

#include "handler/registry.h"
#include "suspend/kept_handlers.h"

#define NX_SHARED_RETRY_MS 500u

struct nx_shared;

int nx_shared_create(struct nx_shared **out, struct nx_kept_handlers *kept, struct nx_registry *registry,
                     struct nx_error *err);
void nx_shared_destroy(struct nx_shared *shared); /* NULL is allowed */

/* The store has changes that the registry has not. Cheap. */
bool nx_shared_is_stale(struct nx_shared *shared);
/* The store was read once at least: what is not known here is not there. */
bool nx_shared_is_complete(const struct nx_shared *shared);
/* Brings the registry up to date. Waits for the store. */
int nx_shared_sync(struct nx_shared *shared, struct nx_error *err);
/* The file of that name is gone: its handler goes, and one of the store that it hid takes its place. Waits for the store. */
void nx_shared_remove_file(struct nx_shared *shared, const char *name);

/* A change of one name. */
struct nx_shared_change {
  const char *name;
  const uint8_t *source_hash;   /* NULL: it keeps the source it has */
  const char *source;
  size_t source_bytes;
  bool set_grants;              /* false: it keeps the grants it has */
  const struct nx_grants *grants;
  struct nx_condition condition;/* of what the store has */
};
/* Into the store, then the registry. Waits for the store. `created` tells whether the source, or without a source the
 * grants, are the first of that name. Errors: those of nx_registry_put; NX_ERR_CONFLICT also for a handler that comes from
 * a file; NX_ERR_UNAVAILABLE and others of the store's: then nothing has changed here, nor in the store, unless only its
 * answer was lost. */
int nx_shared_put(struct nx_shared *shared, const struct nx_shared_change *change, bool *created, struct nx_error *err);
/* The same; NX_ERR_NOT_FOUND. */
int nx_shared_remove(struct nx_shared *shared, const char *name, const struct nx_condition *condition,
                     struct nx_error *err);
/* The source of an entry that has no handler, appended to `out`. Waits for the store. */
int nx_shared_load_source(struct nx_shared *shared, const struct nx_entry *entry, struct nx_buf *out,
                          struct nx_error *err);

#endif
