/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/process_memory.h"

#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include "memory/kernel_text.h"

static bool threads_of(const char *status, uint32_t *threads) {
  const char *c = nx__kernel_text_find(status, "Threads:");
  uint64_t count;
  if (!c || !nx__kernel_text_u64(c + strspn(c, " \t"), &count, NULL) || count > UINT32_MAX) return false;
  *threads = (uint32_t)count;
  return true;
}

int nx_process_memory_parse(const char *status, struct nx_process_memory *out, struct nx_error *err) {
  struct nx_process_memory memory;
  const struct {
    const char *key;
    uint64_t *bytes;
  } figures[] = {
    {"RssAnon:", &memory.anon_bytes},
    {"RssFile:", &memory.file_bytes},
    {"RssShmem:", &memory.shmem_bytes},
    {"VmPTE:", &memory.page_table_bytes},
  };
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    struct nx_reading bytes = nx__kernel_text_kib_of(status, figures[i].key);
    if (!nx_reading_is_value(bytes)) return nx_error_set(err, NX_ERR_INTERNAL, "no line \"%s … kB\"", figures[i].key);
    *figures[i].bytes = bytes.value;
  }
  if (!threads_of(status, &memory.threads)) return nx_error_set(err, NX_ERR_INTERNAL, "no line \"Threads: …\"");
  *out = memory;
  return 0;
}

int nx_process_memory_read(struct nx_process_memory *out, struct nx_error *err) {
  static const char path[] = "/proc/self/status";
  char text[NX__KERNEL_TEXT_BYTES];
  if ((errno = nx__kernel_text_read(AT_FDCWD, path, text))) return nx_error_sys(err, "read %s", path);
  return nx_process_memory_parse(text, out, err) ? nx_error_wrap(err, "%s", path) : 0;
}

struct nx_reading nx_socket_memory_parse(const char *sockstat, uint64_t page_bytes) {
  /* "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 56" */
  static const char key[] = " mem ";
  const char *line = nx__kernel_text_find(sockstat, "TCP:");
  const char *c = line ? strstr(line, key) : NULL;
  uint64_t pages, bytes;
  if (!c || c > line + strcspn(line, "\n") || !nx__kernel_text_u64(c + sizeof key - 1, &pages, NULL))
    return nx_reading_unknown();
  return __builtin_mul_overflow(pages, page_bytes, &bytes) ? nx_reading_unknown() : nx_reading_of(bytes);
}

struct nx_reading nx_socket_memory_bytes(void) {
  char text[NX__KERNEL_TEXT_BYTES];
  if (nx__kernel_text_read(AT_FDCWD, "/proc/self/net/sockstat", text)) return nx_reading_unknown();
  return nx_socket_memory_parse(text, (uint64_t)sysconf(_SC_PAGESIZE));
}
