/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to handler/: things found by a 32-byte hash and kept in order of use, as the registry and the disk cache
 * both need them.
 * Ownership: the map owns its buckets only; nodes are embedded in the caller's things, as their first member.
 * Threads:   none of its own: the caller's lock covers a map and its nodes.
 * Limits:    buckets follow the number of nodes; when they cannot grow, chains do. */
#ifndef NX_HANDLER_CONTENT_MAP_H
#define NX_HANDLER_CONTENT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

struct nx__content {
  uint8_t hash[NX_HASH_BYTES];
  struct nx__content *_chain;
  struct nx__content *_newer, *_older; /* neighbours in order of use; both NULL when it is not in that order */
  bool _ordered;
};

struct nx__content_map {
  struct nx__content **_buckets;
  size_t _bucket_count, count;
  struct nx__content *newest, *oldest;
  uint8_t _key[16]; /* so that nobody can choose content that falls into one bucket */
};

bool nx__content_map_init(struct nx__content_map *map); /* false: no memory */
void nx__content_map_deinit(struct nx__content_map *map);

struct nx__content *nx__content_find(const struct nx__content_map *map, const uint8_t hash[NX_HASH_BYTES]);
/* `node->hash` is set and not in the map. The node starts out of the order. */
void nx__content_insert(struct nx__content_map *map, struct nx__content *node);
void nx__content_remove(struct nx__content_map *map, struct nx__content *node);

/* Makes it the most recently used one. */
void nx__content_touch(struct nx__content_map *map, struct nx__content *node);
/* Takes it out of the order: it is not a candidate for eviction. */
void nx__content_pin(struct nx__content_map *map, struct nx__content *node);

#endif
