/* SPDX-License-Identifier: Apache-2.0
 *
 * AUTH_TOKENS_FILE, followed while the server runs: who shows a token that is in the file now may do what it says.
 *
 * The file is read again when something in its directory has changed (base/watch.h: also links that are swapped, as in
 * the volume of a Kubernetes Secret), and put into force as a whole. One that is missing, unreadable or wrong is logged,
 * once as long as the reason stays the same, and the tokens of before stay in force.
 *
 * Ownership: the access owns its thread; create and destroy belong to one thread.
 * Threads:   find and is_stale: any, while others use it too.
 * Limits:    those of access/tokens.h. */
#ifndef NX_ACCESS_ACCESS_H
#define NX_ACCESS_ACCESS_H

#include "access/tokens.h"

struct nx_access;

struct nx_access_opts {
  const char *path;      /* borrowed for the call */
  uint32_t debounce_ms;  /* as for nx_watch_create */
  uint32_t rescan_ms;
};

/* NX_ERR_CONFIG naming AUTH_TOKENS_FILE and the line when there are no tokens to begin with. */
int nx_access_create(struct nx_access **out, const struct nx_access_opts *opts, struct nx_error *err);
/* NULL is allowed. */
void nx_access_destroy(struct nx_access *access);

/* False when there is no such token. */
bool nx_access_find(struct nx_access *access, const char *token, size_t bytes, struct nx_grantee *out);
/* The file cannot be used as it is, and tokens of before are in force. */
bool nx_access_is_stale(const struct nx_access *access);

#endif
