/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to the handlers directory: one look at it, and what is remembered from one look to the next.
 * Threads:   one at a time, but for the two counters. */
#ifndef NX_HANDLER_DIRECTORY_SCAN_H
#define NX_HANDLER_DIRECTORY_SCAN_H

#include <stdatomic.h>
#include <stdbool.h>

#include "handler/directory.h"
#include "image/image.h"

/* A file NAME.js (with its grants), or a NAME.grants.json that stands alone. */
struct nx__dir_item {
  uint8_t digest[NX_HASH_BYTES]; /* of the content last handled, or of the problem last logged */
  bool in_service;
  bool refused;
  char file[];
};

struct nx__dir_items {
  struct nx__dir_item **items; /* sorted by file */
  size_t count, capacity;
};

struct nx__dir_scan {
  const struct nx_directory_opts *opts;
  struct nx__dir_items known;
  bool unreadable;                  /* the last look found no directory, and that is logged */
  const _Atomic bool *stop;         /* leaves a look early */
  _Atomic uint32_t in_service, refused;
};

/* Loads, replaces and removes what changed. NX_ERR_SYSTEM when the directory cannot be read; nothing has then
 * changed. `again`: the directory was swapped meanwhile, so look again at once. */
int nx__dir_scan_run(struct nx__dir_scan *scan, bool *again, struct nx_error *err);
void nx__dir_scan_deinit(struct nx__dir_scan *scan);

#endif
