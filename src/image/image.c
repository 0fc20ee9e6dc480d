/* SPDX-License-Identifier: Apache-2.0 */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sodium.h>

static const uint8_t zero_page[NX_PAGE_BYTES];

/* ---- Hash ----------------------------------------------------------------------------------------------------- */

static void hash_begin(crypto_generichash_state *state, const struct nx_image *image) {
  crypto_generichash_init(state, NULL, 0, NX_HASH_BYTES);
  if (image->parent) crypto_generichash_update(state, image->parent->hash, NX_HASH_BYTES);
  crypto_generichash_update(state, (const uint8_t *)&image->memory_bytes, sizeof image->memory_bytes);
  crypto_generichash_update(state, (const uint8_t *)&image->globals, sizeof image->globals);
}

static void hash_page(crypto_generichash_state *state, uint32_t index, const uint8_t *page) {
  crypto_generichash_update(state, (const uint8_t *)&index, sizeof index);
  crypto_generichash_update(state, page, NX_PAGE_BYTES);
}

static void hash_delta(const struct nx_image *image, uint8_t hash[NX_HASH_BYTES]) {
  crypto_generichash_state state;
  hash_begin(&state, image);
  for (uint32_t i = 0; i < image->page_count; i++)
    hash_page(&state, image->page_index[i], image->pages + (size_t)i * NX_PAGE_BYTES);
  crypto_generichash_final(&state, hash, NX_HASH_BYTES);
}

/* ---- Base ------------------------------------------------------------------------------------------------------- */

static int write_page(int fd, uint32_t index, const uint8_t *page, struct nx_error *err) {
  if (pwrite(fd, page, NX_PAGE_BYTES, (off_t)index * NX_PAGE_BYTES) == NX_PAGE_BYTES) return 0;
  return nx_error_sys(err, "cannot write the base image");
}

