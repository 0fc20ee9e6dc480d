/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to the store in a directory (store_file.c has the layout and the rules):
 *
 *   store_file.c         opening, and items
 *   store_file_kept.c    one kept file: its format, its locks, its replacement
 *   store_file_shared.c  sources and handlers
 *   store_file_pass.c    what is over or due: the pass over everything
 *   store_file_wakes.c   the nearest wake times, in memory */
#ifndef NX_SUSPEND_STORE_FILE_INTERNAL_H
#define NX_SUSPEND_STORE_FILE_INTERNAL_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "suspend/store.h"

/* ---- Kept files -------------------------------------------------------------------------------------------------- */

/* Names are hex digits of an id or a hash, or a handler's name; none begins with a dot. */
#define NX__ITEM_NAME_BYTES (2 * NX_SUSPENSION_ID_BYTES + 1)
#define NX__SOURCE_NAME_BYTES (2 * NX_HASH_BYTES + 1)

/* Where files of one kind are. */
struct nx__kept_dir {
  int fd;
  const char *magic;
};

/* What a file begins with; little-endian as every machine nexus is built for. What a kind has no use for is 0. */
struct nx__kept_header {
  char magic[8];
  uint32_t header_bytes;
  uint32_t state;                     /* item: enum nx_stored_state */
  uint64_t expires_ms;                /* item, source */
  uint64_t wake_ms;                   /* item */
  uint64_t version;                   /* handler */
  uint64_t body_bytes;
  uint8_t source_name[NX_HASH_BYTES]; /* item, handler */
  uint8_t body_hash[NX_HASH_BYTES];
  uint8_t checksum[NX_HASH_BYTES];    /* of the file's name and the header up to here */
};

/* An open one. */
struct nx__kept {
  int fd;
  struct nx__kept_header header;
};
void nx__kept_close(struct nx__kept *kept);
#define NX__KEPT_AUTO __attribute__((cleanup(nx__kept_close))) struct nx__kept

/* Opens for reading only. NX_ERR_NOT_FOUND; NX_ERR_INVALID when the header is damaged. */
int nx__kept_open(const struct nx__kept_dir *dir, const char *name, struct nx__kept *out, struct nx_error *err);
/* Opens, and holds the change lock until nx__kept_close: what has the name stays this very file meanwhile.
 * NX_ERR_INVALID fills `out` as well, with the lock on the damaged file, unless it is no file at all (fd < 0). */
int nx__kept_take(const struct nx__kept_dir *dir, const char *name, struct nx__kept *out, struct nx_error *err);
/* Appends the body to `out`; on failure `out` is as it was. */
int nx__kept_read_body(const struct nx__kept *kept, struct nx_buf *out, struct nx_error *err);

/* Writes a temporary file for `name` with the facts of `header` (state to body_bytes, and source_name). */
int nx__kept_write_temp(const struct nx__kept_dir *dir, const char *name, struct nx__kept_header header,
                        const void *body, char temp[NX_FS_TEMP_BYTES], struct nx_error *err);
/* Gives it the name; flags as for nx_fs_publish. NX_ERR_CONFLICT with NX_FS_NEW, when there is one already. */
int nx__kept_publish(const struct nx__kept_dir *dir, const char *temp, const char *name, unsigned flags,
                     struct nx_error *err);
/* Both. */
int nx__kept_put(const struct nx__kept_dir *dir, const char *name, struct nx__kept_header header, const void *body,
                 unsigned flags, struct nx_error *err);

/* The change lock of a file that is open for writing, and whether the name is still that file's; waits for a moment. */
int nx__kept_lock(int fd, struct nx_error *err);
void nx__kept_unlock(int fd);
bool nx__kept_has_name(const struct nx__kept_dir *dir, const char *name, int fd);

/* The lease, until `until_ms`; false when another one has it. Who has it already changes its end. */
bool nx__kept_lease(int fd, uint64_t until_ms);
/* When the lease that another one has ends; 0: nobody has it; UINT64_MAX: cannot be asked. */
uint64_t nx__kept_leased_until_ms(int fd);

