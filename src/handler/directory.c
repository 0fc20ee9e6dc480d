/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread that watches: events make the directory dirty, and a dirty directory is looked at once it has been quiet
 * for a while, or after MAX_DELAY_MS when it never is. */
#include "handler/directory.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "handler/directory_scan.h"

#define DEBOUNCE_MS 100u
#define RESCAN_MS 30000u
#define MAX_DELAY_MS 1000u
#define MAX_SWAPS 5 /* looks in a row when the directory is swapped under each of them */

#define DIR_EVENTS \
  (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)
#define PARENT_EVENTS (IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE)

struct nx_directory {
  struct nx_directory_opts opts;
  struct nx__dir_scan scan;
  pthread_t thread;
  int stop_fd;         /* eventfd */
  _Atomic bool stop;
  int inotify_fd;      /* -1: none to be had */
  int dir_watch, parent_watch;
  char *path, *parent; /* own copies */
  const char *name;    /* last component, in `path` */
};

/* ---- Watching --------------------------------------------------------------------------------------------------- */

/* A path that names another directory now gets another watch; the old one would report what no longer matters. */
static void rewatch(const struct nx_directory *directory, int *watch, const char *path, uint32_t events) {
  int now = inotify_add_watch(directory->inotify_fd, path, events | IN_ONLYDIR | IN_EXCL_UNLINK);
  if (*watch >= 0 && *watch != now) inotify_rm_watch(directory->inotify_fd, *watch);
  *watch = now;
}

static void rewatch_all(struct nx_directory *directory) {
  if (directory->inotify_fd < 0) return;
  rewatch(directory, &directory->dir_watch, directory->path, DIR_EVENTS);
  if (directory->parent) rewatch(directory, &directory->parent_watch, directory->parent, PARENT_EVENTS);
}

/* Other things happen in the parent as well. */
static bool matters(const struct nx_directory *directory, const struct inotify_event *event) {
  if (event->mask & IN_Q_OVERFLOW) return true;
  if (event->wd == directory->dir_watch) return true;
  return event->wd == directory->parent_watch && event->len && !strcmp(event->name, directory->name);
}

/* Reads all events; true when one of them matters. */
static bool drain(const struct nx_directory *directory) {
  char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
  bool result = false;
  for (;;) {
    ssize_t n = read(directory->inotify_fd, events, sizeof events);
    if (n <= 0) return result;
    for (char *at = events; at < events + n;) {
      const struct inotify_event *event = (const struct inotify_event *)(void *)at;
      result |= matters(directory, event);
      at += sizeof *event + event->len;
    }
  }
}

/* Watches first, so that what changes during the look is seen. */
static int look(struct nx_directory *directory, struct nx_error *err) {
  bool again = true;
  int status = 0;
  for (int i = 0; i < MAX_SWAPS && again && !status; i++) {
    rewatch_all(directory);
    status = nx__dir_scan_run(&directory->scan, &again, err);
  }
  return status;
}

