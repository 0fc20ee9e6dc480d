/* SPDX-License-Identifier: Apache-2.0
 *
 * One kept file. Once it has its name a file never changes: it is replaced as a whole, so a reader needs no lock and
 * sees one or the other. Everything in it is checked before it is believed: header by its checksum, body by its hash.
 *
 * Locks are the kernel's, on ranges of the file (open file description locks): they end with the process, and threads
 * exclude each other like processes. Nothing has to be written for them, and the range says when a lease ends:
 *
 *   byte 0              change lock: held for the moment in which the file is replaced, deleted or judged
 *   bytes 2 … until_ms  the lease, as long as it is not another's; its last byte is the time at which it ends
 *
 * A lock belongs to the file, not to the name. So after the lock it must be seen that the name is still this file's:
 * a lease whose file was replaced is lost, and this is how its holder finds out. */
#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "metrics/metrics.h"
#include "suspend/store_file_internal.h"

#define CHANGE_BYTE 0
#define LEASE_FIRST_BYTE 2 /* not beside the other, because the kernel makes one lock of adjacent ones */

static_assert(sizeof(struct nx__kept_header) == 48 + 3 * NX_HASH_BYTES, "written to disk");

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

static const char *advice(int sys_errno) {
  switch (sys_errno) {
  case ENOSPC:
  case EDQUOT: return "free space in the directory of SUSPEND_STORE, or give it more";
  case EROFS:
  case EACCES:
  case EPERM: return "the directory of SUSPEND_STORE must be writable for nexus";
  case ENOENT:
  case ESTALE: return "the directory of SUSPEND_STORE was removed; restart nexus";
  case EMFILE:
  case ENFILE: return "raise the limit of open files";
  default: return "look at the disk of SUSPEND_STORE";
  }
}

static void count_failure(int sys_errno) {
  bool full = sys_errno == ENOSPC || sys_errno == EDQUOT;
  nx_metrics_store_failed(full ? NX_METRICS_STORE_FULL : NX_METRICS_STORE_UNAVAILABLE);
}

int nx__store_unavailable(struct nx_error *err, const struct nx_error *cause) {
  count_failure(cause->sys_errno);
  return nx_error_set(err, NX_ERR_UNAVAILABLE, "%s: %s", cause->text, advice(cause->sys_errno));
}

int nx__store_unavailable_errno(struct nx_error *err, const char *what) {
  struct nx_error cause;
  nx_error_sys(&cause, "%s", what);
  return nx__store_unavailable(err, &cause);
}

/* A name that is not there is an answer, except when its directory is not there either. */
static int not_opened(const struct nx__kept_dir *dir, const char *name, struct nx_error *err) {
  int saved = errno;
  struct stat st;
  if (saved == ENOENT && !fstat(dir->fd, &st) && st.st_nlink > 0)
    return nx_error_set(err, NX_ERR_NOT_FOUND, "the store has no %s", name);
  if (saved == ELOOP || saved == EISDIR || saved == ENXIO)
    return nx_error_set(err, NX_ERR_INVALID, "%s is not a file", name);
  errno = saved;
  return nx__store_unavailable_errno(err, name);
}

/* ---- Locks ------------------------------------------------------------------------------------------------------- */

/* Times past what a file offset can say are as good as never. */
static off_t offset_of_ms(uint64_t ms) {
  if (ms < LEASE_FIRST_BYTE) return LEASE_FIRST_BYTE;
  return ms < INT64_MAX - 1 ? (off_t)ms : INT64_MAX - 1;
}

static struct flock range(short type, off_t first, off_t last) {
  return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = first, .l_len = last - first + 1};
}

/* By asking again each millisecond, because the kernel's own waiting has no end: a process may be stopped while it
 * holds the lock. */
int nx__kept_lock(int fd, struct nx_error *err) {
  enum { TRIES = 5000 };
  const struct timespec pause = {.tv_nsec = (long)NX_NS_PER_MS};
  struct flock lock = range(F_WRLCK, CHANGE_BYTE, CHANGE_BYTE);
  for (unsigned i = 0; i < TRIES; i++) {
    if (!fcntl(fd, F_OFD_SETLK, &lock)) return 0;
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return nx__store_unavailable_errno(err, "lock a file");
    nanosleep(&pause, NULL);
  }
  nx_metrics_store_failed(NX_METRICS_STORE_UNAVAILABLE);
  return nx_error_set(err, NX_ERR_UNAVAILABLE, "another process has held the lock of a file for 5 s: is it stopped?");
}

void nx__kept_unlock(int fd) {
  struct flock lock = range(F_UNLCK, CHANGE_BYTE, CHANGE_BYTE);
  fcntl(fd, F_OFD_SETLK, &lock);
}

