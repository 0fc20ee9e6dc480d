/* SPDX-License-Identifier: Apache-2.0
 *
 * Things found by a key of fixed size.
 * Ownership: nodes are embedded in the caller's things, as their first member, with the key right behind. The caller
 *            allocates and frees the array of buckets, because it pays for it; a table works without any.
 * Threads:   none of its own: the caller's lock covers it. */
#ifndef NX_BASE_TABLE_H
#define NX_BASE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct nx_node {
  struct nx_node *chain;
};

struct nx_table {
  struct nx_node *only;     /* the bucket of a table without an array */
  struct nx_node **buckets; /* NULL: none yet */
  size_t bucket_count;       /* of the array, a power of two; 0 without */
  size_t count, key_bytes;
  const uint8_t *secret;     /* NX_TABLE_SECRET_BYTES; nobody may choose keys that fall into one bucket; borrowed */
};
#define NX_TABLE_SECRET_BYTES 16u

struct nx_node *nx_table_find(const struct nx_table *table, const void *key);
void nx_table_insert(struct nx_table *table, struct nx_node *node);
void nx_table_remove(struct nx_table *table, struct nx_node *node);
/* `new` has the key of `old`, and takes its place. */
void nx_table_exchange(struct nx_table *table, const struct nx_node *old, struct nx_node *new);
/* How many buckets would suit it: as many as it has, twice, or half as many; none when it is empty. A bucket has
 * between a half and two nodes. */
size_t nx_table_suitable(const struct nx_table *table);
/* Moves all nodes into the buckets given, which are empty. Returns the array that it had, or NULL. */
struct nx_node **nx_table_rehash(struct nx_table *table, struct nx_node **buckets, size_t bucket_count);

#endif
