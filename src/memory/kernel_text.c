/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/kernel_text.h"

#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include "base/fs.h"

int nx__kernel_text_read(int dirfd, const char *path, char text[NX__KERNEL_TEXT_BYTES]) {
  NX_FD_AUTO fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  size_t len = 0;
  while (len < NX__KERNEL_TEXT_BYTES - 1) {
    ssize_t n = read(fd, text + len, NX__KERNEL_TEXT_BYTES - 1 - len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno; /* EOPNOTSUPP: pressure stall information is off; ENODEV: the cgroup is gone */
    if (n == 0) break;
    len += (size_t)n;
  }
  text[len] = 0;
  return 0;
}

int nx__kernel_text_reread(int fd, char *text, size_t size) {
  ssize_t n;
  do n = pread(fd, text, size, 0);
  while (n < 0 && errno == EINTR);
  if (n < 0) return errno; /* ENODEV: the cgroup is gone */
  if ((size_t)n == size) return EFBIG;
  text[n] = 0;
  return 0;
}

const char *nx__kernel_text_find(const char *text, const char *key) {
  size_t len = strlen(key);
  for (; text; text = (text = strchr(text, '\n')) ? text + 1 : NULL)
    if (!strncmp(text, key, len)) return text + len;
  return NULL;
}

bool nx__kernel_text_u64(const char *text, uint64_t *value, const char **end) {
  uint64_t sum = 0;
  const char *c = text;
  for (; *c >= '0' && *c <= '9'; c++)
    if (__builtin_mul_overflow(sum, 10u, &sum) || __builtin_add_overflow(sum, (uint64_t)(*c - '0'), &sum)) return false;
  if (c == text || (*c && *c != ' ' && *c != '\n')) return false;
  *value = sum;
  if (end) *end = c + strspn(c, " ");
  return true;
}

struct nx_reading nx__kernel_text_number(const char *text) {
  uint64_t value;
  return nx__kernel_text_u64(text, &value, NULL) ? nx_reading_of(value) : nx_reading_unknown();
}

struct nx_reading nx__kernel_text_number_of(const char *text, const char *key) {
  const char *value = nx__kernel_text_find(text, key);
  return value ? nx__kernel_text_number(value) : nx_reading_unknown();
}

struct nx_reading nx__kernel_text_kib_of(const char *text, const char *key) {
  const char *value = nx__kernel_text_find(text, key), *unit;
  uint64_t kib;
  if (!value || !nx__kernel_text_u64(value + strspn(value, " \t"), &kib, &unit)) return nx_reading_unknown();
  if (strncmp(unit, "kB", 2) || (unit[2] && unit[2] != '\n') || kib > UINT64_MAX / 1024) return nx_reading_unknown();
  return nx_reading_of(kib * 1024);
}
