/* SPDX-License-Identifier: Apache-2.0
 * Whole files: bounded reads, atomic publishing, directories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"

static char dir[64];
static int dirfd_;

static int make_dir(void **state) {
  (void)state;
  strcpy(dir, "/tmp/nexus-fs-XXXXXX");
  if (!mkdtemp(dir)) return -1;
  dirfd_ = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return dirfd_ < 0;
}

static int drop_dir(void **state) {
  (void)state;
  close(dirfd_);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command);
}

static void put(const char *name, const char *text) {
  int fd = openat(dirfd_, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), strlen(text));
  close(fd);
}

static unsigned entries(void) {
  DIR *d = opendir(dir);
  assert_non_null(d);
  unsigned n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n - 2;
}

static void read_appends_up_to_the_limit(void **state) {
  (void)state;
  put("f", "hello");
  NX_BUF_AUTO buf = {0};
  struct nx_error err;
  nx_buf_lit(&buf, ">");
  assert_int_equal(nx_fs_read_file_at(dirfd_, "f", 0, 5, &buf, &err), 0);
  assert_int_equal(buf.len, 6);
  assert_memory_equal(buf.data, ">hello", 6);
  assert_int_equal(nx_fs_read_file_at(dirfd_, "f", 0, 4, &buf, &err), -NX_ERR_TOO_LARGE);
  assert_int_equal(buf.len, 6);
  assert_false(buf.failed);
  put("empty", "");
  assert_int_equal(nx_fs_read_file_at(dirfd_, "empty", 0, 0, &buf, &err), 0);
  assert_int_equal(buf.len, 6);
}

static void read_larger_than_one_step(void **state) {
  (void)state;
  char *text = malloc(20001);
  assert_non_null(text);
  for (int i = 0; i < 20000; i++) text[i] = (char)('a' + i % 23);
  text[20000] = 0;
  put("big", text);
  for (size_t max = 19999; max <= 20001; max++) {
    NX_BUF_AUTO buf = {0};
    int rc = nx_fs_read_file_at(dirfd_, "big", 0, max, &buf, NULL);
    assert_int_equal(rc, max < 20000 ? -NX_ERR_TOO_LARGE : 0);
    if (!rc) assert_memory_equal(buf.data, text, 20000);
  }
  free(text);
}

static void read_of_proc_files(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  assert_int_equal(nx_fs_read_file("/proc/self/stat", 4096, &buf, NULL), 0);
  assert_true(buf.len > 20);
}

static void read_refuses_what_is_no_regular_file(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  struct nx_error err = {0};
  assert_int_equal(mkfifoat(dirfd_, "fifo", 0600), 0);
  assert_int_equal(nx_fs_read_file_at(dirfd_, "fifo", 0, 10, &buf, &err), -NX_ERR_INVALID);
  assert_int_equal(nx_fs_read_file(dir, 10, &buf, &err), -NX_ERR_INVALID);
  assert_int_equal(nx_fs_read_file("/dev/zero", 10, &buf, &err), -NX_ERR_INVALID);
  assert_int_equal(nx_fs_read_file_at(dirfd_, "none", 0, 10, &buf, &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, ENOENT);
}

static void read_follows_links_unless_told_not_to(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  struct nx_error err = {0};
  put("f", "x");
  assert_int_equal(symlinkat("f", dirfd_, "link"), 0);
  assert_int_equal(nx_fs_read_file_at(dirfd_, "link", 0, 10, &buf, &err), 0);
  assert_int_equal(nx_fs_read_file_at(dirfd_, "link", NX_FS_NOFOLLOW, 10, &buf, &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, ELOOP);
}

static void read_into_a_limited_buffer(void **state) {
  (void)state;
  put("f", "hello");
  NX_BUF_AUTO buf = {.limit = 3};
  assert_int_equal(nx_fs_read_file_at(dirfd_, "f", 0, 10, &buf, NULL), -NX_ERR_NO_MEMORY);
  assert_int_equal(buf.len, 0);
  assert_false(buf.failed);
}

static void write_creates_and_replaces(void **state) {
  (void)state;
  NX_BUF_AUTO buf = {0};
  assert_int_equal(nx_fs_write_atomic(dirfd_, "f", "one", 3, NULL), 0);
  assert_int_equal(nx_fs_write_atomic(dirfd_, "f", "two!", 4, NULL), 0);
  assert_int_equal(nx_fs_write_atomic(dirfd_, "e", NULL, 0, NULL), 0);
  assert_int_equal(nx_fs_read_file_at(dirfd_, "f", 0, 10, &buf, NULL), 0);
  assert_int_equal(buf.len, 4);
  assert_memory_equal(buf.data, "two!", 4);
  struct stat st;
  assert_int_equal(fstatat(dirfd_, "f", &st, 0), 0);
  assert_int_equal(st.st_mode & 07777, 0600);
  assert_int_equal(entries(), 2);
}

static void write_replaces_a_link_not_its_target(void **state) {
  (void)state;
  put("target", "keep");
  assert_int_equal(symlinkat("target", dirfd_, "link"), 0);
  assert_int_equal(nx_fs_write_atomic(dirfd_, "link", "new", 3, NULL), 0);
  NX_BUF_AUTO buf = {0};
  assert_int_equal(nx_fs_read_file_at(dirfd_, "target", 0, 10, &buf, NULL), 0);
  assert_memory_equal(buf.data, "keep", 4);
}

static void write_in_the_current_directory(void **state) {
  (void)state;
  char *before = getcwd(NULL, 0);
  assert_int_equal(chdir(dir), 0);
  assert_int_equal(nx_fs_write_atomic(AT_FDCWD, "here", "x", 1, NULL), 0);
  assert_int_equal(faccessat(dirfd_, "here", F_OK, 0), 0);
  assert_int_equal(chdir(before), 0);
  free(before);
}

static void write_refuses_bad_names(void **state) {
  (void)state;
  static const char *const names[] = {"", ".", "..", "a/b", "/a"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    assert_int_equal(nx_fs_write_atomic(dirfd_, names[i], "x", 1, NULL), -NX_ERR_INVALID);
  assert_int_equal(entries(), 0);
}

static void write_leaves_nothing_behind_when_it_fails(void **state) {
  (void)state;
  struct nx_error err = {0};
  put("old", "old");
  char longer[300];
  memset(longer, 'n', sizeof longer - 1);
  longer[sizeof longer - 1] = 0;
  assert_int_equal(nx_fs_write_atomic(dirfd_, longer, "x", 1, &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, ENAMETOOLONG);
  assert_int_equal(mkdirat(dirfd_, "d", 0700), 0);
  assert_int_equal(nx_fs_write_atomic(dirfd_, "d", "x", 1, &err), -NX_ERR_SYSTEM); /* a directory in the way */
  /* The disk is full: a file size limit stands in for it. */
  struct rlimit saved, small = {100, 100};
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &saved), 0);
  small.rlim_max = saved.rlim_max;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  int rc = nx_fs_write_atomic(dirfd_, "old", (char[200]){0}, 200, &err);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &saved), 0);
  assert_int_equal(rc, -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, EFBIG);
  assert_int_equal(entries(), 2);
  NX_BUF_AUTO buf = {0};
  assert_int_equal(nx_fs_read_file_at(dirfd_, "old", 0, 10, &buf, NULL), 0);
  assert_memory_equal(buf.data, "old", 3);
  assert_int_equal(nx_fs_write_atomic(-1, "x", "x", 1, &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, EBADF);
}

