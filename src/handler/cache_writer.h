/* SPDX-License-Identifier: Apache-2.0
 *
 * Stores images in the compile cache behind the requests' back: a store waits for the disk, a request must not.
 * Ownership: holds the images that wait. Borrows the cache.
 * Threads:   put and pending from any; one thread of its own writes, from the first put on.
 * Limits:    NX_CACHE_WRITER_QUEUE images of NX_CACHE_WRITER_BYTES in all wait; one more is not stored, which only costs a compile after a restart. */
#ifndef NX_HANDLER_CACHE_WRITER_H
#define NX_HANDLER_CACHE_WRITER_H

#include "handler/cache.h"

#define NX_CACHE_WRITER_QUEUE 64u
#define NX_CACHE_WRITER_BYTES (16u << 20)

struct nx_cache_writer;

/* `cache` NULL: *out is NULL, which is allowed everywhere. */
int nx_cache_writer_create(struct nx_cache_writer **out, struct nx_cache *cache, struct nx_error *err);
void nx_cache_writer_put(struct nx_cache_writer *writer, const uint8_t source_hash[NX_HASH_BYTES],
                         struct nx_image *image);
/* Images that are not on the disk yet. */
unsigned nx_cache_writer_pending(struct nx_cache_writer *writer);
/* Stores what is pending first, which takes as long as the disk takes. */
void nx_cache_writer_destroy(struct nx_cache_writer *writer);

#endif