/* When a pass must open the file: see time_to_show in store_file_kept.c. */
uint64_t nx__next_look_ms(const struct stat *st);
/* Versions of handlers are nanoseconds that fit into a file's time. */
static inline struct timespec nx__time_of_version(uint64_t version) {
  return (struct timespec){.tv_sec = (time_t)(version / NX_NS_PER_S), .tv_nsec = (long)(version % NX_NS_PER_S)};
}
bool nx__looks_waiting(const struct stat *st);

/* NX_ERR_UNAVAILABLE from an error of the system: what failed, and what to do. */
int nx__store_unavailable(struct nx_error *err, const struct nx_error *cause);
int nx__store_unavailable_errno(struct nx_error *err, const char *what);

/* ---- Wake times -------------------------------------------------------------------------------------------------- */

/* The nearest ones are enough: a pass finds the others in time. */
#define NX__WAKES_MAX 16384u

struct nx__wake {
  uint64_t at_ms;
  struct nx_suspension_id id;
};

struct nx__wakes {
  pthread_mutex_t mutex;
  struct nx__wake *sorted; /* ascending, by time and then id; NX__WAKES_MAX of them have room */
  size_t count;
};

int nx__wakes_init(struct nx__wakes *wakes, struct nx_error *err);
void nx__wakes_deinit(struct nx__wakes *wakes);
void nx__wakes_add(struct nx__wakes *wakes, struct nx__wake wake);
void nx__wakes_remove(struct nx__wakes *wakes, struct nx__wake wake);
/* The first one after `after` that is not later than `now_ms`. */
bool nx__wakes_next(struct nx__wakes *wakes, struct nx__wake after, uint64_t now_ms, struct nx__wake *out);

/* ---- The store --------------------------------------------------------------------------------------------------- */

enum nx__pass_stage { NX__PASS_HANDLERS, NX__PASS_SOURCES, NX__PASS_ITEMS, NX__PASS_STAGES };

struct nx__pass {
  pthread_mutex_t mutex;
  enum nx__pass_stage stage;
  DIR *entries;            /* of the stage; NULL: it begins */
  uint64_t began_ms;
  bool sources_are_marked; /* every handler's source was kept for longer in this pass */
  uint64_t last_step_ns;   /* monotonic */
  struct nx_store_stats seen;
};

struct nx__file_store {
  struct nx_store store; /* first */
  struct nx__kept_dir items, sources, handlers;
  struct nx__wakes wakes;
  struct nx__wake due_after; /* where the next report begins; Synchronization: pass.mutex */
  struct nx__pass pass;
  _Atomic uint64_t waiting, foreign, bytes; /* as the last pass saw them */
  _Atomic bool is_counted;
};

void nx__item_name(char name[NX__ITEM_NAME_BYTES], const struct nx_suspension_id *id);

/* Sources and handlers: members of nx_store_ops. */
int nx__file_keep_source(struct nx_store *store, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                         uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err);
int nx__file_load_source(struct nx_store *store, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out,
                         struct nx_error *err);
int nx__file_put_handler(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                         uint64_t expected, struct nx_error *err);
int nx__file_get_handler(struct nx_store *store, const char *name, struct nx_stored_handler *out,
                         struct nx_error *err);
int nx__file_remove_handler(struct nx_store *store, const char *name, uint64_t expected, struct nx_error *err);
int nx__file_list_handlers(struct nx_store *store, nx_visit_handler_fn *visit, void *self, struct nx_error *err);
uint64_t nx__file_handlers_version(struct nx_store *store);

/* Keeps a source that is there at least until `until_ms`; NX_ERR_NOT_FOUND. */
int nx__file_source_keep(struct nx__file_store *file, const uint8_t hash[NX_HASH_BYTES], uint64_t until_ms,
                         struct nx_error *err);
/* How long a source that is to be a handler's is kept before a pass must find the handler. */
#define NX__HANDLER_GRACE_MS (UINT64_C(30) * 60 * 1000)

/* The pass: members of nx_store_ops. */
void nx__file_sweep(struct nx_store *store, uint64_t now_ms);
size_t nx__file_due(struct nx_store *store, uint64_t now_ms, struct nx_suspension_id *ids, size_t max);

#endif