bool nx__kept_has_name(const struct nx__kept_dir *dir, const char *name, int fd) {
  struct stat named, open;
  return !fstatat(dir->fd, name, &named, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &open) && named.st_ino == open.st_ino &&
         named.st_dev == open.st_dev;
}

bool nx__kept_lease(int fd, uint64_t until_ms) {
  off_t last = offset_of_ms(until_ms);
  struct flock lock = range(F_WRLCK, LEASE_FIRST_BYTE, last);
  if (fcntl(fd, F_OFD_SETLK, &lock)) return false;
  struct flock rest = range(F_UNLCK, last + 1, INT64_MAX);
  fcntl(fd, F_OFD_SETLK, &rest);
  return true;
}

uint64_t nx__kept_leased_until_ms(int fd) {
  struct flock lock = range(F_WRLCK, LEASE_FIRST_BYTE, LEASE_FIRST_BYTE);
  if (fcntl(fd, F_OFD_GETLK, &lock)) return UINT64_MAX;
  if (lock.l_type == F_UNLCK) return 0;
  return lock.l_len ? (uint64_t)(lock.l_start + lock.l_len - 1) : UINT64_MAX;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

void nx__kept_close(struct nx__kept *kept) { nx_fs_close(&kept->fd); }

static void header_checksum(uint8_t sum[NX_HASH_BYTES], const char *name, const struct nx__kept_header *header) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, NULL, 0, NX_HASH_BYTES);
  crypto_generichash_update(&state, (const uint8_t *)name, strlen(name) + 1);
  crypto_generichash_update(&state, (const uint8_t *)header, offsetof(struct nx__kept_header, checksum));
  crypto_generichash_final(&state, sum, NX_HASH_BYTES);
}

static const char *header_fault(const struct nx__kept_dir *dir, const char *name, const struct nx__kept_header *header,
                                uint64_t file_bytes) {
  uint8_t sum[NX_HASH_BYTES];
  if (memcmp(header->magic, dir->magic, sizeof header->magic) || header->header_bytes != sizeof *header)
    return "is not a file of this store";
  header_checksum(sum, name, header);
  if (sodium_memcmp(sum, header->checksum, sizeof sum)) return "is damaged, or belongs under another name";
  if (header->state > NX_STORED_CANCELLED) return "has a state that there is not";
  if (header->body_bytes > NX_STORE_ITEM_MAX_BYTES || header->body_bytes != file_bytes - sizeof *header)
    return "is cut short";
  return NULL;
}

/* `size` bytes from `offset` on; less when the file ends, -1 with errno. */
static ssize_t read_at(int fd, void *data, size_t size, off_t offset) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = pread(fd, (char *)data + done, size - done, offset + (off_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += (size_t)n;
  }
  return (ssize_t)done;
}

static int read_header(const struct nx__kept_dir *dir, const char *name, struct nx__kept *kept, struct nx_error *err) {
  struct stat st;
  if (fstat(kept->fd, &st)) return nx__store_unavailable_errno(err, name);
  ssize_t n = read_at(kept->fd, &kept->header, sizeof kept->header, 0);
  if (n < 0) return nx__store_unavailable_errno(err, name);
  if ((size_t)n < sizeof kept->header) return nx_error_set(err, NX_ERR_INVALID, "%s is cut short", name);
  const char *fault = header_fault(dir, name, &kept->header, (uint64_t)st.st_size);
  return fault ? nx_error_set(err, NX_ERR_INVALID, "%s %s", name, fault) : 0;
}

