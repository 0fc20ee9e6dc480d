/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fs.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

void nx_fs_close(int *fd) {
  if (*fd < 0) return;
  int saved = errno;
  close(*fd);
  *fd = -1;
  errno = saved;
}

/* Files of /proc have size 0 and are read until the end all the same. */
static int read_to_end(int fd, const char *path, size_t max_bytes, struct nx_buf *out, struct nx_error *err) {
  enum { STEP = 4096 };
  size_t start = out->len;
  for (;;) {
    size_t left = max_bytes - (out->len - start);
    size_t step = left < STEP ? left + 1 : STEP; /* one more than allowed, to see that there is more */
    char *room = nx_buf_reserve(out, step);
    if (!room) return nx_error_set(err, NX_ERR_NO_MEMORY, "%s: no memory to read it", path);
    ssize_t n = read(fd, room, step);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return nx_error_sys(err, "read %s", path);
    if (n == 0) return 0;
    if ((size_t)n > left)
      return nx_error_set(err, NX_ERR_TOO_LARGE, "%s: larger than the %zu bytes allowed", path, max_bytes);
    out->len += (size_t)n;
  }
}

int nx_fs_read_file_at(int dirfd, const char *path, unsigned flags, size_t max_bytes, struct nx_buf *out,
                       struct nx_error *err) {
  int follow = flags & NX_FS_NOFOLLOW ? O_NOFOLLOW : 0;
  NX_FD_AUTO fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | follow);
  if (fd < 0) return nx_error_sys(err, "open %s", path);
  struct stat st;
  if (fstat(fd, &st)) return nx_error_sys(err, "stat %s", path);
  if (!S_ISREG(st.st_mode)) return nx_error_set(err, NX_ERR_INVALID, "%s: not a regular file", path);
  size_t len = out->len;
  bool failed = out->failed;
  size_t starved_bytes = out->starved_bytes;
  int rc = read_to_end(fd, path, max_bytes, out, err);
  if (rc) {
    out->len = len;
    out->failed = failed;
    out->starved_bytes = starved_bytes;
  }
  return rc;
}

