/* SPDX-License-Identifier: Apache-2.0
 *
 * Where suspended executions are kept: one interface, four stores (SUSPEND_STORE).
 *
 *   memory       this process; gone when it ends
 *   file:DIR     a directory, which several processes may share; survives kill -9 at any moment
 *   redis://…    any replica resumes what any other suspended
 *   sealed       nothing is kept: the caller carries the bytes (suspend/sealed.h); it has no struct nx_store
 *
 * A store knows bytes, not executions. Its items are opaque (suspend/record.h makes them; suspend/seal.h seals them
 * before they leave the process), each under a random id, with what the store itself needs: state, expiry, wake time.
 *
 *                create              commit(FINISHED)
 *      (none) ──────────▶ WAITING ──────────────────▶ FINISHED ──── expires ──▶ (none)
 *                          │  ▲ lease … commit(WAITING), or release
 *                          └──┴─── cancel ─▶ CANCELLED ──────────── expires ──▶ (none)
 *
 * Who resumes holds the lease meanwhile: one at a time, over all processes. It ends with commit or release, with the
 * process that holds it, or when lease_ms have passed. What expires meanwhile stays until then.
 *
 * Beside the items a store keeps handlers' sources, once each, as long as something refers to them, and (file and redis)
 * the handlers that were set by PUT, by name. These, too, are opaque, sealed before they leave the process, and a
 * source's name is not its hash (suspend/kept_handlers.h).
 *
 * Ownership: the caller owns the store and every nx_buf it passes; bytes given in are copied.
 * Threads:   any, at once. A store with `blocks` waits for a disk or a network (bounded: seconds): it must be called on a
 *            thread that may wait.
 * Errors:    NX_ERR_NOT_FOUND    there is no such item
 *            NX_ERR_GONE         finished, cancelled or expired (the item may still be read until its expiry)
 *            NX_ERR_BUSY         another one holds the lease
 *            NX_ERR_CONFLICT     create: the id is in use (ids are random: a store need not look)
 *            NX_ERR_OVERLOADED   full: `refused` is filled
 *            NX_ERR_TOO_LARGE    the item has more than NX_STORE_ITEM_MAX_BYTES (redis: 512 MiB)
 *            NX_ERR_NO_MEMORY    the caller's buffer could not grow: nothing happened
 *            NX_ERR_UNAVAILABLE  the disk or the network fails; the text says which and what to do
 *            NX_ERR_INVALID      what is kept there is damaged or not ours */
#ifndef NX_SUSPEND_STORE_H
#define NX_SUSPEND_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/account.h"
#include "base/buf.h"
#include "base/error.h"
#include "config/config.h"
#include "image/image.h"
#include "memory/governor.h"

#define NX_SUSPENSION_ID_BYTES 16u /* random but for the prefix */
#define NX_SUSPENSION_PREFIX_BYTES 2u
#define NX_STORE_ITEM_MAX_BYTES (1100u << 20)
/* All times are milliseconds since 1970 on the host's clock, because several hosts may share a store. */

struct nx_suspension_id {
  uint8_t bytes[NX_SUSPENSION_ID_BYTES];
};

/* What ids of one guest begin with (see docs/suspend.md, Upgrades): what another guest suspended is seen from the id. */
struct nx_suspension_prefix {
  uint8_t bytes[NX_SUSPENSION_PREFIX_BYTES];
  bool is_set; /* false: every id is ours */
};

enum nx_stored_state { NX_STORED_WAITING, NX_STORED_FINISHED, NX_STORED_CANCELLED };

struct nx_store_item {
  enum nx_stored_state state;
  uint64_t expires_ms;
  uint64_t wake_ms;    /* when it goes on by itself (a timer); 0: only when it is resumed */
  uint8_t source_name[NX_HASH_BYTES]; /* of its handler; the store keeps that source as long as the item */
  const uint8_t *bytes; /* borrowed */
  size_t size;
};

/* What a store gives back; zero-initialise with the account that pays for `bytes`. */
struct nx_stored {
  enum nx_stored_state state;
  uint64_t expires_ms, wake_ms;
  struct nx_buf bytes;
};

struct nx_store_lease {
  struct nx_suspension_id id;
  uint64_t token;    /* the store's */
  void *handle;      /* the store's */
};

struct nx_store_stats {
  uint64_t waiting;  /* of this process's memory for `memory`, of the whole store for the others, as far as is known */
  uint64_t foreign;  /* those of them whose id does not begin with our prefix */
  uint64_t bytes;
  bool is_counted;   /* false: the store was not looked at yet */
};

/* A handler set by PUT, as other replicas must see it. */
struct nx_stored_handler {
  uint8_t source_name[NX_HASH_BYTES];
  struct nx_buf bytes;
  uint64_t version;     /* the store's: changes with every change; never one of the two below */
};

/* Instead of a version: what a change expects to find. What is damaged counts as none. */
#define NX_HANDLER_NONE UINT64_C(0)
#define NX_HANDLER_ANY UINT64_MAX