/* Without waiting for the writer of a FIFO that somebody planted. */
static int open_file(const struct nx__kept_dir *dir, const char *name, int access, struct nx__kept *out,
                     struct nx_error *err) {
  struct stat st;
  out->fd = openat(dir->fd, name, access | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (out->fd < 0) return not_opened(dir, name, err);
  if (!fstat(out->fd, &st) && S_ISREG(st.st_mode)) return 0;
  nx__kept_close(out);
  return nx_error_set(err, NX_ERR_INVALID, "%s is not a file", name);
}

int nx__kept_open(const struct nx__kept_dir *dir, const char *name, struct nx__kept *out, struct nx_error *err) {
  int rc = open_file(dir, name, O_RDONLY, out, err);
  if (!rc) rc = read_header(dir, name, out, err);
  if (rc) nx__kept_close(out);
  return rc;
}

int nx__kept_take(const struct nx__kept_dir *dir, const char *name, struct nx__kept *out, struct nx_error *err) {
  enum { TRIES = 1000 }; /* each time somebody else replaced the file */
  for (unsigned i = 0; i < TRIES; i++) {
    int rc = open_file(dir, name, O_RDWR, out, err);
    if (rc) return rc;
    rc = nx__kept_lock(out->fd, err);
    if (!rc && nx__kept_has_name(dir, name, out->fd)) return read_header(dir, name, out, err);
    nx__kept_close(out);
    if (rc) return rc;
  }
  return nx_error_set(err, NX_ERR_BUSY, "others keep changing %s", name);
}

int nx__kept_read_body(const struct nx__kept *kept, struct nx_buf *out, struct nx_error *err) {
  size_t bytes = (size_t)kept->header.body_bytes;
  uint8_t hash[NX_HASH_BYTES];
  if (!bytes) return 0;
  char *room = nx_buf_reserve(out, bytes);
  if (!room) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for %zu bytes from the store", bytes);
  ssize_t n = read_at(kept->fd, room, bytes, sizeof kept->header);
  if (n < 0) return nx__store_unavailable_errno(err, "read from the store");
  nx_fs_forget(kept->fd, bytes);
  crypto_generichash(hash, sizeof hash, (const uint8_t *)room, (size_t)n, NULL, 0);
  if (sodium_memcmp(hash, kept->header.body_hash, sizeof hash))
    return nx_error_set(err, NX_ERR_INVALID, "what the store kept is damaged");
  out->len += bytes;
  return 0;
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

/* The time of last modification is when a pass must look into the file, so that it need not open a quarter of a million
 * files to find the few whose time has come. It is a hint for items, whose header decides, and the truth for sources,
 * which are kept for longer and longer. The nanoseconds below the millisecond say whether an item still waits: for
 * figures only. Into handlers every pass looks; theirs is the version, so that a list need not open them. */
static struct timespec time_to_show(const struct nx__kept_header *header) {
  if (header->version) return nx__time_of_version(header->version);
  uint64_t ms = header->expires_ms;
  if (header->wake_ms && header->wake_ms < ms) ms = header->wake_ms;
  return (struct timespec){
    .tv_sec = (time_t)(ms / 1000),
    .tv_nsec = (long)(ms % 1000 * NX_NS_PER_MS + (header->state != NX_STORED_WAITING)),
  };
}

uint64_t nx__next_look_ms(const struct stat *st) {
  if (st->st_mtim.tv_sec < 0) return 0;
  return (uint64_t)st->st_mtim.tv_sec * 1000 + (uint64_t)st->st_mtim.tv_nsec / NX_NS_PER_MS;
}

bool nx__looks_waiting(const struct stat *st) { return (uint64_t)st->st_mtim.tv_nsec % NX_NS_PER_MS == 0; }

int nx__kept_write_temp(const struct nx__kept_dir *dir, const char *name, struct nx__kept_header header,
                        const void *body, char temp[NX_FS_TEMP_BYTES], struct nx_error *err) {
  struct nx_error cause;
  memcpy(header.magic, dir->magic, sizeof header.magic);
  header.header_bytes = sizeof header;
  crypto_generichash(header.body_hash, sizeof header.body_hash, body, header.body_bytes, NULL, 0);
  header_checksum(header.checksum, name, &header);
  const struct iovec parts[] = {
    {.iov_base = &header, .iov_len = sizeof header},
    {.iov_base = (void *)(uintptr_t)body, .iov_len = header.body_bytes},
  };
  if (nx_fs_write_temp(dir->fd, parts, 2, temp, &cause)) return nx__store_unavailable(err, &cause);
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, time_to_show(&header)};
  if (!utimensat(dir->fd, temp, times, AT_SYMLINK_NOFOLLOW)) return 0;
  int rc = nx__store_unavailable_errno(err, "set the time of a file");
  unlinkat(dir->fd, temp, 0);
  return rc;
}

int nx__kept_publish(const struct nx__kept_dir *dir, const char *temp, const char *name, unsigned flags,
                     struct nx_error *err) {
  struct nx_error cause;
  if (!nx_fs_publish(dir->fd, temp, name, flags, &cause)) return 0;
  if (cause.sys_errno == EEXIST) return nx_error_set(err, NX_ERR_CONFLICT, "the store has %s already", name);
  return nx__store_unavailable(err, &cause);
}

int nx__kept_put(const struct nx__kept_dir *dir, const char *name, struct nx__kept_header header, const void *body,
                 unsigned flags, struct nx_error *err) {
  char temp[NX_FS_TEMP_BYTES];
  int rc = nx__kept_write_temp(dir, name, header, body, temp, err);
  return rc ? rc : nx__kept_publish(dir, temp, name, flags, err);
}