static void look_again(struct nx_directory *directory) {
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

/* ---- Thread ----------------------------------------------------------------------------------------------------- */

static int wait_ms(uint64_t now, uint64_t until) {
  uint64_t ms = until > now ? (until - now + NX_NS_PER_MS - 1) / NX_NS_PER_MS : 0;
  return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void *run(void *opaque) {
  struct nx_directory *directory = opaque;
  const uint64_t debounce = directory->opts.debounce_ms * NX_NS_PER_MS;
  const uint64_t rescan = directory->opts.rescan_ms * NX_NS_PER_MS;
  uint64_t next = nx_clock_ns() + rescan, dirty_since = 0;
  while (!atomic_load(&directory->stop)) {
    struct pollfd fds[2] = {{.fd = directory->stop_fd, .events = POLLIN},
                            {.fd = directory->inotify_fd, .events = POLLIN}};
    poll(fds, 2, wait_ms(nx_clock_ns(), next));
    uint64_t now = nx_clock_ns();
    if (fds[1].revents && drain(directory)) {
      if (!dirty_since) dirty_since = now;
      uint64_t quiet = now + debounce, latest = dirty_since + MAX_DELAY_MS * NX_NS_PER_MS;
      next = quiet < latest ? quiet : latest;
    }
    if (now < next || atomic_load(&directory->stop)) continue;
    look_again(directory);
    dirty_since = 0;
    next = nx_clock_ns() + rescan;
  }
  return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static bool start_thread(struct nx_directory *directory) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  int error = directory->opts.stack_bytes ? pthread_attr_setstacksize(&attributes, directory->opts.stack_bytes) : 0;
  if (!error) error = pthread_create(&directory->thread, &attributes, run, directory);
  pthread_attr_destroy(&attributes);
  if (!error) pthread_setname_np(directory->thread, "nx-directory");
  errno = error;
  return !error;
}

/* Trailing slashes are taken off; "/" itself has no parent to watch. */
static bool split_path(struct nx_directory *directory, const char *path) {
  directory->path = strdup(path);
  if (!directory->path) return false;
  size_t n = strlen(directory->path);
  while (n > 1 && directory->path[n - 1] == '/') directory->path[--n] = '\0';
  const char *slash = strrchr(directory->path, '/');
  directory->name = slash ? slash + 1 : directory->path;
  if (!*directory->name) return true;
  size_t parent = slash ? (size_t)(slash - directory->path) : 0;
  directory->parent = slash ? strndup(directory->path, parent ? parent : 1) : strdup(".");
  return directory->parent != NULL;
}

static void destroy(struct nx_directory *directory) {
  nx__dir_scan_deinit(&directory->scan);
  nx_fs_close(&directory->inotify_fd);
  nx_fs_close(&directory->stop_fd);
  free(directory->parent);
  free(directory->path);
  free(directory);
}

static struct nx_directory *allocate(const struct nx_directory_opts *opts) {
  struct nx_directory *directory = calloc(1, sizeof *directory);
  if (!directory) return NULL;
  directory->stop_fd = directory->inotify_fd = directory->dir_watch = directory->parent_watch = -1;
  directory->opts = *opts;
  if (!opts->debounce_ms) directory->opts.debounce_ms = DEBOUNCE_MS;
  if (!opts->rescan_ms) directory->opts.rescan_ms = RESCAN_MS;
  directory->scan.opts = &directory->opts;
  directory->scan.stop = &directory->stop;
  if (split_path(directory, opts->path)) {
    directory->opts.path = directory->path;
    return directory;
  }
  destroy(directory);
  return NULL;
}

int nx_directory_create(struct nx_directory **out, const struct nx_directory_opts *opts, struct nx_error *err) {
  struct nx_directory *directory = allocate(opts);
  if (!directory) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to watch HANDLERS_DIR");
  int status;
  directory->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (directory->stop_fd < 0) {
    status = nx_error_sys(err, "HANDLERS_DIR: cannot create an eventfd");
    goto fail;
  }
  directory->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (directory->inotify_fd < 0)
    nx_log(NX_LOG_WARN, "no inotify: changes in HANDLERS_DIR are seen late", "reason", strerrordesc_np(errno), NULL);
  struct nx_error fault = {0};
  if (look(directory, &fault)) {
    status = nx_error_set(err, NX_ERR_CONFIG, "HANDLERS_DIR '%s': %s", opts->path, fault.text);
    goto fail;
  }
  if (!start_thread(directory)) {
    status = nx_error_sys(err, "HANDLERS_DIR: cannot start a thread");
    goto fail;
  }
  *out = directory;
  return 0;

fail:
  destroy(directory);
  return status;
}

void nx_directory_destroy(struct nx_directory *directory) {
  if (!directory) return;
  atomic_store(&directory->stop, true);
  eventfd_write(directory->stop_fd, 1);
  pthread_join(directory->thread, NULL);
  destroy(directory);
}

void nx_directory_read_stats(const struct nx_directory *directory, struct nx_directory_stats *out) {
  out->in_service = atomic_load(&directory->scan.in_service);
  out->refused = atomic_load(&directory->scan.refused);
}