/* The version as get_handler would give it; what is damaged may show only there. */
typedef void nx_visit_handler_fn(void *self, const char *name, uint64_t version);

struct nx_store;

struct nx_store_ops {
  const char *name; /* "memory", "file", "redis" */
  bool blocks;
  bool shares_handlers; /* put_handler and its like are there */

  int (*create)(struct nx_store *store, const struct nx_suspension_id *id, const struct nx_store_item *item,
                struct nx_refusal *refused, struct nx_error *err);
  /* The item's bytes are appended to out->bytes; NX_ERR_GONE fills `out` too. */
  int (*lease)(struct nx_store *store, const struct nx_suspension_id *id, uint64_t lease_ms, struct nx_stored *out,
               struct nx_store_lease *lease, struct nx_error *err);
  /* The lease shall last for so long from now on. NX_ERR_GONE: it was lost, or the item cancelled. */
  int (*extend)(struct nx_store *store, struct nx_store_lease *lease, uint64_t lease_ms, struct nx_error *err);
  /* Replaces the item and ends the lease, unless it fails with OVERLOADED or UNAVAILABLE: then release. NX_ERR_GONE as for extend. */
  int (*commit)(struct nx_store *store, struct nx_store_lease *lease, const struct nx_store_item *item,
                struct nx_refusal *refused, struct nx_error *err);
  /* Nothing happened. */
  void (*release)(struct nx_store *store, struct nx_store_lease *lease);
  /* Without a lease, in any state. NX_ERR_NOT_FOUND also when it has expired. */
  int (*read)(struct nx_store *store, const struct nx_suspension_id *id, struct nx_stored *out, struct nx_error *err);
  /* NX_ERR_GONE when it is not WAITING. Who holds the lease finds out at commit. */
  int (*cancel)(struct nx_store *store, const struct nx_suspension_id *id, struct nx_error *err);
  /* Items whose wake_ms has passed and that nobody holds, oldest first; returns how many, at most `max`. An item may be
   * reported again until it is leased. In a store that several processes share the next call goes on after `max` items, and
   * begins anew when there were fewer: those that nobody here can resume must not hide the others. */
  size_t (*due)(struct nx_store *store, uint64_t now_ms, struct nx_suspension_id *ids, size_t max);
  /* Deletes what has expired, and sources that nothing refers to; about once a second. */
  void (*sweep)(struct nx_store *store, uint64_t now_ms);

  /* Before the first item that refers to it, and again for each. Without a source (NULL) only if it is there, which is
   * cheap, else NX_ERR_NOT_FOUND; with one it is that from now on. Never for a shorter time than before. */
  int (*keep_source)(struct nx_store *store, const uint8_t name[NX_HASH_BYTES], const char *source, size_t bytes,
                     uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err);
  int (*load_source)(struct nx_store *store, const uint8_t name[NX_HASH_BYTES], struct nx_buf *out, struct nx_error *err);

  /* ---- Handlers over replicas; NULL without shares_handlers. The source was given to keep_source with UINT64_MAX.
   * A change happens only if the name has the version `expected` at that moment; else NX_ERR_CONFLICT. */
  int (*put_handler)(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                     uint64_t expected, struct nx_error *err);
  /* NX_ERR_NOT_FOUND. */
  int (*get_handler)(struct nx_store *store, const char *name, struct nx_stored_handler *out, struct nx_error *err);
  int (*remove_handler)(struct nx_store *store, const char *name, uint64_t expected, struct nx_error *err);
  int (*list_handlers)(struct nx_store *store, nx_visit_handler_fn *visit, void *self, struct nx_error *err);
  /* A number that changes when any handler has changed, by whatever replica; cheap enough to ask before each request
   * (no network, at most one system call). 0: changes are not seen at the moment, and anything may have changed. */
  uint64_t (*handlers_version)(struct nx_store *store);

  void (*read_stats)(struct nx_store *store, struct nx_store_stats *out);
  void (*close)(struct nx_store *store);
};

/* The first member of every store. */
struct nx_store {
  const struct nx_store_ops *ops;
  struct nx_suspension_prefix own; /* set by who opened the store, before anything else */
};

static inline bool nx_store_owns(const struct nx_store *store, const struct nx_suspension_id *id) {
  return !store->own.is_set || !memcmp(id->bytes, store->own.bytes, NX_SUSPENSION_PREFIX_BYTES);
}

struct nx_store_options {
  uint64_t max_bytes;           /* memory only: SUSPEND_MAX_MB */
  struct nx_account *account;   /* memory only: layer suspended */
  struct nx_governor *governor; /* memory only: for the figures of a refusal */
};

int nx_store_open_memory(struct nx_store **out, const struct nx_store_options *options, struct nx_error *err);
/* The directory is made when it is missing. */
int nx_store_open_file(struct nx_store **out, const char *directory, struct nx_error *err);
/* Does not fail when there is no server yet: it connects when it is used, and again after it lost it. */
int nx_store_open_redis(struct nx_store **out, const struct nx_suspend_store *address, struct nx_error *err);

#endif
