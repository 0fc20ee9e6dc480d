/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to suspend/: things found by a key of fixed size.
 * Ownership: nodes are embedded in the caller's things, as their first member, with the key right behind. The caller
 *            allocates and frees the array of buckets, because it pays for it; a table works without any.
 * Threads:   none of its own: the caller's lock covers it. */
#ifndef NX_SUSPEND_TABLE_H
#define NX_SUSPEND_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct nx__node {
  struct nx__node *chain;
};

struct nx__table {
  struct nx__node *only;     /* the bucket of a table without an array */
  struct nx__node **buckets; /* NULL: none yet */
  size_t bucket_count;       /* of the array, a power of two; 0 without */
  size_t count, key_bytes;
  const uint8_t *secret;     /* NX__TABLE_SECRET_BYTES; nobody may choose keys that fall into one bucket; borrowed */
};
#define NX__TABLE_SECRET_BYTES 16u

struct nx__node *nx__table_find(const struct nx__table *table, const void *key);
void nx__table_insert(struct nx__table *table, struct nx__node *node);
void nx__table_remove(struct nx__table *table, struct nx__node *node);
/* `new` has the key of `old`, and takes its place. */
void nx__table_exchange(struct nx__table *table, const struct nx__node *old, struct nx__node *new);
/* How many buckets would suit it: as many as it has, twice, or half as many; none when it is empty. A bucket has
 * between a half and two nodes. */
size_t nx__table_suitable(const struct nx__table *table);
/* Moves all nodes into the buckets given, which are empty. Returns the array that it had, or NULL. */
struct nx__node **nx__table_rehash(struct nx__table *table, struct nx__node **buckets, size_t bucket_count);

#endif
