/* SPDX-License-Identifier: Apache-2.0
 *
 * An image: a state of the guest's linear memory and globals, as a sparse delta of 4 KiB pages over another image.
 *
 * The base image (the engine after boot) stands alone: a sealed memfd that every instance maps copy-on-write. A
 * handler image holds the pages that compiling the handler changed in it. Everything in an image is the work of a
 * hostile guest: it is only ever copied back into a sandbox.
 *
 * Ownership: images are immutable and reference-counted (nx_image_hold, nx_image_release). A delta holds its parent.
 * Threads:   any.
 * Errors:    creation may fail for lack of memory (NX_ERR_NO_MEMORY), also of the account's; reading cannot. */
#ifndef NX_IMAGE_IMAGE_H
#define NX_IMAGE_IMAGE_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/account.h"
#include "base/buf.h"
#include "base/error.h"

#define NX_PAGE_BYTES 4096u
#define NX_HASH_BYTES 32u

/* Mutable WebAssembly globals of the guest, all of them; the build fails when the guest has others. */
struct nx_guest_globals {
  uint32_t stack_pointer;
};

struct nx_image {
  _Atomic uint32_t _refs;
  struct nx_image *parent;         /* NULL for the base image */
  uint8_t hash[NX_HASH_BYTES];     /* BLAKE2b of memory size, globals and content; of a delta, parent's hash included */
  uint32_t memory_bytes;           /* size of linear memory, a multiple of the WebAssembly page */
  struct nx_guest_globals globals;
  int memfd;                       /* base only: sealed, memory_bytes long; -1 in a delta */
  const uint8_t *base;             /* base only: read-only mapping of memfd */
  uint32_t page_count;             /* delta only: pages that differ from the parent … */
  const uint32_t *page_index;      /* … ascending, in units of NX_PAGE_BYTES … */
  const uint8_t *pages;            /* … and their content, NX_PAGE_BYTES each, in the same order */
  _Atomic int _packed_fd;          /* delta only: nx_image_packed_fd + 1; 0: not made yet */
  struct nx_account *account;      /* delta only: charged for it */
};

/* Copies `memory` into a sealed memfd. */
int nx_image_create_base(struct nx_image **out, const uint8_t *memory, uint32_t memory_bytes,
                         struct nx_guest_globals globals, struct nx_error *err);

/* The same from the form that is linked into the binary (sandbox/boot_image.c): the pages that are not zero, in order,
 * and their ascending indices. `hash` is the one that create_base gave the image when that was made. */
struct nx_base_pages {
  const uint32_t *index;
  const uint8_t *pages;
  uint32_t count;
  uint32_t memory_bytes;
  struct nx_guest_globals globals;
  const uint8_t *hash;
};
int nx_image_create_base_from_pages(struct nx_image **out, const struct nx_base_pages *from, struct nx_error *err);

/* A delta over `parent`: keeps those of the `candidate` pages (ascending) that really differ from it. `account` may be
 * NULL. */
int nx_image_create_delta(struct nx_image **out, struct nx_image *parent, struct nx_account *account,
                          const uint8_t *memory, uint32_t memory_bytes, const uint32_t *candidates,
                          uint32_t candidate_count, struct nx_guest_globals globals, struct nx_error *err);

struct nx_image *nx_image_hold(struct nx_image *image);
void nx_image_release(struct nx_image *image); /* NULL is allowed */

/* The content of a page as the image shows it: own page, the parent's, or zeroes past the parent's end. */
const uint8_t *nx_image_page(const struct nx_image *image, uint32_t index);
/* A sealed memfd that holds the delta's own pages in order, for mapping a handler that is used a lot; made on first use
 * and kept. Negative when there is none to be had: too many (NX_IMAGE_PACKED_MAX), no memory, no descriptors. */
#define NX_IMAGE_PACKED_MAX 64
int nx_image_packed_fd(struct nx_image *image);

/* How many of the ascending page indices lie side by side from the first on; at least 1. */
static inline uint32_t nx_page_run(const uint32_t *index, uint32_t count) {
  uint32_t run = 1;
  while (run < count && index[run] == index[0] + run) run++;
  return run;
}

/* Memory that a delta takes. */
size_t nx_image_bytes(const struct nx_image *image);

/* Bytes in order, as from a file: `read` fills all of `to` or fails. */
struct nx_image_source {
  int (*read)(void *self, void *to, size_t bytes, struct nx_error *err);
  void *self;
  size_t bytes; /* that are left */
};

/* A delta as bytes and back, for the compile cache. Decoding treats the bytes as hostile: every count and offset is
 * checked, the hash is recomputed, the parent must be the one the delta was made over. They are read to where they
 * stay, without a copy between. Errors: NX_ERR_INVALID, NX_ERR_NO_MEMORY, or what reading them ended with. */
void nx_image_encode(const struct nx_image *image, struct nx_buf *out);
int nx_image_decode(struct nx_image **out, struct nx_image *parent, struct nx_account *account,
                    struct nx_image_source source, struct nx_error *err);

#endif