static int open_base(struct nx_image *image, struct nx_error *err) {
  image->memfd = memfd_create("nexus-base-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (image->memfd < 0) return nx_error_sys(err, "cannot create a memfd for the base image");
  if (ftruncate(image->memfd, image->memory_bytes)) return nx_error_sys(err, "cannot size the base image");
  return 0;
}

static int seal_base(struct nx_image *image, struct nx_error *err) {
  if (fcntl(image->memfd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
    return nx_error_sys(err, "cannot seal the base image");
  void *map = mmap(NULL, image->memory_bytes, PROT_READ, MAP_SHARED, image->memfd, 0);
  if (map == MAP_FAILED) return nx_error_sys(err, "cannot map the base image");
  image->base = map;
  return 0;
}

static struct nx_image *allocate_base(uint32_t memory_bytes, struct nx_guest_globals globals, struct nx_error *err) {
  struct nx_image *image = calloc(1, sizeof *image);
  if (!image) {
    nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the base image");
    return NULL;
  }
  image->_refs = 1;
  image->memfd = -1;
  image->memory_bytes = memory_bytes;
  image->globals = globals;
  return image;
}

/* Pages of zeroes are left as holes: they take no memory until an instance reads them. */
static int write_sparse(struct nx_image *image, const uint8_t *memory, struct nx_error *err) {
  crypto_generichash_state state;
  hash_begin(&state, image);
  for (uint32_t i = 0; i < image->memory_bytes / NX_PAGE_BYTES; i++) {
    const uint8_t *page = memory + (size_t)i * NX_PAGE_BYTES;
    if (!memcmp(page, zero_page, NX_PAGE_BYTES)) continue;
    int status = write_page(image->memfd, i, page, err);
    if (status) return status;
    hash_page(&state, i, page);
  }
  crypto_generichash_final(&state, image->hash, NX_HASH_BYTES);
  return 0;
}

int nx_image_create_base(struct nx_image **out, const uint8_t *memory, uint32_t memory_bytes,
                         struct nx_guest_globals globals, struct nx_error *err) {
  struct nx_image *image = allocate_base(memory_bytes, globals, err);
  if (!image) return -NX_ERR_NO_MEMORY;
  int status = open_base(image, err);
  if (!status) status = write_sparse(image, memory, err);
  if (!status) status = seal_base(image, err);
  if (status) {
    nx_image_release(image);
    return status;
  }
  *out = image;
  return 0;
}

/* One write for each run of adjacent pages. */
static int write_runs(int fd, const struct nx_base_pages *from, struct nx_error *err) {
  for (uint32_t i = 0, run; i < from->count; i += run) {
    run = nx_page_run(from->index + i, from->count - i);
    ssize_t bytes = (ssize_t)run * NX_PAGE_BYTES;
    const uint8_t *pages = from->pages + (size_t)i * NX_PAGE_BYTES;
    if (pwrite(fd, pages, (size_t)bytes, (off_t)from->index[i] * NX_PAGE_BYTES) != bytes)
      return nx_error_sys(err, "cannot write the base image");
  }
  return 0;
}

int nx_image_create_base_from_pages(struct nx_image **out, const struct nx_base_pages *from, struct nx_error *err) {
  struct nx_image *image = allocate_base(from->memory_bytes, from->globals, err);
  if (!image) return -NX_ERR_NO_MEMORY;
  memcpy(image->hash, from->hash, NX_HASH_BYTES);
  int status = open_base(image, err);
  if (!status) status = write_runs(image->memfd, from, err);
  if (!status) status = seal_base(image, err);
  if (status) {
    nx_image_release(image);
    return status;
  }
  *out = image;
  return 0;
}

/* ---- Delta ------------------------------------------------------------------------------------------------------ */

static size_t delta_bytes(uint32_t page_count) {
  return sizeof(struct nx_image) + (size_t)page_count * (sizeof(uint32_t) + NX_PAGE_BYTES);
}

/* A delta and its two arrays are one block. */
static struct nx_image *allocate_delta(struct nx_image *parent, struct nx_account *account, uint32_t page_count) {
  size_t index_bytes = (size_t)page_count * sizeof(uint32_t);
  if (!nx_account_charge(account, delta_bytes(page_count))) return NULL;
  struct nx_image *image = malloc(delta_bytes(page_count));
  if (!image) {
    nx_account_release(account, delta_bytes(page_count));
    return NULL;
  }
  uint8_t *arrays = (uint8_t *)(image + 1);
  *image = (struct nx_image){
    ._refs = 1,
    .parent = nx_image_hold(parent),
    .memfd = -1,
    .page_count = page_count,
    .page_index = (const uint32_t *)arrays,
    .pages = arrays + index_bytes,
    .account = account,
  };
  return image;
}

static const uint8_t *base_page(const struct nx_image *base, uint32_t index) {
  return index < base->memory_bytes / NX_PAGE_BYTES ? base->base + (size_t)index * NX_PAGE_BYTES : zero_page;
}

static bool differs(const struct nx_image *parent, const uint8_t *memory, uint32_t index) {
  return memcmp(memory + (size_t)index * NX_PAGE_BYTES, nx_image_page(parent, index), NX_PAGE_BYTES) != 0;
}

int nx_image_create_delta(struct nx_image **out, struct nx_image *parent, struct nx_account *account,
                          const uint8_t *memory, uint32_t memory_bytes, const uint32_t *candidates,
                          uint32_t candidate_count, struct nx_guest_globals globals, struct nx_error *err) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < candidate_count; i++) count += differs(parent, memory, candidates[i]);
  struct nx_image *image = allocate_delta(parent, account, count);
  if (!image) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for an image of %u pages", count);
  image->memory_bytes = memory_bytes;
  image->globals = globals;
  uint32_t *index = (uint32_t *)(uintptr_t)image->page_index;
  uint8_t *pages = (uint8_t *)(uintptr_t)image->pages;
  uint32_t n = 0;
  for (uint32_t i = 0; i < candidate_count; i++) {
    if (!differs(parent, memory, candidates[i])) continue;
    index[n] = candidates[i];
    memcpy(pages + (size_t)n * NX_PAGE_BYTES, memory + (size_t)candidates[i] * NX_PAGE_BYTES, NX_PAGE_BYTES);
    n++;
  }
  hash_delta(image, image->hash);
  *out = image;
  return 0;
}

static _Atomic int packed_count;

static size_t packed_bytes(const struct nx_image *image) { return (size_t)image->page_count * NX_PAGE_BYTES; }

static int make_packed(const struct nx_image *image) {
  size_t bytes = packed_bytes(image);
  int fd = memfd_create("nexus-handler-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  if (write(fd, image->pages, bytes) == (ssize_t)bytes &&
      !fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
    return fd;
  close(fd);
  return -1;
}

static bool reserve_packed(const struct nx_image *image) {
  if (atomic_fetch_add(&packed_count, 1) < NX_IMAGE_PACKED_MAX && nx_account_charge(image->account, packed_bytes(image)))
    return true;
  atomic_fetch_sub(&packed_count, 1);
  return false;
}

static void unreserve_packed(const struct nx_image *image) {
  nx_account_release(image->account, packed_bytes(image));
  atomic_fetch_sub(&packed_count, 1);
}

int nx_image_packed_fd(struct nx_image *image) {
  int have = atomic_load(&image->_packed_fd);
  if (have) return have - 1;
  if (!image->page_count || !reserve_packed(image)) return -1;
  int fd = make_packed(image);
  if (fd >= 0 && atomic_compare_exchange_strong(&image->_packed_fd, &have, fd + 1)) return fd;
  unreserve_packed(image);
  if (fd >= 0) close(fd); /* another thread was quicker */
  return have - 1;
}

struct nx_image *nx_image_hold(struct nx_image *image) {
  if (image) atomic_fetch_add_explicit(&image->_refs, 1, memory_order_relaxed);
  return image;
}

void nx_image_release(struct nx_image *image) {
  if (!image || atomic_fetch_sub_explicit(&image->_refs, 1, memory_order_acq_rel) != 1) return;
  if (image->base) munmap((void *)(uintptr_t)image->base, image->memory_bytes);
  if (image->memfd >= 0) close(image->memfd);
  if (image->_packed_fd > 0) {
    close(image->_packed_fd - 1);
    unreserve_packed(image);
  }
  if (image->parent) nx_account_release(image->account, delta_bytes(image->page_count));
  nx_image_release(image->parent);
  free(image);
}

const uint8_t *nx_image_page(const struct nx_image *image, uint32_t index) {
  if (!image->parent) return base_page(image, index);
  uint32_t low = 0, high = image->page_count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (image->page_index[middle] < index)
      low = middle + 1;
    else
      high = middle;
  }
  if (low < image->page_count && image->page_index[low] == index) return image->pages + (size_t)low * NX_PAGE_BYTES;
  return nx_image_page(image->parent, index);
}

size_t nx_image_bytes(const struct nx_image *image) {
  if (!image->parent) return sizeof *image;
  bool packed = atomic_load_explicit(&image->_packed_fd, memory_order_relaxed) != 0;
  return delta_bytes(image->page_count) + (packed ? packed_bytes(image) : 0);
}

/* ---- Bytes -------------------------------------------------------------------------------------------------------- */

#define DELTA_MAGIC UINT32_C(0x6c64786e) /* "nxdl" */

/* Little-endian on disk because every machine nexus builds for is; the magic would not match elsewhere. */
struct delta_header {
  uint32_t magic;
  uint32_t memory_bytes;
  uint32_t page_count;
  struct nx_guest_globals globals;
  uint8_t parent[NX_HASH_BYTES];
  uint8_t hash[NX_HASH_BYTES];
};
static_assert(sizeof(struct delta_header) == 16 + 2 * NX_HASH_BYTES, "written to disk");

void nx_image_encode(const struct nx_image *image, struct nx_buf *out) {
  struct delta_header header = {
    .magic = DELTA_MAGIC,
    .memory_bytes = image->memory_bytes,
    .page_count = image->page_count,
    .globals = image->globals,
  };
  memcpy(header.parent, image->parent->hash, NX_HASH_BYTES);
  memcpy(header.hash, image->hash, NX_HASH_BYTES);
  nx_buf_add(out, &header, sizeof header);
  nx_buf_add(out, image->page_index, (size_t)image->page_count * sizeof(uint32_t));
  nx_buf_add(out, image->pages, (size_t)image->page_count * NX_PAGE_BYTES);
}

/* The hash proves the content; these make it safe to compute, and keep a page index inside the window. */
static const char *header_fault(const struct delta_header *header, const struct nx_image *parent, size_t size) {
  if (header->magic != DELTA_MAGIC) return "not an image";
  if (sodium_memcmp(header->parent, parent->hash, NX_HASH_BYTES)) return "made over another base image";
  if (header->memory_bytes < parent->memory_bytes || header->memory_bytes % (16 * NX_PAGE_BYTES))
    return "impossible memory size";
  if (header->globals.stack_pointer > header->memory_bytes) return "impossible stack pointer";
  uint32_t pages = header->memory_bytes / NX_PAGE_BYTES;
  if (header->page_count > pages ||
      size != sizeof *header + (size_t)header->page_count * (sizeof(uint32_t) + NX_PAGE_BYTES))
    return "impossible page count";
  return NULL;
}

static bool ascending_within(const uint32_t *index, uint32_t count, uint32_t end) {
  for (uint32_t i = 0; i < count; i++)
    if (index[i] >= end || (i && index[i] <= index[i - 1])) return false;
  return true;
}

/* All of it, the hash of its content included. */
static bool is_sound(const struct nx_image *image) {
  uint8_t hash[NX_HASH_BYTES];
  if (!ascending_within(image->page_index, image->page_count, image->memory_bytes / NX_PAGE_BYTES)) return false;
  hash_delta(image, hash);
  return !sodium_memcmp(hash, image->hash, NX_HASH_BYTES);
}

int nx_image_decode(struct nx_image **out, struct nx_image *parent, struct nx_account *account,
                    struct nx_image_source source, struct nx_error *err) {
  struct delta_header header;
  if (source.bytes < sizeof header) return nx_error_set(err, NX_ERR_INVALID, "image is cut short");
  int status = source.read(source.self, &header, sizeof header, err);
  if (status) return status;
  const char *fault = header_fault(&header, parent, source.bytes);
  if (fault) return nx_error_set(err, NX_ERR_INVALID, "%s", fault);
  struct nx_image *image = allocate_delta(parent, account, header.page_count);
  if (!image) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for an image of %u pages", header.page_count);
  image->memory_bytes = header.memory_bytes;
  image->globals = header.globals;
  memcpy(image->hash, header.hash, NX_HASH_BYTES);
  /* Index and pages are adjacent in both forms. */
  status = source.read(source.self, (uint32_t *)(uintptr_t)image->page_index, source.bytes - sizeof header, err);
  if (!status && !is_sound(image))
    status = nx_error_set(err, NX_ERR_INVALID, "image content does not match its hash");
  if (status) {
    nx_image_release(image);
    return status;
  }
  *out = image;
  return 0;
}
