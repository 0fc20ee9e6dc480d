/* SPDX-License-Identifier: Apache-2.0 */
#include "base/table.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#define FEWEST_BUCKETS 8u

static const uint8_t *key_of(const struct nx_node *node) { return (const uint8_t *)(node + 1); }

/* The link to the first node of the key's bucket. */
static struct nx_node **bucket_of(const struct nx_table *table, const uint8_t *key) {
  static_assert(crypto_shorthash_KEYBYTES == NX_TABLE_SECRET_BYTES, "SipHash key");
  uint64_t value;
  if (!table->buckets) return (struct nx_node **)&table->only;
  crypto_shorthash((unsigned char *)&value, key, table->key_bytes, table->secret);
  return &table->buckets[value & (table->bucket_count - 1)];
}

struct nx_node *nx_table_find(const struct nx_table *table, const void *key) {
  struct nx_node *node = *bucket_of(table, key);
  while (node && memcmp(key_of(node), key, table->key_bytes)) node = node->chain;
  return node;
}

static void push(struct nx_table *table, struct nx_node *node) {
  struct nx_node **bucket = bucket_of(table, key_of(node));
  node->chain = *bucket;
  *bucket = node;
}

void nx_table_insert(struct nx_table *table, struct nx_node *node) {
  push(table, node);
  table->count++;
}

static struct nx_node **link_to(struct nx_table *table, const struct nx_node *node) {
  struct nx_node **link = bucket_of(table, key_of(node));
  while (*link != node) link = &(*link)->chain;
  return link;
}

void nx_table_remove(struct nx_table *table, struct nx_node *node) {
  *link_to(table, node) = node->chain;
  table->count--;
}

void nx_table_exchange(struct nx_table *table, const struct nx_node *old, struct nx_node *new) {
  *link_to(table, old) = new;
  new->chain = old->chain;
}

size_t nx_table_suitable(const struct nx_table *table) {
  size_t buckets = table->bucket_count;
  if (!table->count) return 0;
  if (table->count > 2 * buckets) return buckets ? 2 * buckets : FEWEST_BUCKETS;
  if (table->count < buckets / 2 && buckets > FEWEST_BUCKETS) return buckets / 2;
  return buckets;
}

/* Takes the nodes of a bucket one by one. */
static void move_chain(struct nx_table *table, struct nx_node *node) {
  for (struct nx_node *next; node; node = next) {
    next = node->chain;
    push(table, node);
  }
}

struct nx_node **nx_table_rehash(struct nx_table *table, struct nx_node **buckets, size_t bucket_count) {
  struct nx_table old = *table;
  table->buckets = buckets;
  table->bucket_count = bucket_count;
  table->only = NULL;
  move_chain(table, old.only);
  for (size_t i = 0; i < old.bucket_count; i++) move_chain(table, old.buckets[i]);
  return old.buckets;
}
