/* SPDX-License-Identifier: Apache-2.0
 *
 * The handlers that can be executed: registered ones by name, and recently used compiled ones by content, so that
 * equal source compiles once.
 *
 * A name's entry is an immutable snapshot. Replacing a handler or its grants publishes a new entry; executions that
 * hold the old one finish with it. What was replaced, and inline code, stays findable by content until the least
 * recently used of them are dropped to keep within cache_max_bytes and cache_max_count. Registered handlers are found
 * by content too and do not count against these bounds.
 *
 * Ownership: the registry owns its references; results marked "held" must be released by the caller.
 * Threads:   any. Synchronization: names under a read-write lock held for a look-up or a pointer swap; contents under
 *            a mutex, inside the former or alone. Neither is held while a handler is compiled, freed or written.
 * Limits:    max_registered names. */
#ifndef NX_HANDLER_REGISTRY_H
#define NX_HANDLER_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "handler/grants.h"
#include "handler/handler.h"

#define NX_REGISTRY_MAX_REGISTERED 10000u

struct nx_registry;
struct nx__tally;

enum nx_origin {
  NX_ORIGIN_ANY, /* only in a condition */
  NX_ORIGIN_FILE,
  NX_ORIGIN_API,   /* set by PUT, in this process only */
  NX_ORIGIN_STORE, /* set by PUT, for all replicas: exec/shared_handlers.h */
};
const char *nx_origin_name(enum nx_origin origin); /* "file", "api": who brought it */

struct nx_entry {
  _Atomic uint32_t _refs;
  enum nx_origin origin;
  uint8_t source_hash[NX_HASH_BYTES];
  uint64_t version;           /* in the store; 0: it is not from there */
  struct nx_handler *handler; /* NULL: it is in the store, and nobody has needed it here yet */
  struct nx_grants *grants;   /* NULL: none were given */
  unsigned metrics_label;   /* nx_metrics_handler_label of the name */
  struct nx__tally *_tally; /* shared by all entries that this name has had */
  char name[NX_HANDLER_NAME_MAX + 1];
};

struct nx_registry_opts {
  size_t max_registered; /* 0: NX_REGISTRY_MAX_REGISTERED */
  size_t cache_max_bytes;
  size_t cache_max_count;
};

int nx_registry_create(struct nx_registry **out, const struct nx_registry_opts *opts, struct nx_error *err);
void nx_registry_destroy(struct nx_registry *registry); /* NULL is allowed; entries held elsewhere live on */

/* ---- By name ---------------------------------------------------------------------------------------------------- */

/* Held; NULL when there is none. The hot path of a request. */
struct nx_entry *nx_registry_get(struct nx_registry *registry, const char *name, size_t name_bytes);
struct nx_entry *nx_entry_hold(struct nx_entry *entry);
void nx_entry_release(struct nx_entry *entry); /* NULL is allowed */

void nx_entry_count_execution(struct nx_entry *entry);
/* Of the name since it was first registered, replacements included. */
uint64_t nx_entry_executions(const struct nx_entry *entry);

/* What must be so for a change to happen (If-Match, If-None-Match: *); zero-initialised: nothing. When it is not,
 * the change fails with NX_ERR_PRECONDITION and nothing has happened. */
struct nx_condition {
  bool must_exist, must_not_exist;
  const uint8_t *hash;    /* borrowed; the source hash that must be registered now; NULL: any */
  enum nx_origin origin;  /* that the registered one must have */
  bool is_compared;       /* the registered one must be this very entry, borrowed; NULL: there must be none */
  const struct nx_entry *entry;
};
/* `now` may be NULL. Touches nothing: 0 or NX_ERR_PRECONDITION. */
int nx_condition_check(const struct nx_condition *condition, const char *name, const struct nx_entry *now,
                       struct nx_error *err);

struct nx_registration {
  const char *name;            /* borrowed; nx_handler_name_valid */
  struct nx_handler *handler;  /* borrowed; NULL: it is not compiled here */
  const uint8_t *source_hash;  /* borrowed; of a handler that is not compiled here */
  uint64_t version;
  enum nx_origin origin;
  bool set_grants;             /* false: the name keeps the grants it has */
  struct nx_grants *grants;    /* borrowed; NULL: none */
  struct nx_condition condition;
};

/* Registers or replaces, atomically. `created` (may be NULL) tells which. Errors: NX_ERR_INVALID (name),
 * NX_ERR_PRECONDITION, NX_ERR_CONFLICT (max_registered), NX_ERR_NO_MEMORY. */
int nx_registry_put(struct nx_registry *registry, const struct nx_registration *what, bool *created,
                    struct nx_error *err);
/* The entry had no handler and has been compiled: whoever comes next finds it so. Nothing when it was replaced. */
void nx_registry_bind(struct nx_registry *registry, const struct nx_entry *entry, struct nx_handler *handler);
/* NX_ERR_NOT_FOUND, NX_ERR_PRECONDITION. `condition` may be NULL. */
int nx_registry_remove(struct nx_registry *registry, const char *name, const struct nx_condition *condition,
                       struct nx_error *err);
/* `grants` is borrowed; NULL takes them away. NX_ERR_NOT_FOUND. (Get them from the entry.) */
int nx_registry_set_grants(struct nx_registry *registry, const char *name, struct nx_grants *grants,
                           struct nx_error *err);

/* All entries, sorted by name. The caller owns the list. */
struct nx_registry_list {
  struct nx_entry **entries;
  size_t count;
};
int nx_registry_list(struct nx_registry *registry, struct nx_registry_list *out, struct nx_error *err);
void nx_registry_list_deinit(struct nx_registry_list *list);

/* ---- By content ------------------------------------------------------------------------------------------------- */

/* Held; NULL when it is not there. Counts a hit or a miss. */
struct nx_handler *nx_registry_find(struct nx_registry *registry, const uint8_t source_hash[NX_HASH_BYTES]);
/* Keeps a freshly compiled handler for those who come with the same source. Takes the caller's reference and gives
 * back a held handler: the one given, or an equal one that another thread was faster to bring. Cannot fail; without
 * memory the handler is merely not kept. */
struct nx_handler *nx_registry_keep(struct nx_registry *registry, struct nx_handler *handler);
/* Drops least recently used handlers that no name refers to, until `bytes` are freed or none is left. Returns what
 * was dropped; memory that a running execution still holds is freed when it ends. */
size_t nx_registry_drop_cold(struct nx_registry *registry, size_t bytes);
/* The same for those that nobody has asked for since the call before this one. */
size_t nx_registry_drop_unused(struct nx_registry *registry);

struct nx_registry_stats {
  size_t registered;       /* names */
  size_t registered_bytes; /* handlers that names refer to, each counted once */
  size_t cached;           /* other handlers kept */
  size_t cached_bytes;
  uint64_t hits, misses;   /* of nx_registry_find */
};
void nx_registry_read_stats(struct nx_registry *registry, struct nx_registry_stats *out);
/* registered_bytes + cached_bytes, without a lock. */
size_t nx_registry_bytes(const struct nx_registry *registry);

#endif
