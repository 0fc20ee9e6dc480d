/* SPDX-License-Identifier: Apache-2.0
 * What this process uses: literal texts of the kernel, and this process itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/process_memory.h"

#define MIB (UINT64_C(1) << 20)

/* Of Linux 6.18, shortened. */
#define STATUS(anon, threads)                                                                                          \
  "Name:\tnexus\nUmask:\t0022\nState:\tR (running)\nTgid:\t4711\nPid:\t4711\nVmPeak:\t    5796 kB\nVmHWM:\t    1820 kB\n" \
  "VmRSS:\t    1624 kB\n" anon "RssFile:\t    1512 kB\nRssShmem:\t       4 kB\nVmData:\t     360 kB\nVmPTE:\t      48 kB\n"  \
  "VmSwap:\t       0 kB\n" threads "SigQ:\t0/96254\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t1\n"

static void status_of_the_kernel(void **state) {
  (void)state;
  struct nx_process_memory m;
  assert_int_equal(nx_process_memory_parse(STATUS("RssAnon:\t     112 kB\n", "Threads:\t17\n"), &m, NULL), 0);
  assert_int_equal(m.anon_bytes, 112 << 10);
  assert_int_equal(m.file_bytes, 1512 << 10);
  assert_int_equal(m.shmem_bytes, 4 << 10);
  assert_int_equal(m.page_table_bytes, 48 << 10);
  assert_int_equal(m.threads, 17);
}

static void broken_status_is_an_error(void **state) {
  (void)state;
  static const char *const texts[] = {
    "", "\n", "RssAnon:", STATUS("", "Threads:\t1\n"), STATUS("RssAnon:\t112\n", "Threads:\t1\n"),
    STATUS("RssAnon:\t112 MB\n", "Threads:\t1\n"), STATUS("RssAnon:\t112 kBx\n", "Threads:\t1\n"),
    STATUS("RssAnon:\t112 kB 5\n", "Threads:\t1\n"), STATUS("RssAnon:\t-112 kB\n", "Threads:\t1\n"),
    STATUS("RssAnon:\t1x2 kB\n", "Threads:\t1\n"), STATUS("RssAnon:\t\n", "Threads:\t1\n"),
    STATUS("xRssAnon:\t112 kB\n", "Threads:\t1\n"), STATUS("RssAnon\t112 kB\n", "Threads:\t1\n"),
    STATUS("RssAnon:\t18446744073709551615 kB\n", "Threads:\t1\n"),
    STATUS("RssAnon:\t99999999999999999999 kB\n", "Threads:\t1\n"), STATUS("RssAnon:\t112 kB\n", ""),
    STATUS("RssAnon:\t112 kB\n", "Threads:\tx\n"), STATUS("RssAnon:\t112 kB\n", "Threads:\t4294967296\n"),
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct nx_process_memory m = {.threads = 99};
    struct nx_error err = {0};
    assert_int_equal(nx_process_memory_parse(texts[i], &m, &err), -NX_ERR_INTERNAL);
    assert_int_equal(m.threads, 99);
    assert_true(strlen(err.text) > 10);
  }
}

static void *sleep_until_told(void *gate) {
  pthread_mutex_lock(gate);
  pthread_mutex_unlock(gate);
  return NULL;
}

static void *touched_pages(int flags, int fd) {
  char *pages = mmap(NULL, 16 * MIB, PROT_READ | PROT_WRITE, flags, fd, 0);
  assert_true(pages != MAP_FAILED);
  for (size_t i = 0; i < 16 * MIB; i += 4096) ((volatile char *)pages)[i] = 1;
  return pages;
}

/* Each figure moves with what it is about. */
static void this_process(void **state) {
  (void)state;
  struct nx_process_memory before, after;
  struct nx_error err;
  pthread_t thread;
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  int fd = memfd_create("test", MFD_CLOEXEC);
  assert_true(fd >= 0 && !ftruncate(fd, 16 * MIB));
  pthread_mutex_lock(&gate);
  assert_int_equal(nx_process_memory_read(&before, &err), 0);
  assert_int_equal(pthread_create(&thread, NULL, sleep_until_told, &gate), 0);
  void *anon = touched_pages(MAP_PRIVATE | MAP_ANONYMOUS, -1), *shmem = touched_pages(MAP_SHARED, fd);
  assert_int_equal(nx_process_memory_read(&after, &err), 0);
  assert_true(after.anon_bytes >= before.anon_bytes + 15 * MIB); /* sanitizers add their shadow of it */
  assert_in_range(after.shmem_bytes - before.shmem_bytes, 15 * MIB, 17 * MIB);
  assert_true(after.file_bytes > 0);
  assert_true(after.page_table_bytes > before.page_table_bytes);
  assert_true(after.threads > before.threads); /* ThreadSanitizer starts one of its own, too */
  pthread_mutex_unlock(&gate);
  pthread_join(thread, NULL);
  munmap(anon, 16 * MIB);
  munmap(shmem, 16 * MIB);
  close(fd);
}

#define SOCKSTAT(tcp) "sockets: used 14\n" tcp "UDP: inuse 0 mem 7\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"

static void socket_memory(void **state) {
  (void)state;
  static const struct {
    const char *text;
    enum nx_reading_kind kind;
    uint64_t bytes;
  } cases[] = {
    {SOCKSTAT("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 56\n"), NX_READING_VALUE, 56 * 4096},
    {SOCKSTAT("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 0\n"), NX_READING_VALUE, 0},
    {SOCKSTAT("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 4503599627370496\n"), NX_READING_UNKNOWN, 0},
    {SOCKSTAT("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem -5\n"), NX_READING_UNKNOWN, 0},
    {SOCKSTAT("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem\n"), NX_READING_UNKNOWN, 0},
    {SOCKSTAT("TCP: inuse 1\n"), NX_READING_UNKNOWN, 0}, /* not UDP's */
    {SOCKSTAT(""), NX_READING_UNKNOWN, 0},
    {"TCP:", NX_READING_UNKNOWN, 0},
    {"", NX_READING_UNKNOWN, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_reading r = nx_socket_memory_parse(cases[i].text, 4096);
    assert_int_equal(r.kind, cases[i].kind);
    assert_int_equal(r.value, cases[i].bytes);
  }
  struct nx_reading here = nx_socket_memory_bytes();
  if (nx_reading_is_value(here)) assert_int_equal(here.value % (uint64_t)sysconf(_SC_PAGESIZE), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(status_of_the_kernel),
    cmocka_unit_test(broken_status_is_an_error),
    cmocka_unit_test(this_process),
    cmocka_unit_test(socket_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
