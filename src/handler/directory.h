/* SPDX-License-Identifier: Apache-2.0
 *
 * HANDLERS_DIR: handlers that come from files. Every NAME.js, with NAME.grants.json beside it or not, is loaded at the
 * start and again whenever the content of either changes; a handler goes when its file does.
 *
 * A pair is refused as a whole: when the source does not compile, the grants do not parse, or a file is unreadable,
 * too large or badly named, that is logged once per content and what was in service before stays (grants that do not
 * parse must not leave a handler without grants). Other files and names that begin with '.' are ignored.
 * Changes are seen as base/watch.h says. A directory that vanishes later is logged; its handlers stay.
 *
 * Ownership: the directory owns its thread; create and destroy belong to one thread.
 * Threads:   `apply` and `remove` are called by the creating thread during create, later by the own thread.
 * Limits:    NX_DIRECTORY_MAX_FILES names; max_source_bytes per source; NX_GRANTS_MAX_BYTES per grants. */
#ifndef NX_HANDLER_DIRECTORY_H
#define NX_HANDLER_DIRECTORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "handler/grants.h"

#define NX_DIRECTORY_MAX_FILES 20000u

struct nx_directory;

struct nx_directory_opts {
  const char *path;         /* borrowed for the call */
  size_t max_source_bytes;  /* MAX_BODY_KB */
  uint32_t debounce_ms;     /* 0: 100 */
  uint32_t rescan_ms;       /* 0: 30000 */
  void *opaque;
  /* Compiles and registers, replacing what is there; all arguments are borrowed (hold the grants; NULL: none). After
   * NX_ERR_UNPROCESSABLE or NX_ERR_INVALID the same content is not tried again, after any other error it is at the
   * next look. */
  int (*apply)(void *opaque, const char *name, const char *source, size_t bytes, struct nx_grants *grants,
               struct nx_error *err);
  /* The file of a handler that `apply` accepted is gone. */
  void (*remove)(void *opaque, const char *name);
};

/* Loads all files, then starts watching. NX_ERR_CONFIG naming HANDLERS_DIR when the directory cannot be read; a
 * handler that cannot be loaded is no error. */
int nx_directory_create(struct nx_directory **out, const struct nx_directory_opts *opts, struct nx_error *err);
/* Waits for a call of `apply` that is under way. NULL is allowed. */
void nx_directory_destroy(struct nx_directory *directory);

struct nx_directory_stats {
  uint32_t in_service; /* handlers whose files were accepted, in this version or an earlier one */
  uint32_t refused;    /* files that are refused now */
};
/* Any thread. */
void nx_directory_read_stats(const struct nx_directory *directory, struct nx_directory_stats *out);

#endif
