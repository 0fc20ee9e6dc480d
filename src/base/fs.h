/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole files: read, published atomically, and the directories for them.
 * Ownership: descriptors and strings are borrowed; NX_FD_AUTO closes a descriptor of the caller's when it leaves scope.
 * Threads:   any. All calls may wait for the disk.
 * Errors:    NX_ERR_SYSTEM with errno for what the kernel refused (look at sys_errno for ENOENT), else as said. */
#ifndef NX_BASE_FS_H
#define NX_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/reading.h"

/* Closes *fd unless it is negative; keeps errno. */
void nx_fs_close(int *fd);
#define NX_FD_AUTO __attribute__((cleanup(nx_fs_close))) int

enum nx_fs_flags {
  NX_FS_NOFOLLOW = 1, /* the last component must not be a symbolic link (ELOOP) */
  NX_FS_NEW = 2,      /* nothing may be replaced */
};

/* Appends the file's bytes to `out`, whose content is as it was on failure. Regular files only, those of /proc and
 * cgroups included: NX_ERR_INVALID for anything else, without waiting for the writer of a FIFO. NX_ERR_TOO_LARGE past
 * `max_bytes`. */
int nx_fs_read_file(const char *path, size_t max_bytes, struct nx_buf *out, struct nx_error *err);
/* The same relative to a directory (or AT_FDCWD), with flags of enum nx_fs_flags. */
int nx_fs_read_file_at(int dirfd, const char *path, unsigned flags, size_t max_bytes, struct nx_buf *out,
                       struct nx_error *err);

/* Writes a text that was built to an open file, to its end; `what` names it in errors. NX_ERR_NO_MEMORY when building it
 * failed. */
int nx_fs_print(FILE *file, const struct nx_buf *text, const char *what, struct nx_error *err);

/* Temporary files of nx_fs_write_atomic begin with this; one that is left after a crash may be deleted. */
#define NX_FS_TEMP_PREFIX ".nx-tmp-"

/* Makes `name` in the directory hold exactly these bytes (mode 0600), or leaves what was there: temporary file in the
 * same directory, fsync, rename, fsync of the directory. `name` has no slash; NX_ERR_INVALID otherwise.
 * If only the last fsync fails the new file is in place, but may be gone after a power failure. */
int nx_fs_write_atomic(int dirfd, const char *name, const void *data, size_t len, struct nx_error *err);

/* A large file that was just written or read as a whole leaves the page cache, which counts against the container's limit:
 * while it is full of such pages, whoever allocates must wait for the kernel to drop them. */
void nx_fs_forget(int fd, size_t bytes);

/* The two halves of it, for who must look at something in between. The first writes the parts one after the other and
 * fills in the name of the temporary file, which on success is the caller's to publish or to unlink. */
#define NX_FS_TEMP_BYTES (sizeof NX_FS_TEMP_PREFIX + 16)
int nx_fs_write_temp(int dirfd, const struct iovec *parts, size_t count, char temp[NX_FS_TEMP_BYTES],
                     struct nx_error *err);
/* The temporary file is gone afterwards, also on failure. With NX_FS_NEW, EEXIST when there is such a name already. */
int nx_fs_publish(int dirfd, const char *temp, const char *name, unsigned flags, struct nx_error *err);

/* mkdir -p: what is missing is made with `mode` (less the umask), what is there must be a directory (ENOTDIR). */
int nx_fs_mkdirs(const char *path, mode_t mode, struct nx_error *err);

/* Whether the path lies on a tmpfs or ramfs, whose files are memory: charged to the cgroup that wrote them, and given
 * back only when they are deleted. False when it cannot be asked (statfs). A memory file system under an overlay does
 * not show. */
bool nx_fs_is_tmpfs(const char *path);
/* What the whole file system at `path` uses, other directories of it included. Unknown when it is no tmpfs, and for
 * ramfs and a tmpfs without a size limit, which do not say (statfs has all 0): those grow without bound, too. */
struct nx_reading nx_tmpfs_used_bytes(const char *path);

#endif
