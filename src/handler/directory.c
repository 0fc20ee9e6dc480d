/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks at the directory (handler/directory_scan.h) whenever base/watch.h says that something has changed there. */
#include "handler/directory.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/watch.h"
#include "handler/directory_scan.h"

#define MAX_SWAPS 5 /* looks in a row when the directory is swapped under each of them */

struct nx_directory {
  struct nx_directory_opts opts;
  struct nx__dir_scan scan;
  struct nx_watch *watch;
  char *path; /* own copy */
};

/* Watches first, so that what changes during the look is seen. */
static int look(struct nx_directory *directory, struct nx_error *err) {
  bool again = true;
  int status = 0;
  for (int i = 0; i < MAX_SWAPS && again && !status; i++) {
    nx_watch_renew(directory->watch);
    status = nx__dir_scan_run(&directory->scan, &again, err);
  }
  return status;
}

static void look_again(void *self) {
  struct nx_directory *directory = self;
  struct nx_error err = {0};
  bool failed = look(directory, &err) != 0;
  if (failed != directory->scan.unreadable) {
    if (failed)
      nx_log(NX_LOG_WARN, "HANDLERS_DIR cannot be read, its handlers stay", "dir", directory->path, "reason", err.text,
             NULL);
    else
      nx_log(NX_LOG_INFO, "HANDLERS_DIR is readable again", "dir", directory->path, NULL);
  }
  directory->scan.unreadable = failed;
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static int create_watch(struct nx_directory *directory, struct nx_error *err) {
  const struct nx_watch_opts watch = {
    .setting = "HANDLERS_DIR",
    .path = directory->path,
    .thread = "nx-directory",
    .debounce_ms = directory->opts.debounce_ms,
    .rescan_ms = directory->opts.rescan_ms,
    .self = directory,
    .look = look_again,
  };
  int status = nx_watch_create(&directory->watch, &watch, err);
  if (!status) directory->scan.stop = nx_watch_is_ending(directory->watch);
  return status;
}

int nx_directory_create(struct nx_directory **out, const struct nx_directory_opts *opts, struct nx_error *err) {
  struct nx_directory *directory = calloc(1, sizeof *directory);
  char *path = strdup(opts->path);
  if (!directory || !path) {
    free(directory);
    free(path);
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to watch HANDLERS_DIR");
  }
  directory->opts = *opts;
  directory->opts.path = directory->path = path;
  directory->scan.opts = &directory->opts;
  int status = create_watch(directory, err);
  struct nx_error fault = {0};
  if (!status && look(directory, &fault))
    status = nx_error_set(err, NX_ERR_CONFIG, "HANDLERS_DIR '%s': %s", opts->path, fault.text);
  if (!status) status = nx_watch_start(directory->watch, err);
  if (status) {
    nx_directory_destroy(directory);
    return status;
  }
  *out = directory;
  return 0;
}

void nx_directory_destroy(struct nx_directory *directory) {
  if (!directory) return;
  nx_watch_destroy(directory->watch);
  nx__dir_scan_deinit(&directory->scan);
  free(directory->path);
  free(directory);
}

void nx_directory_read_stats(const struct nx_directory *directory, struct nx_directory_stats *out) {
  out->in_service = atomic_load(&directory->scan.in_service);
  out->refused = atomic_load(&directory->scan.refused);
}