int nx_fs_print(FILE *file, const struct nx_buf *text, const char *what, struct nx_error *err) {
  if (text->failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for %s", what);
  if (fwrite(text->data, 1, text->len, file) != text->len || fflush(file)) return nx_error_sys(err, "write %s", what);
  return 0;
}

int nx_fs_read_file(const char *path, size_t max_bytes, struct nx_buf *out, struct nx_error *err) {
  return nx_fs_read_file_at(AT_FDCWD, path, 0, max_bytes, out, err);
}

static int write_all(int fd, const char *data, size_t len) {
  while (len) {
    ssize_t n = write(fd, data, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    data += n;
    len -= (size_t)n;
  }
  return 0;
}

static int sync_directory(int dirfd) {
  if (dirfd != AT_FDCWD) return fsync(dirfd);
  NX_FD_AUTO here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return here < 0 ? -1 : fsync(here);
}

/* Random rather than counted: a directory may be shared by containers in which every process is number 1. */
static int create_temp(int dirfd, char name[NX_FS_TEMP_BYTES]) {
  uint64_t random;
  if (getrandom(&random, sizeof random, 0) != sizeof random) return -1;
  snprintf(name, NX_FS_TEMP_BYTES, NX_FS_TEMP_PREFIX "%016llx", (unsigned long long)random);
  return openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* A file of less stays in the page cache: it may be read again soon, and takes little. */
#define FORGET_LEAST_BYTES (1u << 20)

void nx_fs_forget(int fd, size_t bytes) {
  if (bytes >= FORGET_LEAST_BYTES) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int write_parts(int fd, const struct iovec *parts, size_t count) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; bytes += parts[i++].iov_len)
    if (write_all(fd, parts[i].iov_base, parts[i].iov_len)) return -1;
  if (fsync(fd)) return -1;
  nx_fs_forget(fd, bytes); /* only clean pages can be dropped */
  return 0;
}

int nx_fs_write_temp(int dirfd, const struct iovec *parts, size_t count, char temp[NX_FS_TEMP_BYTES],
                     struct nx_error *err) {
  NX_FD_AUTO fd = create_temp(dirfd, temp);
  if (fd < 0) return nx_error_sys(err, "create a temporary file");
  int rc = 0;
  if (write_parts(fd, parts, count)) {
    rc = nx_error_sys(err, "write a temporary file");
  } else {
    /* Closed by hand: file systems on a network report a failed write no earlier. */
    int closed = close(fd);
    fd = -1;
    if (closed) rc = nx_error_sys(err, "close a temporary file");
  }
  if (rc) unlinkat(dirfd, temp, 0);
  return rc;
}

int nx_fs_publish(int dirfd, const char *temp, const char *name, unsigned flags, struct nx_error *err) {
  bool fresh = flags & NX_FS_NEW;
  /* link, because renameat2 with RENAME_NOREPLACE is not to be had on a network's file systems */
  int failed = fresh ? linkat(dirfd, temp, dirfd, name, 0) : renameat(dirfd, temp, dirfd, name);
  int rc = failed ? nx_error_sys(err, "rename to %s", name) : 0;
  if (fresh || failed) unlinkat(dirfd, temp, 0);
  if (rc) return rc;
  return sync_directory(dirfd) ? nx_error_sys(err, "sync the directory of %s", name) : 0;
}

int nx_fs_write_atomic(int dirfd, const char *name, const void *data, size_t len, struct nx_error *err) {
  if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
    return nx_error_set(err, NX_ERR_INVALID, "\"%s\" is not a file name", name);
  char temp[NX_FS_TEMP_BYTES];
  struct iovec all = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
  int rc = nx_fs_write_temp(dirfd, &all, 1, temp, err);
  if (!rc) return nx_fs_publish(dirfd, temp, name, 0, err);
  nx_error_wrap(err, "%s", name);
  return rc;
}

static int make_one(const char *path, mode_t mode, struct nx_error *err) {
  struct stat st;
  if (!mkdir(path, mode)) return 0;
  /* A read-only parent answers EROFS, a foreign one EACCES, even where the directory is there already. */
  int saved = errno;
  if (!stat(path, &st)) {
    if (S_ISDIR(st.st_mode)) return 0;
    saved = ENOTDIR;
  }
  errno = saved;
  return nx_error_sys(err, "create directory %s", path);
}

int nx_fs_mkdirs(const char *path, mode_t mode, struct nx_error *err) {
  char part[PATH_MAX];
  size_t len = strlen(path);
  if (!len || len >= sizeof part) {
    errno = len ? ENAMETOOLONG : ENOENT;
    return nx_error_sys(err, "create directory");
  }
  memcpy(part, path, len + 1);
  for (size_t i = 1; i < len; i++) {
    if (part[i] != '/' || part[i - 1] == '/') continue;
    part[i] = 0;
    int rc = make_one(part, mode, err);
    if (rc) return rc;
    part[i] = '/';
  }
  return make_one(part, mode, err);
}

static bool stat_tmpfs(const char *path, struct statfs *st) {
  int rc;
  do rc = statfs(path, st);
  while (rc && errno == EINTR);
  return !rc && (st->f_type == TMPFS_MAGIC || st->f_type == RAMFS_MAGIC);
}

bool nx_fs_is_tmpfs(const char *path) {
  struct statfs st;
  return stat_tmpfs(path, &st);
}

struct nx_reading nx_tmpfs_used_bytes(const char *path) {
  struct statfs st;
  uint64_t bytes;
  if (!stat_tmpfs(path, &st) || !st.f_blocks || st.f_bfree > st.f_blocks || st.f_bsize <= 0) return nx_reading_unknown();
  if (__builtin_mul_overflow(st.f_blocks - st.f_bfree, (uint64_t)st.f_bsize, &bytes)) return nx_reading_unknown();
  return nx_reading_of(bytes);
}
