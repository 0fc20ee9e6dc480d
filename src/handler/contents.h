/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to handler/: the compiled handlers a registry knows, by the hash of their source. Those that names refer to
 * are pinned; the others are kept in order of use within two bounds.
 * Threads:   any. Synchronization: own mutex, innermost; handlers are freed outside of it. */
#ifndef NX_HANDLER_CONTENTS_H
#define NX_HANDLER_CONTENTS_H

#include <pthread.h>

#include "handler/content_map.h"
#include "handler/handler.h"
#include "handler/registry.h"

struct nx__contents {
  pthread_mutex_t _lock;
  struct nx__content_map _map;
  size_t _max_bytes, _max_count;
  size_t _cached;
  uint64_t _hits, _misses;
  uint64_t _period; /* how often the unused were dropped */
  /* Written under the lock, read without it by nx_registry_bytes. */
  _Atomic size_t pinned_bytes, cached_bytes;
};

bool nx__contents_init(struct nx__contents *contents, size_t max_bytes, size_t max_count);
void nx__contents_deinit(struct nx__contents *contents);

struct nx_handler *nx__contents_find(struct nx__contents *contents, const uint8_t hash[NX_HASH_BYTES]);
struct nx_handler *nx__contents_keep(struct nx__contents *contents, struct nx_handler *handler);
/* One more name refers to this content. Returns the handler to use for it, held, or NULL without memory. */
struct nx_handler *nx__contents_pin(struct nx__contents *contents, struct nx_handler *handler);
/* One name less; the content stays as the most recently used. */
void nx__contents_unpin(struct nx__contents *contents, const uint8_t hash[NX_HASH_BYTES]);
size_t nx__contents_drop(struct nx__contents *contents, size_t bytes);
size_t nx__contents_drop_unused(struct nx__contents *contents);
/* Fills all but `registered`. */
void nx__contents_read_stats(struct nx__contents *contents, struct nx_registry_stats *out);

#endif
