/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/content_map.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define FIRST_BUCKETS 64u /* a power of two */

bool nx__content_map_init(struct nx__content_map *map) {
  *map = (struct nx__content_map){._bucket_count = FIRST_BUCKETS};
  map->_buckets = calloc(FIRST_BUCKETS, sizeof(struct nx__content *));
  randombytes_buf(map->_key, sizeof map->_key);
  return map->_buckets != NULL;
}

void nx__content_map_deinit(struct nx__content_map *map) {
  free(map->_buckets);
  *map = (struct nx__content_map){0};
}

static struct nx__content **bucket_of(const struct nx__content_map *map, const uint8_t *hash) {
  static_assert(crypto_shorthash_KEYBYTES == sizeof map->_key, "SipHash key");
  uint64_t value;
  crypto_shorthash((unsigned char *)&value, hash, NX_HASH_BYTES, map->_key);
  return &map->_buckets[value & (map->_bucket_count - 1)];
}

struct nx__content *nx__content_find(const struct nx__content_map *map, const uint8_t hash[NX_HASH_BYTES]) {
  struct nx__content *node = *bucket_of(map, hash);
  while (node && memcmp(node->hash, hash, NX_HASH_BYTES)) node = node->_chain;
  return node;
}

static void push(struct nx__content_map *map, struct nx__content *node) {
  struct nx__content **bucket = bucket_of(map, node->hash);
  node->_chain = *bucket;
  *bucket = node;
}

static void grow(struct nx__content_map *map) {
  struct nx__content **old = map->_buckets;
  size_t old_count = map->_bucket_count;
  struct nx__content **buckets = calloc(2 * old_count, sizeof *buckets);
  if (!buckets) return; /* harmless: chains get longer */
  map->_buckets = buckets;
  map->_bucket_count = 2 * old_count;
  for (size_t i = 0; i < old_count; i++) {
    for (struct nx__content *node = old[i], *next; node; node = next) {
      next = node->_chain;
      push(map, node);
    }
  }
  free(old);
}

void nx__content_insert(struct nx__content_map *map, struct nx__content *node) {
  if (map->count >= map->_bucket_count) grow(map);
  node->_newer = node->_older = NULL;
  node->_ordered = false;
  push(map, node);
  map->count++;
}

void nx__content_pin(struct nx__content_map *map, struct nx__content *node) {
  if (!node->_ordered) return;
  *(node->_newer ? &node->_newer->_older : &map->newest) = node->_older;
  *(node->_older ? &node->_older->_newer : &map->oldest) = node->_newer;
  node->_newer = node->_older = NULL;
  node->_ordered = false;
}

void nx__content_touch(struct nx__content_map *map, struct nx__content *node) {
  if (map->newest == node) return;
  nx__content_pin(map, node);
  node->_older = map->newest;
  *(map->newest ? &map->newest->_newer : &map->oldest) = node;
  map->newest = node;
  node->_ordered = true;
}

void nx__content_remove(struct nx__content_map *map, struct nx__content *node) {
  nx__content_pin(map, node);
  struct nx__content **link = bucket_of(map, node->hash);
  while (*link != node) link = &(*link)->_chain;
  *link = node->_chain;
  map->count--;
}
