/* SPDX-License-Identifier: Apache-2.0 */
#include "access/access.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/watch.h"

struct nx_access {
  pthread_rwlock_t lock;
  struct nx_tokens *tokens; /* Synchronization: lock */
  _Atomic bool is_stale;
  struct nx_watch *watch;
  char *path; /* own copy */
  /* Of the watching thread: what was seen last. */
  uint8_t digest[crypto_generichash_BYTES];
  char trouble[sizeof((struct nx_error *)NULL)->text]; /* empty: none */
};

/* ---- One look ------------------------------------------------------------------------------------------------------- */

static void put_into_force(struct nx_access *access, struct nx_tokens *tokens) {
  pthread_rwlock_wrlock(&access->lock);
  struct nx_tokens *before = access->tokens;
  access->tokens = tokens;
  pthread_rwlock_unlock(&access->lock);
  nx_tokens_destroy(before);
  char count[12];
  snprintf(count, sizeof count, "%zu", nx_tokens_count(tokens));
  nx_log(NX_LOG_INFO, "access tokens loaded", "count", count, NULL);
}

/* The same content as before is no news, unless it was wrong meanwhile. */
static bool is_news(struct nx_access *access, const struct nx_buf *text) {
  uint8_t digest[sizeof access->digest];
  crypto_generichash(digest, sizeof digest, (const uint8_t *)text->data, text->len, NULL, 0);
  bool is_same = access->tokens && !access->trouble[0] && !memcmp(digest, access->digest, sizeof digest);
  memcpy(access->digest, digest, sizeof digest);
  return !is_same;
}

static int look(struct nx_access *access, struct nx_error *err) {
  NX_BUF_AUTO text = {0};
  struct nx_tokens *tokens;
  nx_watch_renew(access->watch); /* first, so that what changes during the look is seen */
  int status = nx_fs_read_file(access->path, NX_TOKENS_MAX_BYTES, &text, err);
  if (status || !is_news(access, &text)) return status;
  status = nx_tokens_parse(&tokens, text.data, text.len, err);
  if (!status) put_into_force(access, tokens);
  return status;
}

static void look_again(void *self) {
  struct nx_access *access = self;
  struct nx_error err = {0};
  bool failed = look(access, &err) != 0;
  if (failed && strcmp(access->trouble, err.text))
    nx_log(NX_LOG_ERROR, "AUTH_TOKENS_FILE cannot be used, the tokens of before stay in force", "file", access->path,
           "reason", err.text, NULL);
  memcpy(access->trouble, err.text, sizeof access->trouble);
  atomic_store(&access->is_stale, failed);
}

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

/* Of the file's directory: the file itself may be exchanged. */
static int create_watch(struct nx_access *access, const struct nx_access_opts *opts, struct nx_error *err) {
  const char *slash = strrchr(opts->path, '/');
  size_t bytes = slash == opts->path ? 1 : slash ? (size_t)(slash - opts->path) : 0;
  char *directory = slash ? strndup(opts->path, bytes) : strdup(".");
  if (!directory) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to watch AUTH_TOKENS_FILE");
  const struct nx_watch_opts watch = {
    .setting = "AUTH_TOKENS_FILE",
    .path = directory,
    .thread = "nx-access",
    .debounce_ms = opts->debounce_ms,
    .rescan_ms = opts->rescan_ms,
    .self = access,
    .look = look_again,
  };
  int status = nx_watch_create(&access->watch, &watch, err);
  free(directory);
  return status;
}

/* Requests never cease: new tokens must not wait until they do. */
static void init_lock(pthread_rwlock_t *lock) {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);
}

int nx_access_create(struct nx_access **out, const struct nx_access_opts *opts, struct nx_error *err) {
  struct nx_access *access = calloc(1, sizeof *access);
  if (!access) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the access tokens");
  init_lock(&access->lock);
  access->path = strdup(opts->path);
  int status = access->path ? create_watch(access, opts, err)
                            : nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the access tokens");
  struct nx_error fault = {0};
  if (!status && look(access, &fault))
    status = nx_error_set(err, NX_ERR_CONFIG, "AUTH_TOKENS_FILE '%.100s': %s", opts->path, fault.text);
  if (!status) status = nx_watch_start(access->watch, err);
  if (status) {
    nx_access_destroy(access);
    return status;
  }
  *out = access;
  return 0;
}

void nx_access_destroy(struct nx_access *access) {
  if (!access) return;
  nx_watch_destroy(access->watch);
  nx_tokens_destroy(access->tokens);
  pthread_rwlock_destroy(&access->lock);
  free(access->path);
  free(access);
}

/* ---- Asking --------------------------------------------------------------------------------------------------------- */

bool nx_access_find(struct nx_access *access, const char *token, size_t bytes, struct nx_grantee *out) {
  pthread_rwlock_rdlock(&access->lock);
  bool found = nx_tokens_find(access->tokens, token, bytes, out);
  pthread_rwlock_unlock(&access->lock);
  return found;
}

bool nx_access_is_stale(const struct nx_access *access) { return atomic_load(&access->is_stale); }