static void a_temporary_file_is_published_once(void **state) {
  (void)state;
  const struct iovec parts[] = {{"he", 2}, {"", 0}, {"llo", 3}};
  char temp[NX_FS_TEMP_BYTES];
  struct nx_error err = {0};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(nx_fs_write_temp(dirfd_, parts, 3, temp, &err), 0);
    assert_int_equal(strncmp(temp, NX_FS_TEMP_PREFIX, sizeof NX_FS_TEMP_PREFIX - 1), 0);
    assert_int_equal(nx_fs_publish(dirfd_, temp, "f", NX_FS_NEW, &err), i ? -NX_ERR_SYSTEM : 0);
    assert_int_equal(entries(), 1);
  }
  assert_int_equal(err.sys_errno, EEXIST);
  NX_BUF_AUTO buf = {0};
  assert_int_equal(nx_fs_read_file_at(dirfd_, "f", 0, 10, &buf, &err), 0);
  assert_int_equal(buf.len, 5);
  assert_memory_equal(buf.data, "hello", 5);
}

static void mkdirs_makes_all_that_is_missing(void **state) {
  (void)state;
  char path[128];
  struct stat st;
  struct nx_error err = {0};
  static const char *const tails[] = {"/a/b/c", "/a/b/c", "/x//y/", ""};
  for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
    snprintf(path, sizeof path, "%s%s", dir, tails[i]);
    assert_int_equal(nx_fs_mkdirs(path, 0700, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
  }
  put("file", "");
  snprintf(path, sizeof path, "%s/file", dir);
  assert_int_equal(nx_fs_mkdirs(path, 0700, &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, ENOTDIR);
  snprintf(path, sizeof path, "%s/file/sub", dir);
  assert_int_equal(nx_fs_mkdirs(path, 0700, &err), -NX_ERR_SYSTEM);
  assert_int_equal(nx_fs_mkdirs("/", 0700, &err), 0);
  assert_int_equal(nx_fs_mkdirs("", 0700, &err), -NX_ERR_SYSTEM);
  char longer[5000];
  memset(longer, 'a', sizeof longer - 1);
  longer[sizeof longer - 1] = 0;
  assert_int_equal(nx_fs_mkdirs(longer, 0700, &err), -NX_ERR_SYSTEM);
  assert_int_equal(err.sys_errno, ENAMETOOLONG);
}

static void close_keeps_errno_and_forgets_the_descriptor(void **state) {
  (void)state;
  int fd = dup(dirfd_);
  errno = 5;
  nx_fs_close(&fd);
  assert_int_equal(fd, -1);
  nx_fs_close(&fd);
  assert_int_equal(errno, 5);
}

/* In a child with mounts of its own: 0, or the number of the step that failed. */
static int use_memory_file_systems(void) {
#define STEP(n, condition) do { if (!(condition)) return (n); } while (0)
  STEP(77, !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
  STEP(77, !mount("none", dir, "tmpfs", 0, "size=8m"));
  STEP(1, nx_fs_is_tmpfs(dir));
  struct nx_reading used = nx_tmpfs_used_bytes(dir);
  STEP(2, used.kind == NX_READING_VALUE && used.value < 65536);
  char path[128];
  snprintf(path, sizeof path, "%s/sub", dir);
  STEP(3, !mkdir(path, 0700));
  snprintf(path, sizeof path, "%s/sub/f", dir);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  STEP(4, fd >= 0 && !posix_fallocate(fd, 0, 1 << 20));
  used = nx_tmpfs_used_bytes(path);
  STEP(5, nx_fs_is_tmpfs(path) && used.kind == NX_READING_VALUE && used.value >= 1 << 20 && used.value < (1 << 20) + 65536);
  STEP(6, !unlink(path) && nx_tmpfs_used_bytes(dir).value >= 1 << 20); /* deleted, but open */
  close(fd);
  STEP(7, nx_tmpfs_used_bytes(dir).value < 65536);
  /* Without a size, and ramfs: they do not say. */
  STEP(8, !mount("none", dir, "tmpfs", 0, "size=0") && nx_fs_is_tmpfs(dir));
  STEP(9, nx_tmpfs_used_bytes(dir).kind == NX_READING_UNKNOWN);
  STEP(10, !mount("none", dir, "ramfs", 0, NULL) && nx_fs_is_tmpfs(dir));
  STEP(11, nx_tmpfs_used_bytes(dir).kind == NX_READING_UNKNOWN);
  return 0;
#undef STEP
}

static void tmpfs_tells_what_it_uses(void **state) {
  (void)state;
  static const char *const others[] = {"/proc", "/proc/self/status", "/nonexistent", ""};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    assert_false(nx_fs_is_tmpfs(others[i]));
    assert_int_equal(nx_tmpfs_used_bytes(others[i]).kind, NX_READING_UNKNOWN);
  }
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) _exit(use_memory_file_systems());
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    print_message("[  NOTE    ] not permitted to mount: memory file systems skipped\n");
    skip();
  }
  assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
  const struct CMUnitTest tests[] = {
    TEST(read_appends_up_to_the_limit),
    TEST(read_larger_than_one_step),
    TEST(read_of_proc_files),
    TEST(read_refuses_what_is_no_regular_file),
    TEST(read_follows_links_unless_told_not_to),
    TEST(read_into_a_limited_buffer),
    TEST(write_creates_and_replaces),
    TEST(write_replaces_a_link_not_its_target),
    TEST(write_in_the_current_directory),
    TEST(write_refuses_bad_names),
    TEST(write_leaves_nothing_behind_when_it_fails),
    TEST(a_temporary_file_is_published_once),
    TEST(mkdirs_makes_all_that_is_missing),
    TEST(tmpfs_tells_what_it_uses),
    TEST(close_keeps_errno_and_forgets_the_descriptor),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
