/* SPDX-License-Identifier: Apache-2.0
 *
 * Whom a cache directory may be shared with: nobody.
 *
 * A directory of our own that only we can write to is used as it is. One that others can write to as well (a tmpfs
 * emptyDir of Kubernetes is root's with mode 0777 or 2777; /tmp) gets a private subdirectory, made 0700 and checked
 * like any other: who can write to the parent can move it away or put something in its place, but cannot make a
 * directory that is ours, nor get at what is inside. A directory of another user who is not root is refused, not
 * because it could be abused but because it is a mistake somewhere. Symbolic links are refused in both places: in a
 * shared parent they could lead us to delete files elsewhere. All later work goes through the descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "handler/cache_internal.h"

/* What stat shows in a user namespace for owners that it does not map: root of a container's host, usually. */
#define OVERFLOW_UID 65534u

static int open_dir(int at, const char *name) {
  return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Access control lists need no look of their own: their mask shows as the group's bits. */
static bool is_private(const struct stat *st) {
  return st->st_uid == geteuid() && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

static int not_a_directory(struct nx_error *err, const char *what) {
  if (errno == ELOOP || errno == ENOTDIR)
    return nx_error_set(err, NX_ERR_SYSTEM, "%s is a symbolic link or not a directory", what);
  return nx_error_sys(err, "cannot open %s", what);
}

static int open_private(int parent, const char *path, struct nx_error *err) {
  char name[32];
  snprintf(name, sizeof name, "nexus-%u", (unsigned)geteuid());
  if (mkdirat(parent, name, 0700) && errno != EEXIST)
    return nx_error_sys(err, "%s is shared with others and %s cannot be made in it", path, name);
  NX_FD_AUTO fd = open_dir(parent, name);
  if (fd < 0) return not_a_directory(err, name);
  struct stat st;
  if (fstat(fd, &st)) return nx_error_sys(err, "cannot read %s", name);
  if (!is_private(&st))
    return nx_error_set(err, NX_ERR_SYSTEM, "%s in it is not ours alone (owner %u, mode %04o)", name,
                        (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
  int result = fd;
  fd = -1;
  return result;
}

int nx__cache_dir_open(const char *path, struct nx_error *err) {
  int status = nx_fs_mkdirs(path, 0700, err);
  if (status) return status;
  NX_FD_AUTO fd = open_dir(AT_FDCWD, path);
  if (fd < 0) return not_a_directory(err, "it");
  struct stat st;
  if (fstat(fd, &st)) return nx_error_sys(err, "cannot read it");
  if (is_private(&st)) {
    int result = fd;
    fd = -1;
    return result;
  }
  if (st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != OVERFLOW_UID)
    return nx_error_set(err, NX_ERR_SYSTEM, "it belongs to uid %u and we are uid %u", (unsigned)st.st_uid,
                        (unsigned)geteuid());
  return open_private(fd, path, err);
}
