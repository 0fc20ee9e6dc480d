/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to the compile cache: opening a directory that can be trusted (cache_dir.c) and the format of a file
 * (cache_file.c). */
#ifndef NX_HANDLER_CACHE_INTERNAL_H
#define NX_HANDLER_CACHE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/error.h"
#include "image/image.h"

/* A directory at `path` that nobody else can write to: `path` itself, or a private subdirectory of it. Returns a
 * descriptor owned by the caller or a negative code. */
int nx__cache_dir_open(const char *path, struct nx_error *err);

#define NX__CACHE_FORMAT 1u
#define NX__CACHE_KEY_BYTES NX_HASH_BYTES
#define NX__CACHE_NAME_BYTES (2 * NX__CACHE_KEY_BYTES + sizeof ".nxi")
/* No image comes near; a larger file is not ours, and is not read into memory. */
#define NX__CACHE_MAX_FILE ((uint64_t)1 << 30)

void nx__cache_key(uint8_t key[NX__CACHE_KEY_BYTES], const uint8_t source_hash[NX_HASH_BYTES],
                   const struct nx_image *base, const char *guest_id);
void nx__cache_name(char name[NX__CACHE_NAME_BYTES], const uint8_t key[NX__CACHE_KEY_BYTES]);
/* False when `name` is not one that nx__cache_name makes. */
bool nx__cache_name_parse(uint8_t key[NX__CACHE_KEY_BYTES], const char *name);
/* Is `name` that of a temporary file which nx_fs_write_atomic makes? */
bool nx__cache_is_temp(const char *name);

/* NULL, or why the file cannot be one of ours. */
const char *nx__cache_stat_fault(const struct stat *st);

/* The whole file, header and image. Check `failed`. */
void nx__cache_file_encode(struct nx_buf *out, const uint8_t key[NX__CACHE_KEY_BYTES], const struct nx_image *image);
/* The bytes are treated as hostile. NX_ERR_INVALID condemns the file, any other error says nothing about it. */
int nx__cache_file_decode(struct nx_image **out, const uint8_t key[NX__CACHE_KEY_BYTES], struct nx_image *base,
                          struct nx_account *account, struct nx_image_source source, struct nx_error *err);

#endif
