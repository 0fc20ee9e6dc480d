/* SPDX-License-Identifier: Apache-2.0
 *
 * The compile cache on disk: images of handlers, so that a restarted process need not compile them again.
 *
 * One file per image, HEX.nxi, where HEX is the BLAKE2b of source hash, base image, guest id and format. Files are
 * published by temporary file, fsync, rename, fsync of the directory; what a crash leaves behind never loads. An image
 * becomes a guest's memory, so only files that our uid alone could have written are read, and every byte of them is
 * under a checksum. The checksum finds damage, not forgery: the directory's ownership keeps forgers out (cache_dir.c).
 *
 * Never fatal: a directory that cannot be trusted or used disables the cache with a logged reason; a file that fails
 * its check is deleted, logged and counted, and the caller compiles; a store that fails is logged at most once a
 * minute. A NULL cache is a disabled one and is allowed everywhere.
 * One process owns a directory at a time (flock). Another one that finds it owned only reads, until it is free.
 * Ownership: the cache holds the base image.
 * Threads:   any. Synchronization: internal mutex, not held while files are read or written.
 * Limits:    files and what else lies in the directory keep within max_bytes, counted as a tmpfs does: whole pages. */
#ifndef NX_HANDLER_CACHE_H
#define NX_HANDLER_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/image.h"

struct nx_cache;

struct nx_cache_opts {
  const char *dir;        /* borrowed for the call; created 0700 if absent (its parent must exist) */
  uint64_t max_bytes;     /* 0: disabled */
  struct nx_image *base;  /* borrowed; held by the cache */
  const char *guest_id;   /* borrowed for the call */
  struct nx_account *account; /* borrowed; charged for images; NULL: nobody */
};

/* Trims the directory to max_bytes before anything else. NULL: disabled, and the log says why. */
struct nx_cache *nx_cache_open(const struct nx_cache_opts *opts);
void nx_cache_close(struct nx_cache *cache);

/* The image of the source with this hash; the caller owns it. NULL: a miss. */
struct nx_image *nx_cache_load(struct nx_cache *cache, const uint8_t source_hash[NX_HASH_BYTES]);
/* Stores a delta over the base image; true when it is on disk. Waits for the disk (fsync twice): not for the way of a
 * request. */
bool nx_cache_store(struct nx_cache *cache, const uint8_t source_hash[NX_HASH_BYTES], const struct nx_image *image);
/* Deletes least recently used files until they take `keep_bytes` at most. Returns the bytes freed. */
uint64_t nx_cache_trim(struct nx_cache *cache, uint64_t keep_bytes);

struct nx_cache_stats {
  bool enabled, owner;     /* owner: stores are possible */
  uint64_t hits, misses;
  uint64_t rejected;       /* files that failed their check; each is a miss too */
  uint64_t store_failures;
  uint64_t evictions;
  uint64_t files, bytes;   /* ours, on disk now */
  uint64_t foreign_bytes;  /* what else lay in the directory when it was opened */
  uint64_t max_bytes;
};
void nx_cache_read_stats(struct nx_cache *cache, struct nx_cache_stats *out);

#endif
