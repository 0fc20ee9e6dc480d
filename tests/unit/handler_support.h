/* SPDX-License-Identifier: Apache-2.0
 * What the tests of src/handler/ share: a scratch directory, images and handlers made without a guest, the log. */
#ifndef NX_TEST_HANDLER_SUPPORT_H
#define NX_TEST_HANDLER_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/buf.h"
#include "base/log.h"
#include "counting_account.h"
#include "handler/handler.h"
#include "image/image.h"

#define MEMORY_BYTES (4u * 65536u)

/* ---- Scratch directory and files */

static char scratch[64];

static inline int scratch_setup(void **state) {
  (void)state;
  strcpy(scratch, "/tmp/nexus-handler-XXXXXX");
  return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_teardown(void **state) {
  (void)state;
  char command[256];
  snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", scratch, scratch);
  return system(command);
}

/* A path in the scratch directory; four may be in use at a time. */
static inline const char *in_scratch(const char *name) {
  static char paths[4][512];
  static unsigned next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
  return path;
}

static inline void write_bytes(const char *path, const void *bytes, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, size), size);
  close(fd);
}

static inline void write_text(const char *path, const char *text) { write_bytes(path, text, strlen(text)); }

/* Replaces the file in one step, as careful writers do. */
static inline void replace_text(const char *path, const char *text) {
  char temp[600];
  snprintf(temp, sizeof temp, "%s.part", path);
  write_text(temp, text);
  assert_int_equal(rename(temp, path), 0);
}

static inline bool exists(const char *path) {
  struct stat st;
  return !lstat(path, &st);
}

/* ---- The log */

static int log_file = -1;

static inline void capture_log(void) {
  if (log_file < 0) log_file = memfd_create("log", MFD_CLOEXEC);
  assert_int_equal(ftruncate(log_file, 0), 0);
  lseek(log_file, 0, SEEK_SET);
  nx_log_init(log_file, NX_LOG_INFO, false);
}

static inline unsigned logged(const char *what) {
  static char text[1 << 16];
  ssize_t n = pread(log_file, text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = '\0';
  unsigned count = 0;
  for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) count++;
  return count;
}

/* ---- Images and handlers */

static struct nx_image *base_image;

static inline int base_setup(void **state) {
  (void)state;
  assert_true(sodium_init() >= 0);
  nx_log_init(STDOUT_FILENO, NX_LOG_ERROR, false);
  uint8_t *memory = calloc(1, MEMORY_BYTES);
  if (!memory) return -1;
  memset(memory + 3 * NX_PAGE_BYTES, 0x5a, NX_PAGE_BYTES);
  struct nx_guest_globals globals = {.stack_pointer = 65536};
  int status = nx_image_create_base(&base_image, memory, MEMORY_BYTES, globals, NULL);
  free(memory);
  return status;
}

static inline int base_teardown(void **state) {
  (void)state;
  nx_image_release(base_image);
  base_image = NULL;
  return 0;
}

static struct counting_account handler_account = COUNTING_ACCOUNT;

/* A delta whose pages are all filled from `seed`. */
static inline struct nx_image *make_image(uint32_t seed, uint32_t pages) {
  uint8_t *memory = calloc(1, MEMORY_BYTES);
  uint32_t candidates[MEMORY_BYTES / NX_PAGE_BYTES];
  assert_non_null(memory);
  for (uint32_t i = 0; i < pages; i++) {
    candidates[i] = i;
    for (uint32_t at = 0; at < NX_PAGE_BYTES; at += 4) {
      uint32_t word = (seed + 1) * 2654435761u + i * NX_PAGE_BYTES + at;
      memcpy(memory + (size_t)i * NX_PAGE_BYTES + at, &word, 4);
    }
  }
  struct nx_image *image = NULL;
  struct nx_guest_globals globals = {.stack_pointer = 65536 - seed % 16};
  assert_int_equal(
    nx_image_create_delta(&image, base_image, &handler_account.as_account, memory, MEMORY_BYTES, candidates, pages, globals, NULL), 0);
  free(memory);
  return image;
}

static inline bool same_image(const struct nx_image *a, const struct nx_image *b) {
  return !memcmp(a->hash, b->hash, NX_HASH_BYTES) && a->page_count == b->page_count &&
         a->globals.stack_pointer == b->globals.stack_pointer && a->memory_bytes == b->memory_bytes &&
         !memcmp(a->pages, b->pages, (size_t)a->page_count * NX_PAGE_BYTES) &&
         !memcmp(a->page_index, b->page_index, (size_t)a->page_count * sizeof(uint32_t));
}

static inline struct nx_handler *make_handler(const char *source) {
  struct nx_handler *handler = NULL;
  struct nx_image *image = make_image(7, 1);
  assert_int_equal(nx_handler_create(&handler, source, strlen(source), image, 100, NULL), 0);
  nx_image_release(image);
  return handler;
}

static inline void assert_text(const struct nx_buf *buf, const char *expected) {
  assert_false(buf->failed);
  if (buf->len != strlen(expected) || (buf->len && memcmp(buf->data, expected, buf->len)))
    fail_msg("got \"%.*s\", expected \"%s\"", (int)buf->len, buf->data ? buf->data : "", expected);
}

#endif
