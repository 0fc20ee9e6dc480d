/* SPDX-License-Identifier: Apache-2.0
 *
 * Events make the directory dirty, and a dirty directory is looked at once it has been quiet for a while, or after
 * MAX_DELAY_MS when it never is. */
#include "base/watch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/thread.h"

#define DEBOUNCE_MS 100u
#define RESCAN_MS 30000u
#define MAX_DELAY_MS 1000u

#define DIR_EVENTS \
  (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)
#define PARENT_EVENTS (IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE)

struct nx_watch {
  struct nx_watch_opts opts;
  pthread_t thread;
  bool is_started;
  int stop_fd;         /* eventfd */
  _Atomic bool stop;
  int inotify_fd;      /* -1: none to be had */
  int dir_watch, parent_watch;
  char *path, *parent; /* own copies */
  const char *name;    /* last component, in `path` */
};

/* ---- Watching --------------------------------------------------------------------------------------------------- */

/* A path that names another directory now gets another watch; the old one would report what no longer matters. The
 * parent may be the directory itself ("/", ".", a link to where it lies), which has one watch then, for the events of both. */
static void rewatch(const struct nx_watch *watch, int *descriptor, const char *path, uint32_t events) {
  int now = inotify_add_watch(watch->inotify_fd, path, events | IN_ONLYDIR | IN_EXCL_UNLINK | IN_MASK_ADD);
  if (*descriptor >= 0 && *descriptor != now) inotify_rm_watch(watch->inotify_fd, *descriptor);
  *descriptor = now;
}

void nx_watch_renew(struct nx_watch *watch) {
  if (watch->inotify_fd < 0) return;
  rewatch(watch, &watch->dir_watch, watch->path, DIR_EVENTS);
  rewatch(watch, &watch->parent_watch, watch->parent, PARENT_EVENTS);
}

/* Other things happen in the parent as well. */
static bool matters(const struct nx_watch *watch, const struct inotify_event *event) {
  if (event->mask & IN_Q_OVERFLOW) return true;
  if (event->wd == watch->dir_watch) return true;
  return event->wd == watch->parent_watch && event->len && !strcmp(event->name, watch->name);
}

/* Reads all events; true when one of them matters. */
static bool drain(const struct nx_watch *watch) {
  char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
  bool result = false;
  for (;;) {
    ssize_t n = read(watch->inotify_fd, events, sizeof events);
    if (n <= 0) return result;
    for (char *at = events; at < events + n;) {
      const struct inotify_event *event = (const struct inotify_event *)(void *)at;
      result |= matters(watch, event);
      at += sizeof *event + event->len;
    }
  }
}

/* ---- Thread ----------------------------------------------------------------------------------------------------- */

static int wait_ms(uint64_t now, uint64_t until) {
  uint64_t ms = until > now ? (until - now + NX_NS_PER_MS - 1) / NX_NS_PER_MS : 0;
  return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void *run(void *opaque) {
  struct nx_watch *watch = opaque;
  const uint64_t debounce = watch->opts.debounce_ms * NX_NS_PER_MS;
  const uint64_t rescan = watch->opts.rescan_ms * NX_NS_PER_MS;
  uint64_t next = nx_clock_ns() + rescan, dirty_since = 0;
  while (!atomic_load(&watch->stop)) {
    struct pollfd fds[2] = {{.fd = watch->stop_fd, .events = POLLIN}, {.fd = watch->inotify_fd, .events = POLLIN}};
    poll(fds, 2, wait_ms(nx_clock_ns(), next));
    uint64_t now = nx_clock_ns();
    if (fds[1].revents && drain(watch)) {
      if (!dirty_since) dirty_since = now;
      uint64_t quiet = now + debounce, latest = dirty_since + MAX_DELAY_MS * NX_NS_PER_MS;
      next = quiet < latest ? quiet : latest;
    }
    if (now < next || atomic_load(&watch->stop)) continue;
    watch->opts.look(watch->opts.self);
    dirty_since = 0;
    next = nx_clock_ns() + rescan;
  }
  return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

int nx_watch_start(struct nx_watch *watch, struct nx_error *err) {
  int status = nx_thread_start(&watch->thread, watch->opts.thread, run, watch, err);
  if (status) return nx_error_wrap(err, "%s", watch->opts.setting);
  watch->is_started = true;
  return 0;
}

/* Trailing slashes are taken off. */
static bool split_path(struct nx_watch *watch, const char *path) {
  watch->path = strdup(path);
  if (!watch->path) return false;
  size_t n = strlen(watch->path);
  while (n > 1 && watch->path[n - 1] == '/') watch->path[--n] = '\0';
  const char *slash = strrchr(watch->path, '/');
  watch->name = slash ? slash + 1 : watch->path;
  size_t parent = slash ? (size_t)(slash - watch->path) : 0;
  watch->parent = slash ? strndup(watch->path, parent ? parent : 1) : strdup(".");
  return watch->parent != NULL;
}

int nx_watch_create(struct nx_watch **out, const struct nx_watch_opts *opts, struct nx_error *err) {
  struct nx_watch *watch = calloc(1, sizeof *watch);
  if (!watch) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to watch %s", opts->setting);
  watch->stop_fd = watch->inotify_fd = watch->dir_watch = watch->parent_watch = -1;
  watch->opts = *opts;
  watch->opts.path = NULL;
  if (!opts->debounce_ms) watch->opts.debounce_ms = DEBOUNCE_MS;
  if (!opts->rescan_ms) watch->opts.rescan_ms = RESCAN_MS;
  if (!split_path(watch, opts->path)) {
    nx_watch_destroy(watch);
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to watch %s", opts->setting);
  }
  watch->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (watch->stop_fd < 0) {
    int status = nx_error_sys(err, "%s: cannot create an eventfd", opts->setting);
    nx_watch_destroy(watch);
    return status;
  }
  watch->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watch->inotify_fd < 0)
    nx_log(NX_LOG_WARN, "no inotify: changes are seen late", "of", opts->setting, "reason", strerrordesc_np(errno), NULL);
  *out = watch;
  return 0;
}

const _Atomic bool *nx_watch_is_ending(const struct nx_watch *watch) { return &watch->stop; }

void nx_watch_destroy(struct nx_watch *watch) {
  if (!watch) return;
  if (watch->is_started) {
    atomic_store(&watch->stop, true);
    eventfd_write(watch->stop_fd, 1);
    pthread_join(watch->thread, NULL);
  }
  nx_fs_close(&watch->inotify_fd);
  nx_fs_close(&watch->stop_fd);
  free(watch->parent);
  free(watch->path);
  free(watch);
}
